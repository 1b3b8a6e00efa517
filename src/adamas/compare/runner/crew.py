"""The worker processes of one study: started, told what to work on, replaced when they die, stopped.

To import what they train with takes each of them seconds. Where processes can be forked, one imports for all workers:
a foreman, and where the command line conducts the study, the tool itself. Elsewhere each is a process of its own; so
this module imports nothing heavy, and the command line starts those first of all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from adamas.compare.runner.foreman import GAVE_UP
from adamas.compare.runner.fork import FORKS, Fork, may_fork
from adamas.importing import uncollected

WORKER = "adamas.compare.runner.worker"  # the module that a worker runs
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a worker's environment
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
    """Workers of one study.

    Args:
        count: how many.
        of_tool: whether this process is the tool, which may be forked once it has imported what they need.
    """

    def __init__(self, count: int, of_tool: bool = False) -> None:
        self._of_tool = of_tool
        self._shares = [count] if FORKS else [1] * count  # workers of each process
        self._left = REPLACEMENTS * count
        self._order: bytes | None = None
        self._log: Path | None = None  # takes what they write on standard error once they have an order
        self._early: IO[bytes] | None = None  # takes it before
        self._processes: list[subprocess.Popen[bytes] | Fork] = []

    def start_early(self) -> None:
        """Start those who have to import for themselves."""
        if not (self._of_tool and FORKS):
            self.__enter__()

    def __enter__(self) -> Crew:
        """Start them, if nobody has; they wait for their order."""
        if self._early is None:
            self._early = tempfile.TemporaryFile()
            self._processes = self._forks(self._early) or [self._start(share) for share in self._shares]
        return self

    def _forks(self, output: IO[bytes]) -> list[subprocess.Popen[bytes] | Fork]:
        """Forks of this process, where it may be forked: now, before it has run anything of the user's."""
        if not (self._of_tool and FORKS):
            return []
        with uncollected():
            worker = import_module(WORKER)
        return [Fork(partial(worker.serve, share, self._left), output) for share in self._shares] if may_fork() else []

    def give(self, order: Mapping[str, Any], log: Path) -> None:
        """Tell them which study to work on, as plain data, and which file takes what they have to say."""
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self._log = log
        self._order = json.dumps({**order, "log": str(log.resolve())}).encode() + b"\n"
        for process in self._processes:
            self._tell(process)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop them: at once if the block raised or they have no order, else when each has finished what it is at."""
        for process in self._processes:
            if kind is not None or self._order is None:
                process.terminate()
            close(process)
        for process in self._processes:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                kill(process)
        self._processes = []
        if self._early is not None:
            self._early.close()
        if self._log is not None and self._log.exists() and self._log.stat().st_size == 0:
            self._log.unlink()

    def replace_dead(self) -> None:
        """Start anew each process that died; a foreman replaces his workers himself."""
        for place, process in enumerate(self._processes):
            if process.poll() is None:
                continue
            if self._left == 0 or process.returncode == GAVE_UP:
                raise WorkersDiedError(
                    f"workers keep dying (the last process with exit code {process.returncode}); "
                    f"the end of what they wrote, {self._log}:\n{self._last_words()}"
                )
            self._left -= 1
            close(process)
            self._processes[place] = self._start(self._shares[place])
            self._tell(self._processes[place])

    def _last_words(self) -> str:
        said = b""
        if self._early is not None:
            self._early.seek(0)
            said = self._early.read()
        if self._log is not None:
            said += self._log.read_bytes()
        return said[-2000:].decode(errors="replace")

    def _start(self, share: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", WORKER, str(share), str(self._left)],
            stdin=subprocess.PIPE,
            stdout=self._early,
            stderr=self._early,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,  # a terminal sends Ctrl-C to the whole foreground group
        )

    def _tell(self, process: subprocess.Popen[bytes] | Fork) -> None:
        if process.stdin is not None and self._order is not None:
            with suppress(BrokenPipeError):  # it died; it will be replaced
                process.stdin.write(self._order)
                process.stdin.flush()


def close(process: subprocess.Popen[bytes] | Fork) -> None:
    """End the input of a process and its workers, which tells them to stop after the run at hand."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def kill(process: subprocess.Popen[bytes] | Fork) -> None:
    """End a process and its workers, who are of its session."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
