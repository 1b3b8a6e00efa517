"""End a process that has imported torch: Python takes half a second to unload it, for nothing."""

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
    """Do the work and end the process at once: for a worker, to whom nothing at exit belongs."""
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
    """Do the work; when Python has called what was registered since with `atexit`, end the process at once."""
    codes: list[int] = []

    def end() -> None:
        if codes and "torch" in sys.modules:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except OSError:  # nobody reads any more: Python knows what to do
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
    """Take SIGTERM, as a cluster's scheduler sends it, for Ctrl-C while the block runs."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code(error: SystemExit) -> int:
    """What the shell is told."""
    return error.code if isinstance(error.code, int) else int(error.code is not None)
