"""Find the training job of a user: a function, `path.py:name` or `package.module:name`."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

from adamas import user_code
from adamas.compare.study.workload import Workload


def from_name(name: str) -> Workload:
    """Return the workload of a job in a file or a module; its revision is a hash of the contents of the file."""
    source, _, function = name.rpartition(":") if ":" in name else (name, ":", "job")
    path = Path(source)
    called = path.stem if path.suffix == ".py" else source
    if path.suffix != ".py":
        path = Path(user_code.load(source, name, "job").__file__ or "")
    is_file = path.is_file()
    return Workload(
        name=called if function == "job" else f"{called}:{function}",
        factory=f"{path.resolve() if is_file and source.endswith('.py') else source}:{function}",
        metric="",
        summary=f"The job {function} of {source}.",
        revision=hashlib.sha256(path.read_bytes()).hexdigest()[:12] if is_file else 1,
        typed=name,
    )


def from_function(job: Callable[..., Any]) -> Workload:
    """Return the workload of a job that the caller gives as a function, which may be defined in a notebook or a test.

    Its revision is a hash of the source of the function, and of the functions and classes of its module that it uses:
    a study continues while they stay the same. The hash does not see data that the function reads.
    """
    name = getattr(job, "__name__", type(job).__name__).strip("<>")
    return Workload(
        name=name,
        factory=f"{getattr(job, '__module__', None) or '__main__'}:{name}",
        metric="",
        summary=f"The job {name}, a function of the caller's.",
        revision=hashlib.sha256("\n".join(_sources(job)).encode()).hexdigest()[:12],
        function=job,
    )


def _sources(job: Any) -> list[str]:
    """Return the source of a function, and of all functions and classes of its module that it uses."""
    found: dict[int, str] = {}
    due: list[Any] = [job]
    while due:
        each = inspect.unwrap(due.pop())
        if isinstance(each, partial):
            each = each.func
        elif not (inspect.isroutine(each) or inspect.isclass(each)):  # an object with __call__
            each = type(each)
        if id(each) in found:
            continue
        code = getattr(each, "__code__", None)
        try:
            found[id(each)] = inspect.getsource(each)
        except (OSError, TypeError):  # the function was typed at a prompt
            found[id(each)] = repr(_constants(code)) if isinstance(code, CodeType) else repr(each)
        names = getattr(each, "__globals__", {})
        used = [names[name] for name in _names(code) if name in names] if isinstance(code, CodeType) else []
        used += [cell.cell_contents for cell in getattr(each, "__closure__", None) or () if not _is_empty(cell)]
        due += [
            one
            for one in used
            if (inspect.isfunction(one) or inspect.isclass(one)) and one.__module__ == getattr(job, "__module__", "")
        ]
    return list(found.values())


def _names(code: CodeType) -> list[str]:
    """Return the names that a function uses, those of the functions defined in it included."""
    inner = [name for each in code.co_consts if isinstance(each, CodeType) for name in _names(each)]
    return [*code.co_names, *inner]


def _constants(code: CodeType) -> list[Any]:
    """Return the instructions and constants of a function, for one without a known source."""
    inner = [_constants(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return [code.co_code.hex(), code.co_names, inner]


def _is_empty(cell: Any) -> bool:
    """Return whether a variable of an enclosing function has no value yet."""
    try:
        return cell.cell_contents is None
    except ValueError:
        return True
