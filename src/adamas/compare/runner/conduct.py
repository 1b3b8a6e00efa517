"""Get the runs of a study done, from wherever an earlier call left off."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from datetime import datetime
from typing import Any
from uuid import uuid4

import optuna
from optuna.storages import RDBStorage

from adamas.compare.runner.pool import Runner
from adamas.compare.runner.snapshot import snapshot
from adamas.compare.runner.storage import close_storage, open_storage, reason, set_once
from adamas.compare.runner.tasks import Schedule
from adamas.compare.runner.trials import Trials, errors, outcomes
from adamas.compare.study.errors import ChangedError, DiscardedError, JobFailedError, WorkersDiedError
from adamas.compare.study.run import Requests
from adamas.compare.study.settings import Settings, default_workers
from adamas.compare.study.snapshot import Snapshot
from adamas.compare.study.specification import differences

Watch = Callable[[Snapshot], None]

_LOST_SECONDS = 1.0  # between two looks for trials whose worker is gone
_SPECIFICATION, _SHARES = "specification", "shares"  # user attributes of the Optuna study


@contextlib.contextmanager
def open_study(
    settings: Settings, spec: dict[str, Any], runner: Runner, expected: tuple[int, int], watch: Watch
) -> Generator[Driver]:
    """Open the storage of a study and yield its driver; the storage is closed afterwards.

    Args:
        settings: The settings of the study.
        spec: Everything that the figures of its runs depend on.
        runner: Trains the runs; it is not started before there is a run to train.
        expected: The runs that the pilots begin with, and the runs of the whole study.
        watch: Called when runs have ended, and when more are requested.

    Raises:
        ChangedError: the storage holds a study with another specification.
    """
    storage = _open_trials(settings)
    try:
        driver = Driver(settings, storage, runner, expected, watch)
        driver.open(spec)
        yield driver
    finally:
        close_storage(storage)


def _open_trials(settings: Settings) -> RDBStorage:
    """Open the database of a study; where the user named no database, an error names the folder."""
    try:
        return open_storage(settings.storage_url, create=True)
    except ValueError as error:
        if settings.storage:
            raise
        raise ValueError(
            f"out={settings.out} cannot hold the trials ({reason(error.__cause__ or error)}); it must be a folder that "
            "can be written to, and trials.db in it, if it is there, one of an earlier comparison"
        ) from error


class Driver:
    """Adds the runs that the search requests to the storage, and waits until a runner has trained them.

    Args:
        settings: The settings of the study.
        storage: The database.
        runner: Trains the runs.
        expected: The runs that the pilots begin with, and the runs of the whole study.
        watch: Called when runs have ended, and when more are requested.
    """

    def __init__(
        self, settings: Settings, storage: RDBStorage, runner: Runner, expected: tuple[int, int], watch: Watch
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._runner = runner
        self._expected = expected
        self._watch = watch
        self._started = False
        self._next_look = 0.0
        self._since = datetime.now()  # naive and local, as Optuna's times of trials are

    def open(self, spec: dict[str, Any]) -> None:
        """Make the study or continue it; refuse a study with another specification."""
        name = self._settings.study_name
        if self._settings.fresh:
            discard(name, self._storage)
        study = optuna.create_study(study_name=name, storage=self._storage, load_if_exists=True)
        number = self._storage.get_study_id_from_name(name)
        before = study.user_attrs.get(_SPECIFICATION) or set_once(self._storage, number, _SPECIFICATION, spec)
        if lines := differences(before, spec):
            raise ChangedError(
                f"{self._settings.storage_shown} holds a study of another specification, and the two would not mix:\n  "
                + "\n  ".join(lines)
                + "\nUse the same options to continue it, --fresh to discard it, or another --out to keep both."
            )
        # The machine decides, not --workers, on which no result may depend. If others continue, the first decides.
        own = max(2, default_workers(self._settings.workload.device))
        self._shares = study.user_attrs.get(_SHARES) or set_once(self._storage, number, _SHARES, own)
        self._trials = Trials(study, self._storage)
        self._first = len(self._trials.all())  # trials of earlier calls have lower numbers

    def follow(self, searches: list[Requests]) -> None:
        """Go through searches to their ends: together if their runs can share passes, else each at its own pace.

        Raises:
            JobFailedError: the job raised an error.
            DiscardedError: another process discarded the study meanwhile.
        """
        workload = self._settings.workload
        waiting = [
            Schedule(some, workload, self._shares)
            for some in ([searches] if workload.stackable else [[one] for one in searches])
        ]
        try:
            self._go_along(waiting)
        except (KeyError, WorkersDiedError) as error:  # Optuna raises KeyError for a study that is gone
            if self._trials.are_kept():
                raise
            settings = self._settings
            raise DiscardedError(
                f"another process restarted the study {settings.study_name!r} with --fresh in {settings.storage_shown} "
                "and discarded these runs; the same command without --fresh shares the new ones"
            ) from error

    def _go_along(self, waiting: list[Schedule]) -> None:
        """Let the runner work and the searches advance until all searches are at their ends."""
        seen = -1
        while True:
            self._return_lost()
            ended = self._trials.ended()
            if ended != seen:
                seen = ended
                waiting = self._advance(waiting)
                if not waiting:
                    return
            if not self._started:
                self._started = True
                self._runner.start(self._settings, self._trials.study_id)
            self._runner.wait()

    def _advance(self, waiting: list[Schedule]) -> list[Schedule]:
        """Advance the searches, store their requests, and return the searches that are not at their ends."""
        now = self._trials.all()
        if found := errors(now, after=self._first - 1):
            raise JobFailedError(found[0]) from self._runner.error
        done = outcomes(now)
        still = [each for each in waiting if each.advance(done)]
        if self._trials.want([task for each in still for task in each.tasks], now):
            now = self._trials.all()
        self._watch(snapshot(self._settings, self._expected, now, self._since))
        return still

    def _return_lost(self) -> None:
        """Look once a second for trials of dead workers, and for the study itself."""
        if time.monotonic() >= self._next_look:
            if not self._trials.are_kept():
                raise KeyError(self._settings.study_name)
            self._trials.return_lost()
            self._next_look = time.monotonic() + _LOST_SECONDS


def discard(name: str, storage: RDBStorage) -> None:
    """Delete a study, if there is one, and make sure that the next study gets another number.

    SQLite would give the next study the same number, and workers of the old study would work on the new one.
    """
    keeper = f"{name}, discarded {uuid4().hex}"
    with contextlib.suppress(KeyError):  # there is none, or another process was faster
        number = storage.get_study_id_from_name(name)
        optuna.create_study(study_name=keeper, storage=storage)
        try:
            storage.delete_study(number)
            optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
        finally:
            optuna.delete_study(study_name=keeper, storage=storage)
