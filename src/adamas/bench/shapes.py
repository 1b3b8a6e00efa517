"""Shapes as a user gives them: written out, or those of a model that a function makes."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from adamas.bench.scenario import Shape

TERM = re.compile(r"(?:(\d+)x)?\(([\d, ]*)\)")


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Read shapes.

    Raises:
        ValueError: `text` is none, with what it should look like.

    Example:
        >>> parse_shapes("2x(20,20) (16)")
        ((20, 20), (20, 20), (16,))
    """
    shapes: list[Shape] = []
    rest = TERM.sub(" ", text).split()
    if rest or not TERM.search(text):
        raise ValueError(
            f"shapes={text!r}: {rest[0] if rest else 'nothing'!r} is no shape; write count x (sizes), separated by "
            "spaces, as in '24x(20,20) 24x(16)'"
        )
    for count, sizes in TERM.findall(text):
        shape = tuple(int(size) for size in sizes.replace(",", " ").split())
        shapes += [shape] * (int(count) if count else 1)
    return tuple(shapes)


def model_shapes(where: str) -> tuple[Shape, ...]:
    """Shapes of the trainable parameters of the model that a function makes.

    Args:
        where: "path/to/file.py:factory" or "package.module:factory"; called without arguments, it returns an
            nn.Module.

    Raises:
        ValueError: there is no such function, or what it returns is no model with trainable parameters.
    """
    source, _, name = where.rpartition(":")
    if not source or not name:
        raise ValueError(f"model={where!r} must name a file or module and a function, as in 'train.py:make_model'")
    factory = getattr(load(source, where), name, None)
    if not callable(factory):
        raise ValueError(f"model={where!r}: {source} has no function {name!r}; it must return an nn.Module")
    try:
        model = factory()
    except Exception as error:
        raise ValueError(
            f"model={where!r}: {name}() raised {type(error).__name__}: {error}; it is called without arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={where!r}: {name}() returned a {type(model).__name__}; it must return an nn.Module")
    shapes = tuple(tuple(param.shape) for param in model.parameters() if param.requires_grad)
    if not shapes:
        raise ValueError(f"model={where!r}: the model has no trainable parameter; there is nothing to step")
    return shapes


def load(source: str, where: str) -> ModuleType:
    """Import a file or a module, with its folder or the current one at hand for what it imports."""
    path = Path(source)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ValueError(f"model={where!r}: there is no file {source}; give its path from the current folder")
    sys.path.insert(0, str(path.parent.resolve() if is_file else Path.cwd()))
    try:
        return run_file(path) if is_file else importlib.import_module(source)
    except Exception as error:
        raise ValueError(
            f"model={where!r}: importing {source} raised {type(error).__name__}: {error}; "
            "it must import without arguments and without training anything"
        ) from error


def run_file(path: Path) -> ModuleType:
    """Import a file under its own name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # data classes in it look themselves up
    spec.loader.exec_module(module)
    return module
