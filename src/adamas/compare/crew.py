"""The worker processes of one run of the tool: started, replaced when they die, stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

WORKER = "adamas.compare.worker"  # the module that a worker runs
PATIENCE_SECONDS = 5.0  # for a worker to stop by itself
REPLACEMENTS = 3  # of each worker, before its deaths are taken for a fault that another start will not mend


class WorkersDiedError(RuntimeError):
    """Workers kept dying; says what the last one wrote."""


class Crew:
    """`count` workers on one study.

    Args:
        order: what a worker needs to know, as plain data.
        count: how many.
        log: file that takes what they write on standard error.
    """

    def __init__(self, order: Mapping[str, Any], count: int, log: Path) -> None:
        self._order = json.dumps(order)
        self._count = count
        self._log_path = log
        self._left = REPLACEMENTS * count
        self._log: IO[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Crew:
        """Start them."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self._log_path.open("wb")
        self._workers = [self._start() for _ in range(self._count)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them: at once if the block raised, else when each has finished what it is at."""
        for worker in self._workers:
            if worker.stdin is not None:
                worker.stdin.close()
            if kind is not None:
                worker.terminate()
        for worker in self._workers:
            try:
                worker.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        if self._log is not None:
            self._log.close()
            if self._log_path.stat().st_size == 0:
                self._log_path.unlink()

    def replace_dead(self) -> None:
        """Start a new worker for each that died."""
        for place, worker in enumerate(self._workers):
            if worker.poll() is None:
                continue
            if self._left == 0:
                raise WorkersDiedError(
                    f"workers keep dying (the last with exit code {worker.returncode}); "
                    f"the end of what they wrote, {self._log_path}:\n{self._last_words()}"
                )
            self._left -= 1
            if worker.stdin is not None:
                worker.stdin.close()
            self._workers[place] = self._start()

    def _last_words(self) -> str:
        return self._log_path.read_bytes()[-2000:].decode(errors="replace")

    def _start(self) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            start_new_session=True,  # a terminal sends Ctrl-C to the whole foreground group
        )
        if worker.stdin is not None:
            worker.stdin.write(self._order.encode() + b"\n")
            worker.stdin.flush()
        return worker
