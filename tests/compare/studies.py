"""Helpers for tests of studies: read the trials from the storage, and run the tool in processes that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from adamas.compare.runner.storage import close_storage, open_storage
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.trials import RUN, Trials
from adamas.compare.study.run import Run
from adamas.compare.study.settings import Settings
from tests.compare.barrier import Barrier
from tests.compare.conftest import ROOT
from tests.compare.fork_server import ForkedProcess, ForkServer
from tests.compare.tiny_job import settings

PATIENCE_SECONDS = 60

Process = subprocess.Popen[bytes] | ForkedProcess


@contextlib.contextmanager
def trials_of(given: Settings) -> Iterator[Trials]:
    """Yield the trials of a study, which is made if it is missing."""
    storage = open_storage(given.storage_url, create=True)
    try:
        study = optuna.create_study(study_name=given.study_name, storage=storage, load_if_exists=True)
        yield Trials(study, storage)
    finally:
        close_storage(storage)


@contextlib.contextmanager
def study_of(given: Settings) -> Iterator[optuna.Study]:
    """Yield an Optuna study as any other program opens it: to read it takes no lock."""
    with trials_of(given):
        storage = RDBStorage(given.storage_url)
    try:
        yield optuna.load_study(study_name=given.study_name, storage=storage)
    finally:
        close_storage(storage)


def finished(given: Settings) -> dict[int, tuple[str, object]]:
    """Return the key of the run and the end time of each finished trial, by the number of the trial."""
    with trials_of(given) as trials:
        return {
            trial.number: (trial.user_attrs[RUN]["key"], trial.datetime_complete)
            for trial in trials.all()
            if trial.state == TrialState.COMPLETE
        }


def run(seed: int) -> Run:
    return Run("search", "adamw", 1e-3, 0.1, seed)


def task(seed: int) -> Task:
    return Task((run(seed),), "loss")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until other processes make the condition true; fail the test after a minute."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_SECONDS} s for {what}")
        time.sleep(0.1)


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:  # the process ended meanwhile
        return []


def descendants(process: int) -> list[int]:
    """Return the children of a process, their children and so on; those of a tool are its workers."""
    return [found for child in children(process) for found in (child, *descendants(child))]


class Tool:
    """Runs the tool on the slow job in separate processes.

    Args:
        out: The folder of the study.
        workers: The number of workers.
        storage: The database URL of the trials; None takes a file in the folder.
        barrier: A barrier that holds the runs back.
        fork_server: A fork server that starts the processes.
    """

    def __init__(
        self,
        out: Path,
        workers: int,
        storage: str | None = None,
        barrier: Barrier | None = None,
        fork_server: ForkServer | None = None,
    ) -> None:
        self.settings = settings(out, storage=storage)
        self._command = [sys.executable, "-m", "tests.compare.tiny_job", str(out), str(workers)]
        self._command += [storage] if storage else []
        self._environment = dict(os.environ)
        for given in (barrier, fork_server):
            self._environment |= given.environment if given else {}
        self._start = ForkedProcess if fork_server else subprocess.Popen

    def start(self) -> Process:
        pipe = subprocess.PIPE
        return self._start(self._command, cwd=ROOT, env=self._environment, stdout=pipe, stderr=pipe)

    def wait_for(self, count: int) -> None:
        there = self.settings.out / "trials.db"
        until(lambda: there.exists() and len(finished(self.settings)) >= count, f"{count} runs")


def result_of(process: Process) -> dict[str, Any]:
    """Wait for the end of the tool, and return the JSON that it printed."""
    printed, errors = process.communicate(timeout=2 * PATIENCE_SECONDS)
    assert process.returncode == 0, errors.decode()
    return json.loads(printed)


def end(process: Process) -> None:
    """Kill the tool if it still runs, and close its pipes."""
    with suppress(ProcessLookupError):
        process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
