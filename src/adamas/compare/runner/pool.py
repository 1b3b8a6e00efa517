"""Who trains the runs: a pool of worker processes, or the calling process itself.

Both implement `Runner`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from adamas.compare.study.errors import WorkersDiedError

if TYPE_CHECKING:
    from adamas.compare.study.settings import Settings

_WORKER = "adamas.compare.runner.worker"  # the module that a worker process runs
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_POLL_SECONDS = 0.02  # between two looks at whether a run has ended
_PATIENCE_SECONDS = 5.0  # that a worker may take to stop by itself
_REPLACEMENTS = 3  # of each worker, before its deaths count as a fault that another start will not mend


class Runner(Protocol):
    """Gets the waiting trials of a study trained."""

    @property
    def error(self) -> Exception | None:
        """The last error that the job raised in this process."""
        ...

    def __enter__(self) -> Runner:
        """Get ready to train."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop training: at once if the block raised an error."""
        ...

    def start(self, settings: Settings, study_id: int) -> None:
        """Work on this study from now on."""
        ...

    def wait(self) -> None:
        """Wait a moment while others train, or train one task."""
        ...


def make_runner(workers: int) -> Runner:
    """Return a pool of that many processes; with 0, a runner that trains in the calling process."""
    if workers == 0:
        from adamas.compare.runner.inline import Inline

        return Inline()
    return Pool(workers)


class Pool:
    """Worker processes of one study: started, given an order, replaced when they die, and stopped.

    Args:
        count: The number of processes.
    """

    error = None  # an error of the job is in the worker, and its traceback in the trial

    def __init__(self, count: int) -> None:
        self._count = count
        self._replacements = _REPLACEMENTS * count
        self._order = b""
        self._log: Path | None = None  # takes what the workers write
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Pool:
        """Do nothing: the processes start when there is a run to train."""
        return self

    def start(self, settings: Settings, study_id: int) -> None:
        """Start the workers and give them their order: which study to work on, and which file takes their output."""
        self._log = settings.out / "workers.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_bytes(b"")
        order = make_order(settings, study_id) | {"path": sys.path}
        self._order = json.dumps(order).encode() + b"\n"
        self._processes = [self._start() for _ in range(self._count)]

    def wait(self) -> None:
        """Replace each worker that died, and wait a moment."""
        for place, process in enumerate(self._processes):
            if process.poll() is None:
                continue
            if self._replacements == 0:
                raise WorkersDiedError(
                    f"workers keep dying (the last process with exit code {process.returncode}); "
                    f"the end of their log, {self._log}:\n{self._last_words()}"
                )
            self._replacements -= 1
            _close(process)
            self._processes[place] = self._start()
        time.sleep(_POLL_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers: at once if the block raised an error, else after their task."""
        for process in self._processes:
            if kind is not None:
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

    def _last_words(self) -> str:
        """Return the end of what the workers wrote."""
        return self._log.read_bytes()[-2000:].decode(errors="replace") if self._log else ""


def make_order(settings: Settings, study_id: int) -> dict[str, Any]:
    """Return the order of a study as plain data; a job that is a function goes with it as bytes."""
    function = ""
    if settings.workload.function is not None:
        import base64

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
