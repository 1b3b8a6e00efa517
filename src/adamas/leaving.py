"""End a process without unloading torch, which would take Python half a second."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from typing import NoReturn


def leave(work: Callable[[], object]) -> NoReturn:
    """Do the work, and end the process without running functions registered with `atexit`: for workers."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as error:
        code = exit_code(error)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def leave_last(work: Callable[[], object]) -> None:
    """Do the work, let Python run the `atexit` functions that it registered, and end the process at once."""
    codes: list[int] = []

    def end() -> None:
        if codes and "torch" in sys.modules:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except OSError:  # the reader is gone: Python's own exit reports it
                return
            os._exit(codes[0])

    atexit.register(end)  # the first to register is the last to be called
    try:
        work()
        codes.append(0)
    except SystemExit as error:
        codes.append(exit_code(error))
        raise


@contextlib.contextmanager
def terminated_as_interrupted() -> Generator[None]:
    """While the block runs, treat SIGTERM, which a cluster's scheduler sends, as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code(error: SystemExit) -> int:
    """The exit code that the shell sees."""
    return error.code if isinstance(error.code, int) else int(error.code is not None)
