"""Runners, which train the runs of a study: a pool of worker processes, or the calling process itself."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from abc import abstractmethod
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from adamas.compare.study.errors import WorkersDiedError
from adamas.compare.study.settings import Settings

_WORKER = "adamas.compare.runner.worker"  # the module that a worker process runs
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_POLL_SECONDS = 0.02  # between two looks at whether a run has ended
_PATIENCE_SECONDS = 5.0  # that a worker may take to stop by itself
_REPLACEMENTS = 3  # of each worker; after more deaths, another start would not help


class Runner(AbstractContextManager["Runner"]):
    """Trains the waiting trials of a study, until its context ends.

    Attributes:
        error: The last error that the job raised in this process; None if it raised none.
    """

    error: Exception | None = None

    @abstractmethod
    def start(self, settings: Settings, study_id: int) -> None:
        """Work on this study from now on."""

    @abstractmethod
    def wait(self) -> None:
        """Wait a moment while other processes train, or train one task."""


def make_runner(workers: int) -> Runner:
    """Return a pool of that many processes; with 0, a runner that trains in the calling process."""
    if workers == 0:
        from adamas.compare.runner.inline import Inline

        return Inline()
    return Pool(workers)


class Pool(Runner):
    """Worker processes of one study: the pool starts them, gives them an order, replaces dead ones and stops them.

    `error` stays None: the job raises its errors in a worker, which stores the traceback in the trial.

    Args:
        count: The number of processes.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._replacements = _REPLACEMENTS * count
        self._order = b""
        self._log: Path | None = None  # the file that takes the output of the workers
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, settings: Settings, study_id: int) -> None:
        """Start the workers and give them their order: which study to work on, and which file takes their output."""
        self._log = settings.out / "workers.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_bytes(b"")
        order = _make_order(settings, study_id) | {"path": sys.path}
        self._order = json.dumps(order).encode() + b"\n"
        self._processes = [self._start() for _ in range(self._count)]

    def wait(self) -> None:
        """Replace each worker that died, and wait a moment."""
        for place, process in enumerate(self._processes):
            if process.poll() is None:
                continue
            if self._replacements == 0:
                written = self._log.read_bytes()[-2000:].decode(errors="replace") if self._log else ""
                raise WorkersDiedError(
                    f"workers keep dying (the last process with exit code {process.returncode}); "
                    f"the end of their log, {self._log}:\n{written}"
                )
            self._replacements -= 1
            _close(process)
            self._processes[place] = self._start()
        time.sleep(_POLL_SECONDS)

    def __exit__(self, *raised: object) -> None:
        """Stop the workers: at once if the block raised an error, else after their task."""
        for process in self._processes:
            if raised[0] is not None:
                process.terminate()
            _close(process)
        for process in self._processes:
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                _kill(process)
        self._processes = []
        if self._log is not None and self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start a worker and write the order to its standard input."""
        assert self._log is not None
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,  # a terminal sends Ctrl-C to the whole foreground group
            )
        with suppress(BrokenPipeError):  # the worker died; `wait` replaces it
            assert process.stdin is not None
            process.stdin.write(self._order)
            process.stdin.flush()
        return process


def _make_order(settings: Settings, study_id: int) -> dict[str, Any]:
    """Return the order of a study as plain data; a job that is a function is added as bytes."""
    function = ""
    if settings.workload.function is not None:
        import cloudpickle

        function = base64.b64encode(cloudpickle.dumps(settings.workload.function)).decode()
    return {
        "storage": settings.storage_url,
        "study": settings.study_name,
        "study_id": study_id,
        "workload": settings.workload.to_json(),
        "arms": [arm.to_json() for arm in settings.trained_arms.values()],
        "function": function,
    }


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close the standard input of a worker, which tells it to stop after its task."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and every process that its job has started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
