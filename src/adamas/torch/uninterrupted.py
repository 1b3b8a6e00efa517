"""Hold back signals while something is changed that must change whole or not at all.

Ctrl-C raises KeyboardInterrupt between any two instructions of the main thread. Between the kernel and the counts of
steps it would leave weights that took a step which nobody counted.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

try:  # signal's own functions turn numbers into enums, ten times as slow
    import _signal as plain_signal  # pyright: ignore[reportMissingImports]
except ImportError:  # pragma: no cover - not CPython
    plain_signal: Any = signal

# Signals for which programs install handlers in Python, which may raise. Ctrl-C's is first.
_NAMES = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_NUMBERS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))


class Uninterrupted:
    """A context in which Python's signal handlers do not run; they run right after it.

    Example:
        >>> before = signal.signal(signal.SIGUSR1, lambda *_: print("the handler"))
        >>> with Uninterrupted():
        ...     signal.raise_signal(signal.SIGUSR1)
        ...     print("the change")
        the change
        the handler
        >>> _ = signal.signal(signal.SIGUSR1, before)
    """

    __slots__ = ("_arrived", "_handlers")

    def __init__(self) -> None:
        self._handlers: list[tuple[int, Any]] = []
        self._arrived: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> None:
        """Put a handler that only takes notes in the place of each that might raise."""
        try:
            for number in _NUMBERS:
                handler = plain_signal.getsignal(number)
                if callable(handler):
                    self._handlers.append((number, handler))
                    plain_signal.signal(number, self._note)
        except ValueError:
            self._handlers.clear()  # not the main thread, the only one in which Python runs handlers
        except BaseException:
            self._restore()
            raise

    def __exit__(self, *_: object) -> None:
        """Put the handlers back, and run those whose signals arrived."""
        if self._handlers:
            self._restore()
        for number, frame in self._arrived:
            handler = next(handler for each, handler in self._handlers if each == number)
            handler(number, frame)

    def _restore(self) -> None:
        for number, handler in reversed(self._handlers):
            plain_signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append((number, frame))
