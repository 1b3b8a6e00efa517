"""Hold back signals during a change that must happen completely or not at all.

Ctrl-C raises KeyboardInterrupt between any two instructions of the main thread. Between the kernel and the count of
steps, it would leave weights after a step that was not counted.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

try:  # signal's own functions turn numbers into enums, which takes ten times as long
    import _signal as plain_signal  # pyright: ignore[reportMissingImports]
except ImportError:  # pragma: no cover - not CPython
    plain_signal: Any = signal

# Signals for which programs install handlers in Python, where the system has them. Handlers may raise.
_NAMES = ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2")
_NUMBERS = tuple(int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name))


class Uninterrupted:
    """A context in which Python's signal handlers wait; they run right after it.

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
        self._handlers: dict[int, Any] = {}
        self._arrived: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> None:
        """Replace each handler by one that only notes the signal."""
        try:
            for number in _NUMBERS:
                handler = plain_signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    plain_signal.signal(number, self._note)
        except ValueError:
            self._handlers.clear()  # Python runs handlers only in the main thread, and this is another
        except BaseException:
            self._restore()
            raise

    def __exit__(self, *_: object) -> None:
        """Put the handlers back, and run them for the signals that arrived."""
        if self._handlers:
            self._restore()
        for number, frame in self._arrived:
            self._handlers[number](number, frame)

    def _restore(self) -> None:
        for number, handler in reversed(self._handlers.items()):
            plain_signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append((number, frame))
