"""A process that imports once what several workers train with, forks them, and forks anew who dies.

Each of two workers that import torch by themselves, beside the tool that does so too, has two thirds of a core for it.
A fork takes milliseconds, and shares the memory of what was imported.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from adamas.leaving import leave

GAVE_UP = 70  # exit code: workers kept dying


class Foreman:
    """Forks workers and waits for them, in a process that has neither trained nor started a thread.

    Args:
        work: what a worker does, until the input that all share ends, or it is told by SIGTERM.
        count: how many workers.
        replacements: how many that died are forked anew, before another fork is taken not to mend it.
    """

    def __init__(self, work: Callable[[], None], count: int, replacements: int) -> None:
        self._work = work
        self._count = count
        self._left = replacements
        self._workers: set[int] = set()
        self._stopping = False

    def run(self) -> int:
        """Return the exit code once no worker is left."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        gc.freeze()  # else a worker's first collection would copy all that it shares
        for _ in range(self._count):
            self._fork()
        while self._workers:
            worker, status = os.wait()
            self._workers.discard(worker)
            code = os.waitstatus_to_exitcode(status)
            if code == 0 or self._stopping:
                continue
            print(f"a worker ended with exit code {code}", file=sys.stderr, flush=True)
            if self._left == 0:
                self._terminate()
                return GAVE_UP
            self._left -= 1
            self._fork()
        return 0

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self._terminate()

    def _terminate(self) -> None:
        """Tell the workers to stop at once."""
        self._stopping = True
        for worker in self._workers:
            with suppress(ProcessLookupError):  # it ended a moment ago
                os.kill(worker, signal.SIGTERM)

    def _fork(self) -> None:
        # A signal that came between the fork and the worker's own handler would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            worker = os.fork()
            if worker == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
                leave(self._work)
            self._workers.add(worker)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
