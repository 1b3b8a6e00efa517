"""The standard streams of a command: there from the start, and standard output kept for its result."""

from __future__ import annotations

import os
import sys
from typing import TextIO

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # by their file descriptors


def complete() -> None:
    """Open those that the process was started without, as `>&-` does, to nowhere.

    The next file to be opened would take their place, and what is written to them.
    """
    for number, (name, mode) in enumerate(STREAMS):
        if not is_open(number):
            file = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            if file != number:
                os.dup2(file, number)
                os.close(file)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode))  # noqa: SIM115


def is_open(number: int) -> bool:
    """Whether a file descriptor leads anywhere."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def kept_for_the_result() -> TextIO:
    """Standard output for this caller alone, to be flushed by them.

    What anybody else writes there from now on goes to standard error: the user's code, what it starts, what runs at
    exit. Where somebody has replaced `sys.stdout`, it is left to them.
    """
    if sys.stdout is not sys.__stdout__:
        return sys.stdout
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return open(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
