"""The worker processes of one study: started, told what to work on, replaced when they die, stopped.

They take seconds to import what they train with, and nobody needs to know the study before they have; so this module
imports nothing heavy, and the command line starts them first of all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

WORKER = "adamas.compare.worker"  # the module that a worker runs
PATIENCE_SECONDS = 5.0  # for a worker to stop by itself
REPLACEMENTS = 3  # of each worker, before its deaths are taken for a fault that another start will not mend


class WorkersDiedError(RuntimeError):
    """Workers kept dying; says what the last one wrote."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(device: str) -> int:
    """A worker a core; one where they would share a GPU."""
    return cores() if device == "cpu" else 1


class Crew:
    """`count` workers, for one study."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._left = REPLACEMENTS * count
        self._order: bytes | None = None
        self._log: Path | None = None  # takes what they write on standard error once they have an order
        self._early: IO[bytes] | None = None  # takes it before
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Crew:
        """Start them, if nobody has; they import what they need, and wait for their order."""
        if self._early is None:
            self._early = tempfile.TemporaryFile()
            self._workers = [self._start() for _ in range(self._count)]
        return self

    def give(self, order: Mapping[str, Any], log: Path) -> None:
        """Tell them which study to work on, as plain data, and which file takes what they have to say."""
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self._log = log
        self._order = json.dumps({**order, "log": str(log.resolve())}).encode() + b"\n"
        for worker in self._workers:
            self._tell(worker)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them: at once if the block raised or they have no order, else when each has finished what it is at."""
        for worker in self._workers:
            if kind is not None or self._order is None:
                worker.terminate()
            close(worker)
        for worker in self._workers:
            try:
                worker.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._workers = []
        if self._early is not None:
            self._early.close()
        if self._log is not None and self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()

    def replace_dead(self) -> None:
        """Start a new worker for each that died."""
        for place, worker in enumerate(self._workers):
            if worker.poll() is None:
                continue
            if self._left == 0:
                raise WorkersDiedError(
                    f"workers keep dying (the last with exit code {worker.returncode}); "
                    f"the end of what they wrote, {self._log}:\n{self._last_words()}"
                )
            self._left -= 1
            close(worker)
            self._workers[place] = self._start()
            self._tell(self._workers[place])

    def _last_words(self) -> str:
        said = b""
        if self._early is not None:
            self._early.seek(0)
            said = self._early.read()
        if self._log is not None:
            said += self._log.read_bytes()
        return said[-2000:].decode(errors="replace")

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=self._early,
            stderr=self._early,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            start_new_session=True,  # a terminal sends Ctrl-C to the whole foreground group
        )

    def _tell(self, worker: subprocess.Popen[bytes]) -> None:
        if worker.stdin is not None and self._order is not None:
            with suppress(BrokenPipeError):  # it died; it will be replaced
                worker.stdin.write(self._order)
                worker.stdin.flush()


def close(worker: subprocess.Popen[bytes]) -> None:
    """End a worker's input, which tells it to stop after the run at hand."""
    if worker.stdin is not None:
        with suppress(BrokenPipeError):
            worker.stdin.close()
