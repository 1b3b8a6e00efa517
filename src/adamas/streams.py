"""The standard streams of a command: reopen closed ones, and keep standard output for the command's result."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # in the order of their file descriptors
_PLAIN = "adamas.plain"  # the name of the error handler
_PLAIN_CHARACTERS = {"−": "-", "–": "-", "—": "-", "×": "x", "±": "+/-", "…": "...", "“": '"', "”": '"', "’": "'"}


def complete() -> None:
    """Reopen closed standard streams, as after `>&-`, on /dev/null.

    Otherwise the next file to be opened would get the stream's descriptor, and the text written to the stream.
    """
    for number, (name, mode) in enumerate(STREAMS):
        if not is_open(number):
            file = os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
            if file != number:
                os.dup2(file, number)
                os.close(file)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode))  # noqa: SIM115


def never_refuse() -> None:
    """Let the standard streams replace what their encoding lacks, in place of an error that would end the command."""
    codecs.register_error(_PLAIN, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return plain characters for those that cannot be encoded: a codec's error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN_CHARACTERS.get(each, "?") for each in error.object[error.start : error.end]), error.end


def is_open(number: int) -> bool:
    """Whether a file descriptor is open."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def kept_for_the_result() -> TextIO:
    """A stream to standard output for the caller alone, to write the command's result and flush it.

    From now on other output to it goes to standard error: from the user's code, from processes that it starts, and from
    functions that run at exit. Where `sys.stdout` has been replaced, it is returned as it is.
    """
    if sys.stdout is not sys.__stdout__:
        return sys.stdout
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    return open(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
