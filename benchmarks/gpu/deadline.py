"""When a run has to be done: nothing is begun that has no time left, and what takes too long is cut short."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


class OverdueError(BaseException):
    """The time is up. Not an Exception, so that it is not taken for the refusal of who was being measured."""


class Deadline:
    """Counts from when it is made.

    Args:
        seconds: until then.
        now: the clock.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.now, self.start = seconds, now, now()

    def spent(self) -> float:
        """Seconds since it was made."""
        return self.now() - self.start

    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self.seconds - self.spent()


@contextmanager
def cut_after(seconds: float) -> Generator[None]:
    """Raise `OverdueError` inside this context once it has lasted that long, where the system has such an alarm."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise OverdueError

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: an exception that is raised inside of a destructor is lost.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 2.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
