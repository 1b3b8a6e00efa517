"""Runners, which train the runs of a study: a pool of worker processes, or the calling process itself."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import sys
import time
from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamas.compare.runner.output import log_name, tidy
from adamas.compare.runner.process import Pass, WorkerProcess
from adamas.compare.runner.storage import remedy
from adamas.compare.study.errors import StorageError, WorkersDiedError
from adamas.compare.study.settings import Settings

_WORKER = "adamas.compare.runner.worker"  # the module that a worker process runs
_POLL_SECONDS = 0.02  # between two looks at whether a run has ended
_REPLACEMENTS = 3  # of each worker that died between two runs; after more deaths, another start would not help
_DEATHS = 2  # of workers in one run, after which the run has failed
_KILLS = 3  # the same for SIGKILL, which may come from outside and have nothing to do with the run


@dataclass(frozen=True)
class Lost:
    """Runs whose worker has ended while it trained them.

    Attributes:
        work: The runs.
        reason: Why the worker ended.
        seconds: How long it had trained them.
        patience: How often this may happen to a run before the run has failed.
    """

    work: Pass
    reason: str
    seconds: float
    patience: int


class Runner(AbstractContextManager["Runner"]):
    """Trains the waiting trials of a study, until its context ends.

    Attributes:
        error: The last error that the job raised in this process; None if it raised none.
    """

    error: BaseException | None = None

    @abstractmethod
    def start(self, settings: Settings, study_id: int) -> None:
        """Work on this study from now on."""

    @abstractmethod
    def wait(self) -> list[Lost]:
        """Wait a moment while other processes train, or train one task; return the runs that have lost their worker."""


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
        self._log: Path | None = None  # the file that takes the output of the workers outside of runs
        self._logs = Path()  # the folder of what runs print
        self._timeout: float | None = None
        self._storage = ""
        self._processes: list[WorkerProcess] = []

    def start(self, settings: Settings, study_id: int) -> None:
        """Start the workers and give them their order: which study to work on, and which file takes their output."""
        self._log = settings.out / "workers.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_bytes(b"")
        self._logs = settings.out.absolute() / "logs" / log_name(settings.workload.name)
        if settings.fresh:
            shutil.rmtree(self._logs, ignore_errors=True)
        self._timeout, self._storage = settings.timeout, settings.storage_shown
        order = _make_order(settings, study_id) | {"path": sys.path, "logs": str(self._logs)}
        self._order = json.dumps(order).encode() + b"\n"
        for _ in range(self._count):
            self._processes.append(self._start())

    def wait(self) -> list[Lost]:
        """Replace workers that died or take too long for a run, and wait a moment; return the runs they trained."""
        lost: list[Lost] = []
        for place, process in enumerate(self._processes):
            code, work = process.look(), process.work
            if code is None and work is not None and self._takes_too_long(process):
                reason = f"did not end within {self._timeout:g} s (--timeout)"
                lost.append(Lost(work, reason, process.seconds, patience=1))
                process.show_place()
            elif code is not None and work is not None:
                patience = _KILLS if code == -getattr(signal, "SIGKILL", 9) else _DEATHS
                lost.append(Lost(work, _told(code), process.seconds, patience))
            elif code is not None:
                self._spend_replacement(code, process.trouble)
            else:
                continue
            process.end(patience=0)
            self._processes[place] = self._start()
        time.sleep(_POLL_SECONDS)
        return lost

    def _takes_too_long(self, process: WorkerProcess) -> bool:
        """Return whether a worker has trained the same runs for longer than a run may take."""
        return self._timeout is not None and process.seconds > self._timeout

    def _spend_replacement(self, code: int, trouble: str) -> None:
        """Count a worker that ended between two runs; raise an error if too many did."""
        if self._replacements == 0:
            if trouble:
                raise StorageError(f"storage={self._storage} cannot be used ({trouble}); {remedy(trouble)}")
            for process in self._processes:
                process.look()  # moves what the process printed into the log
            written = self._log.read_bytes()[-2000:].decode(errors="replace") if self._log else ""
            raise WorkersDiedError(
                f"workers keep dying (the last process with exit code {code}); "
                f"the end of their log, {self._log}:\n{written}"
            )
        self._replacements -= 1

    def __exit__(self, *raised: object) -> None:
        """Stop the workers: at once if the block raised an error, else after their task."""
        for process in self._processes:
            process.stop(at_once=raised[0] is not None)
        for process in self._processes:
            process.end()
        self._processes = []
        if self._log is not None and self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()
        tidy(self._logs)

    def _start(self) -> WorkerProcess:
        """Start a worker and give it the order."""
        assert self._log is not None
        return WorkerProcess(_WORKER, self._order, self._log)


def _told(code: int) -> str:
    """Return in words how a worker process ended."""
    if code >= 0:
        return f"its worker process ended with exit code {code} (os._exit, a crash or the out-of-memory killer)"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    why = {"SIGKILL": " (kill -9 or the out-of-memory killer)", "SIGSEGV": " (a crash in compiled code)"}.get(name, "")
    return f"its worker process was ended by {name}{why}"


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
