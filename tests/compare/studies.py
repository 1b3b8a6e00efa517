"""What tests of studies share: their trials as the storage has them, and the tool in processes that may be killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from adamas.compare.runner.storage import open_storage
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.trials import RUN, Trials
from adamas.compare.study.run import Outcome, Requests, Run
from adamas.compare.study.settings import Settings
from tests.compare.barrier import Barrier
from tests.compare.conftest import ROOT
from tests.compare.fork_server import ForkedProcess, ForkServer
from tests.compare.tiny_job import settings

PATIENCE_SECONDS = 60

Process = subprocess.Popen[bytes] | ForkedProcess


@contextlib.contextmanager
def trials_of(given: Settings) -> Iterator[Trials]:
    """The trials that a study left, or an empty study."""
    storage = open_storage(given.storage_url, create=True)
    try:
        study = optuna.create_study(study_name=given.study_name, storage=storage, load_if_exists=True)
        yield Trials(study, storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def study_of(given: Settings) -> Iterator[optuna.Study]:
    """The same, as any other program would open it: looking takes no lock that anybody would have to wait for."""
    with trials_of(given):
        storage = RDBStorage(given.storage_url)
    try:
        yield optuna.load_study(study_name=given.study_name, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def finished(given: Settings) -> dict[int, tuple[str, object]]:
    """Finished trials by number: their cell, and when they ended."""
    with trials_of(given) as trials:
        return {
            trial.number: (trial.user_attrs[RUN]["key"], trial.datetime_complete)
            for trial in trials.all()
            if trial.state == TrialState.COMPLETE
        }


def follow(courses: Iterable[Requests], outcome: Callable[[Run], Outcome]) -> None:
    """Go along courses one after the other, with outcomes that nobody trained for."""
    for course in courses:
        asked = next(course)
        with suppress(StopIteration):
            while True:
                asked = course.send({run: outcome(run) for run in asked.runs})


def run(seed: int) -> Run:
    return Run("search", "adamw", 1e-3, 0.1, seed)


def task(seed: int) -> Task:
    return Task((run(seed),), "loss")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that other processes bring about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_SECONDS} s for {what}")
        time.sleep(0.1)


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:  # it ended meanwhile
        return []


def descendants(process: int) -> list[int]:
    """Children, their children and so on: the foreman of a tool, and his workers."""
    return [found for child in children(process) for found in (child, *descendants(child))]


class Tool:
    """The tool on the slow job, in processes of its own.

    Args:
        out: its folder.
        workers: how many.
        storage: the URL of its trials; None for a file in the folder.
        barrier: what holds its runs back.
        fork_server: what starts them.
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
    """What the tool printed, once it is done."""
    printed, said = process.communicate(timeout=2 * PATIENCE_SECONDS)
    assert process.returncode == 0, said.decode()
    return json.loads(printed)


def end(process: Process) -> None:
    """Kill the tool, if it still runs, and let go of its pipes."""
    with suppress(ProcessLookupError):
        process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
