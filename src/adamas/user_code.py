"""Import a function that the user names in a file or a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def function(where: str, option: str, makes: str) -> Callable[..., Any]:
    """Import a function that the user names.

    Args:
        where: "path/to/file.py:function" or "package.module:function".
        option: the name of the option that gave `where`, for errors.
        makes: the thing that the function has to return, for errors.

    Raises:
        ValueError: there is no such function, or importing raised.
    """
    source, _, name = where.rpartition(":")
    if not source or not name:
        raise ValueError(f"{option}={where!r} must name a file or module and a function, as in 'train.py:{option}'")
    found = getattr(load(source, where, option), name, None)
    if not callable(found):
        raise ValueError(f"{option}={where!r}: {source} has no function {name!r}; it must return {makes}")
    return found


def load(source: str, where: str, option: str) -> ModuleType:
    """Import a file or a module, which may import others from the file's folder or the current one."""
    path = Path(source)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ValueError(f"{option}={where!r}: there is no file {source}; give its path from the current folder")
    folder = path.parent.resolve() if is_file else Path.cwd()
    make_way(folder)
    try:
        return run_file(path) if is_file else importlib.import_module(source)
    except (Exception, SystemExit) as error:  # a script that parses its own arguments exits
        raise ValueError(
            f"{option}={where!r}: importing {source} raised {told(error)}; "
            "it must import without arguments and without training anything"
        ) from error


def make_way(folder: Path) -> None:
    """Put a folder first in the import path, and forget the user's modules of the same names from other folders.

    Two jobs in two folders may each have a `helper.py`. The second job would get the first job's.
    """
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    own = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    clashing = {name for name in own & set(sys.modules) - {"__main__"} if is_elsewhere(sys.modules[name], folder)}
    for name in list(sys.modules):
        if name.partition(".")[0] in clashing:
            del sys.modules[name]


def is_elsewhere(module: ModuleType, folder: Path) -> bool:
    """Whether a module is the user's and from outside of a folder. Lazy modules are not made to import anything."""
    file = vars(module).get("__file__")
    return bool(file) and is_users(file) and not Path(file).is_relative_to(folder)


def run_file(path: Path) -> ModuleType:
    """Import a Python file under the name of the file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # data classes look their module up
    spec.loader.exec_module(module)
    return module


def told(error: BaseException) -> str:
    """The text of an error, with the user's own line that raised it or led to it.

    Example:
        >>> told(ValueError("no data"))
        'ValueError: no data'
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    line = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{line}"


def is_users(filename: str) -> bool:
    """Whether a file is the user's: not from Adamas, Python or an installed package."""
    others = (Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))
    path = Path(filename)
    return path.is_absolute() and not any(path.is_relative_to(folder) for folder in others)
