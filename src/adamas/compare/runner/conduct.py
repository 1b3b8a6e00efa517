"""Conduct a study: get the runs of its courses done by workers, wherever an earlier run of the tool left off."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any
from uuid import uuid4

import optuna
from optuna.storages import RDBStorage

from adamas.compare.runner.crew import Crew, WorkersDiedError, default_workers
from adamas.compare.runner.schedule import Company
from adamas.compare.runner.snapshot import Snapshot, snapshot
from adamas.compare.runner.storage import open_storage, reason, set_once
from adamas.compare.runner.trials import Trials, errors, outcomes
from adamas.compare.search.protocol import Course, Stages
from adamas.compare.search.record import Record
from adamas.compare.study.settings import Settings
from adamas.compare.study.specification import differences, specification

POLL_SECONDS = 0.02  # between two looks at whether anything changed
LOST_SECONDS = 1.0  # between two looks for trials whose worker is gone
SPECIFICATION, SHARES = "specification", "shares"  # user attributes of the Optuna study


class ChangedError(ValueError):
    """The storage holds a study of another specification."""


class JobFailedError(RuntimeError):
    """The job raised; carries its traceback."""


class DiscardedError(RuntimeError):
    """Another process discarded the study."""


def conduct(settings: Settings, watch: Callable[[Snapshot], None], crew: Crew | None = None) -> Record:
    """Run what is missing of the study, and read what it found.

    Args:
        settings: what the user asked for.
        watch: called when runs have ended, and when more are asked for.
        crew: workers that have been started already, and are the caller's to stop; None starts and stops its own.

    Raises:
        ChangedError: the storage holds a study with another specification.
        JobFailedError: the job raised.
        DiscardedError: another process discarded the study meanwhile.
        KeyboardInterrupt: the user stopped it; what finished stays.
    """
    spec = specification(settings)
    storage = open_trials(settings)
    try:
        with Conductor(settings, storage, watch, crew) as conductor:
            conductor.open(spec)
            return Stages(settings, spec, conductor.follow).go_through()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def open_trials(settings: Settings) -> RDBStorage:
    """Open the database of a study; where the user named none, an error is about the folder."""
    try:
        return open_storage(settings.storage_url, create=True)
    except ValueError as error:
        if settings.storage:
            raise
        raise ValueError(
            f"out={settings.out} cannot hold the trials ({reason(error.__cause__ or error)}); it must be a folder that "
            "can be written to, and trials.db in it, if it is there, one of an earlier comparison"
        ) from error


class Conductor:
    """Gets runs done: asks the storage for them, keeps workers alive, waits.

    Args:
        settings: what the user asked for.
        storage: the database.
        watch: called when runs have ended, and when more are asked for.
        crew: workers that wait for an order; None hires some when there is work.
    """

    def __init__(
        self, settings: Settings, storage: RDBStorage, watch: Callable[[Snapshot], None], crew: Crew | None
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._watch = watch
        self._stack = contextlib.ExitStack()
        self._waiting = crew
        self._crew: Crew | None = None
        self._next_look = 0.0
        self._since = datetime.now()  # naive and local, as Optuna's times of trials are

    def __enter__(self) -> Conductor:
        """Begin; workers start when there is work."""
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers."""
        self._stack.__exit__(kind, error, trace)

    def open(self, spec: dict[str, Any]) -> None:
        """Make or continue the study; refuse one with another specification."""
        name = self._settings.study_name
        if self._settings.fresh:
            discard(name, self._storage)
        study = optuna.create_study(study_name=name, storage=self._storage, load_if_exists=True)
        number = self._storage.get_study_id_from_name(name)
        before = study.user_attrs.get(SPECIFICATION) or set_once(self._storage, number, SPECIFICATION, spec)
        if lines := differences(before, spec):
            raise ChangedError(
                f"{self._settings.storage_shown} holds a study of another specification, and the two would not mix:\n  "
                + "\n  ".join(lines)
                + "\nUse the same options to continue it, --fresh to discard it, or another --out to keep both."
            )
        # Of this machine, not of --workers, on which no result may depend; of the first, where others go on.
        own = max(2, default_workers(self._settings.workload.device))
        self._shares = study.user_attrs.get(SHARES) or set_once(self._storage, number, SHARES, own)
        self._trials = Trials(study, self._storage)
        self._first = len(self._trials.all())  # trials of earlier runs of the tool have lower numbers

    def follow(self, courses: list[Course]) -> None:
        """Go through courses to their ends: together if their runs can share passes, else each at its own pace."""
        workload = self._settings.workload
        waiting = [
            Company(some, workload, self._shares)
            for some in ([courses] if workload.stackable else [[one] for one in courses])
        ]
        try:
            self._go_along(waiting)
        except (KeyError, WorkersDiedError) as error:  # what Optuna says of a study that is gone, and what comes of it
            if self._trials.are_kept():
                raise
            settings = self._settings
            raise DiscardedError(
                f"another process began {settings.study_name!r} afresh in {settings.storage_shown} and discarded these "
                "runs; the same command without --fresh shares the new ones"
            ) from error

    def _go_along(self, waiting: list[Company]) -> None:
        """Have workers, and let courses go on, until all are at their ends."""
        seen = -1
        while True:
            self._return_lost()
            ended = self._trials.ended()
            if ended != seen:
                seen = ended
                waiting = self._go_on(waiting)
                if not waiting:
                    return
            if self._crew is None:
                self._crew = self._hire()
            self._crew.replace_dead()
            time.sleep(POLL_SECONDS)

    def _go_on(self, waiting: list[Company]) -> list[Company]:
        """Let courses go on whose runs are done, and ask for what they want next; return those not at their ends."""
        now = self._trials.all()
        if found := errors(now, after=self._first - 1):
            raise JobFailedError(found[0])
        done = outcomes(now)
        still = [each for each in waiting if each.go_on(done)]
        if self._trials.want([task for each in still for task in each.tasks], now):
            now = self._trials.all()
        self._watch(snapshot(self._settings, now, self._since))
        return still

    def _return_lost(self) -> None:
        """Look for lost trials, and whether the study itself is lost, every second or so."""
        if time.monotonic() >= self._next_look:
            if not self._trials.are_kept():
                raise KeyError(self._settings.study_name)
            self._trials.return_lost()
            self._next_look = time.monotonic() + LOST_SECONDS

    def _hire(self) -> Crew:
        settings = self._settings
        crew = self._waiting or self._stack.enter_context(Crew(settings.workers))
        order = {
            "storage": settings.storage_url,
            "study": settings.study_name,
            "study_id": self._trials.study_id,
            "workload": settings.workload.to_json(),
            "arms": [arm.to_json() for arm in settings.trained_arms.values()],
        }
        crew.give(order, settings.out / "workers.log")
        return crew


def discard(name: str, storage: RDBStorage) -> None:
    """Delete a study, if it is there, and see to it that the next one gets another number.

    SQLite would give it the same, and whoever is at work on the old one would take part in the new.
    """
    keeper = f"{name}, discarded {uuid4().hex}"
    with contextlib.suppress(KeyError):  # it is not there, or another process was faster
        number = storage.get_study_id_from_name(name)
        optuna.create_study(study_name=keeper, storage=storage)
        try:
            storage.delete_study(number)
            optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
        finally:
            optuna.delete_study(study_name=keeper, storage=storage)
