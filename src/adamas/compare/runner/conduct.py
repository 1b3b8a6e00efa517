"""Get the runs of a study done, from wherever an earlier call left off."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from adamas.compare.runner.pool import Lost, Runner
from adamas.compare.runner.snapshot import snapshot
from adamas.compare.runner.storage import close_storage, explained, open_storage, reason, remedy, set_once
from adamas.compare.runner.tasks import Schedule, Task
from adamas.compare.runner.trials import RUN, TASK, Trials, errors, outcomes, run_of
from adamas.compare.study.errors import ChangedError, DiscardedError, JobFailedError, WorkersDiedError
from adamas.compare.study.run import Outcome, Requests
from adamas.compare.study.settings import Settings, default_workers
from adamas.compare.study.snapshot import Snapshot
from adamas.compare.study.specification import differences

Watch = Callable[[Snapshot], None]

_LOST_SECONDS = 1.0  # between two looks for trials whose worker is gone
_SHOWN_SECONDS = 5.0  # after which the watch is called again although no run has ended: one may be hanging
# A study ends if the first three runs all raised an error: the job is broken. It also ends if more than a third of at
# least nine did: a job that raises an error where others diverge may lose the runs at its highest rates and strongest
# decays, and more than a third is no matter of the setting.
_FIRST, _SHARE, _LEAST = 3, 1 / 3, 9
_SPECIFICATION, _SHARES, _PLANNED = "specification", "shares", "planned pairs"  # user attributes of the Optuna study


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
        general = "it must be a folder that can be written to, and trials.db in it, if it is there, one of an earlier "
        found = reason(error.__cause__ or error)
        advice = remedy(found, f"{general}comparison")
        raise ValueError(f"out={settings.out} cannot hold the trials ({found}); {advice}") from error


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
        self._next_look = self._next_show = 0.0
        self._since = datetime.now()  # naive and local, as Optuna's times of trials are
        self._ends: Counter[frozenset[str]] = Counter()  # how often a worker has ended while it trained these runs

    def open(self, spec: dict[str, Any]) -> None:
        """Make the study or continue it; refuse a study with another specification."""
        with explained(self._storage, content=True):
            lines = self._open(spec)
            known = outcomes(self._trials.all())
        if lines:
            raise ChangedError(
                f"{self._settings.storage_shown} holds a study that {_made_from(lines, self._settings)}, and the two "
                "would not mix:\n  "
                + "\n  ".join(lines)
                + "\nUse the same options to continue it, --fresh to discard it, or another --out to keep both."
            )
        self._shown = set(known)  # the runs that ended in earlier calls, or that the watch was told of

    def _open(self, spec: dict[str, Any]) -> list[str]:
        """Make the study or continue it; return the differences of the specifications."""
        name = self._settings.study_name
        if self._settings.fresh:
            discard(name, self._storage)
        study = optuna.create_study(study_name=name, storage=self._storage, load_if_exists=True)
        number = self._storage.get_study_id_from_name(name)
        before = study.user_attrs.get(_SPECIFICATION) or set_once(self._storage, number, _SPECIFICATION, spec)
        # The machine decides, not --workers, on which no result may depend. If others continue, the first decides.
        own = max(2, default_workers(self._settings.workload.device))
        self._shares = study.user_attrs.get(_SHARES) or set_once(self._storage, number, _SHARES, own)
        planned = study.user_attrs.get(_PLANNED) or set_once(self._storage, number, _PLANNED, self._settings.pairs)
        self.planned_pairs: int = planned
        self._trials = Trials(study, self._storage)
        return differences(before, spec)

    def follow(self, searches: list[Requests]) -> None:
        """Go through searches to their ends: together if their runs can share passes, else each at its own pace.

        Raises:
            JobFailedError: too many runs failed.
            StorageError: the database cannot be used any more.
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
            for lost in self._runner.wait():
                self._take_back(lost)

    def _advance(self, waiting: list[Schedule]) -> list[Schedule]:
        """Advance the searches, store their requests, and return the searches that are not at their ends."""
        now = self._trials.all()
        with explained(self._storage, content=True):
            done = outcomes(now)
        failed = errors(now)
        if len(failed) == len(done) >= _FIRST or (len(done) >= _LEAST and len(failed) > _SHARE * len(done)):
            self._show(now, done)
            self._trials.forget_failures()
            raise JobFailedError(
                f"{len(failed)} of {len(done)} finished runs failed. Repair the job; the same command then trains them "
                f"again. The first that failed: {failed[0]}"
            ) from self._runner.error
        still = [each for each in waiting if each.advance(done)]
        if self._trials.want([task for each in still for task in each.tasks], now):
            now = self._trials.all()
        self._show(now, done)
        return still

    def _show(self, now: list[FrozenTrial], done: dict[str, Outcome]) -> None:
        """Call the watch with the present state, and with the runs that ended since the last time."""
        with explained(self._storage, content=True):
            new = done.keys() - self._shown
            complete = [trial for trial in now if trial.state == TrialState.COMPLETE]
            ended = {run_of(trial): done[key] for trial in complete if (key := trial.user_attrs[RUN]["key"]) in new}
            found = snapshot(self._settings, self._expected, now, self._since)
        self._shown |= new
        self._next_show = time.monotonic() + _SHOWN_SECONDS
        self._watch(replace(found, ended=ended))

    def _take_back(self, lost: Lost) -> None:
        """Let the runs of a worker that is gone wait again; a run that ended its workers too often has failed.

        Runs that ended a worker together too often wait again one by one.
        """
        held = [trial for trial in self._trials.all() if trial.number in lost.work.held]
        held = [trial for trial in held if trial.state == TrialState.RUNNING]
        together = frozenset(trial.user_attrs[RUN]["key"] for trial in held if trial.number in lost.work.training)
        self._ends[together] += 1
        enough = self._ends[together] >= lost.patience
        for trial in held:
            run, task = run_of(trial), Task.from_json(trial.user_attrs[TASK])
            if enough and lost.work.size == 1 and trial.number in lost.work.training:
                outcome = Outcome("failed", seconds=lost.seconds, message=lost.reason)
                self._trials.finish(trial, outcome, task.metric, f"{run.key}\n{lost.reason}")
                continue
            self._trials.fail(trial)
            if enough or lost.work.size < len(task.runs):
                self._trials.want([replace(task, runs=(run,))], [])

    def _return_lost(self) -> None:
        """Look once a second for trials of dead workers, and for the study itself."""
        if time.monotonic() >= self._next_look:
            if not self._trials.are_kept():
                raise KeyError(self._settings.study_name)
            self._trials.return_lost()
            self._next_look = time.monotonic() + _LOST_SECONDS
        if self._started and time.monotonic() >= self._next_show:
            self._show(self._trials.all(), {})


def _made_from(lines: list[str], settings: Settings) -> str:
    """Return in words what an earlier study was made from."""
    if all(line.startswith("workload.revision") for line in lines):
        workload = settings.workload
        return f"was made from a different version of {workload.typed.partition(':')[0] or workload.name}"
    return "was made with other options or versions"


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
