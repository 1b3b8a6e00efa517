"""A worker process as the pool sees it: started with an order, watched through a pipe, ended with all it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from adamas.compare.runner.output import cut

MARK = "ADAMAS_WORKER"  # environment variable that a worker and all processes of its jobs inherit; its value is unique
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_PATIENCE_SECONDS = 5.0  # that a worker may take to stop by itself
_GRACE_SECONDS = 1.0  # between SIGTERM and SIGKILL for the processes that a job has left behind


@dataclass(frozen=True)
class Pass:
    """Runs that a worker trains together.

    Attributes:
        held: The numbers of all trials that the worker has claimed and not ended.
        training: The numbers of those that this pass trains.
        size: The number of runs of the pass; some of them may have ended earlier.
        log: The file that takes what the pass prints.
    """

    held: tuple[int, ...]
    training: tuple[int, ...]
    size: int
    log: str


class WorkerProcess:
    """A worker process.

    Args:
        module: The module that it runs.
        order: The line that it reads from standard input.
        log: The file that takes what it prints outside of runs.

    Attributes:
        work: The runs that it is training; None between two tasks.
        trouble: Why it could not use the database; empty if it could.
    """

    def __init__(self, module: str, order: bytes, log: Path) -> None:
        self.work: Pass | None = None
        self._since = 0.0
        self.trouble = ""
        self._log = log
        self._mark = uuid4().hex
        self._read = b""
        self._reports, reports = os.pipe()
        os.set_blocking(self._reports, False)
        with log.open("ab") as errors, os.fdopen(reports, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                env={**os.environ, **_ONE_THREAD, MARK: self._mark},
                start_new_session=True,  # a terminal sends Ctrl-C to the whole foreground group
            )
        with suppress(BrokenPipeError):  # the worker died; the pool replaces it
            assert self._process.stdin is not None
            self._process.stdin.write(order)
            self._process.stdin.flush()

    @property
    def seconds(self) -> float:
        """The seconds since the worker began with the runs that it is training."""
        return time.monotonic() - self._since

    def look(self) -> int | None:
        """Read what the worker has reported, and return its exit code; None while it runs."""
        code = self._process.poll()  # before the reports are read: then those of a dead worker are complete
        with suppress(BlockingIOError):
            while data := os.read(self._reports, 1 << 16):
                self._read += data
        *lines, self._read = self._read.split(b"\n")
        for line in lines:
            printed, mark, report = line.partition(self._mark.encode())
            if mark:
                self._take(json.loads(report))
            else:
                with self._log.open("ab") as log:
                    log.write(printed + b"\n")
        if self.work is not None and self.work.log:
            cut(Path(self.work.log))
        return code

    def _take(self, report: dict[str, str | dict[str, object]]) -> None:
        """Take note of a report."""
        self.trouble = str(report.get("trouble", self.trouble))
        if "pass" in report:
            found = report["pass"]
            self.work = Pass(**found) if isinstance(found, dict) else None  # type: ignore[arg-type]
            self._since = time.monotonic()

    def stop(self, at_once: bool) -> None:
        """Tell the worker to stop after its task, or at once."""
        if at_once:
            self._process.terminate()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self, patience: float = _PATIENCE_SECONDS) -> None:
        """Wait until the worker has ended, kill it if it takes too long, and end what its jobs have left behind."""
        if self._reports < 0:
            return
        self.stop(at_once=False)
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        end_marked(self._mark)
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self.look()  # what it printed last
        os.close(self._reports)
        self._reports = -1

    def show_place(self) -> None:
        """Let the worker write into its log where the run is, if it can."""
        if hasattr(signal, "SIGUSR1"):
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)
            time.sleep(0.1)


class Reports:
    """The other end of the pipe: a worker tells its pool what it is training.

    Args:
        descriptor: The pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mark = os.environ.get(MARK, "")

    def work(self, work: Pass | None) -> None:
        """Tell which runs are trained from now on; None for the time between two tasks."""
        self._write({"pass": None if work is None else asdict(work)})

    def trouble(self, reason: str) -> None:
        """Tell why the database cannot be used."""
        self._write({"trouble": reason})

    def _write(self, report: dict[str, object]) -> None:
        with suppress(OSError):  # the tool is gone
            os.write(self._descriptor, f"{self._mark}{json.dumps(report)}\n".encode())


def end_marked(mark: str) -> None:
    """End every process but this one that inherited a mark, whatever its parent and session are; on Linux alone."""
    began = time.monotonic()
    while (found := _marked(mark)) and (waited := time.monotonic() - began) < 3 * _GRACE_SECONDS:
        for process in found:
            with suppress(OSError):
                os.kill(process, signal.SIGTERM if waited < _GRACE_SECONDS else signal.SIGKILL)
        time.sleep(0.02)


def _marked(mark: str) -> list[int]:
    """Return the processes that have a mark in their environment, this one left out."""
    found: list[int] = []
    wanted = f"{MARK}={mark}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # another user's, or it ended
            if wanted in environ.read_bytes() and environ.parent.name != str(os.getpid()):
                found.append(int(environ.parent.name))
    return found
