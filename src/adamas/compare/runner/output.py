"""What a job reads and prints in a worker: input is refused, and each pass prints into a log of at most a megabyte."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

MOST = 1_000_000  # bytes of a log
_CUT = f"\n[adamas: the log ends here, at {MOST:,} bytes; the run went on]\n".encode()
_NO_TERMINAL = "a job in a worker process has no terminal; give {} to stop or type in it"
_HOW = "workers=0 (--workers 0)"


class _NoInput(io.TextIOBase):
    """A standard input that says why nothing can be read from it."""

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Raise an error, in place of a wait that never ends."""
        raise EOFError(_NO_TERMINAL.format(_HOW))

    def read(self, size: int | None = -1, /) -> str:
        """Raise an error, in place of a wait that never ends."""
        raise EOFError(_NO_TERMINAL.format(_HOW))


def _no_debugger(*_: object, **__: object) -> NoReturn:
    """Raise an error in place of `breakpoint()`, which would wait for ever."""
    raise RuntimeError(f"breakpoint(): {_NO_TERMINAL.format(_HOW)}")


def take_over() -> tuple[int, int]:
    """Give the job an empty input and the log as its output; return descriptors of the orders and the reports.

    A worker's orders come through standard input, and its reports go through standard output, until this is called.
    """
    orders, reports = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout.flush()
    os.dup2(2, 1)
    sys.stdin = _NoInput()
    sys.breakpointhook = _no_debugger
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where the locale is not UTF-8, a print may not fail a run
    return orders, reports


def log_name(text: str) -> str:
    """Return a text as a name of a file.

    Example:
        >>> log_name("search torch.optim:SGD(momentum=0.9) lr=0.1")
        'search torch.optim_SGD_momentum=0.9_ lr=0.1'
    """
    return re.sub(r"[^\w .=+-]", "_", text)[:150]


@contextlib.contextmanager
def logged(log: str) -> Generator[None]:
    """Write all output of the block into a file, also that of compiled code and of other processes.

    The file is removed if nothing was written, and cut if it grew too large. Output goes to a file and not through a
    pipe, so that no job ever waits for a reader.
    """
    path = Path(log)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # the output goes where the worker's goes
        yield
        return
    _flush()
    before = os.dup(1), os.dup(2)
    _redirect(file, file)
    os.close(file)
    try:
        yield
    finally:
        _flush()
        _redirect(*before)
        for descriptor in before:
            os.close(descriptor)
        cut(path)
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()


def cut(path: Path) -> None:
    """Cut a log that is too long."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > MOST + len(_CUT):
            os.truncate(path, MOST)
            with path.open("ab") as file:
                file.write(_CUT)


def tidy(folder: Path) -> None:
    """Remove empty logs, and folders in which no log is left."""
    for path in folder.glob("*.log"):
        if path.stat().st_size == 0:
            path.unlink(missing_ok=True)
    for each in (folder, folder.parent):
        with contextlib.suppress(OSError):
            each.rmdir()


def _redirect(out: int, err: int) -> None:
    """Let the descriptors of standard output and standard error lead elsewhere."""
    os.dup2(out, 1)
    os.dup2(err, 2)


def _flush() -> None:
    """Write out what Python and C still hold back."""
    with contextlib.suppress(OSError, ValueError):  # a full disk; a stream that the job has closed
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError, TypeError, AttributeError):  # not on Windows
        ctypes.CDLL(None).fflush(None)
