"""Import a lot at once: Python's collector, which looks through all of it each time, takes a fifth of the time."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def uncollected() -> Generator[None]:
    """Import without the collector: for a command, that begins with it; what there is now it never looks at again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
