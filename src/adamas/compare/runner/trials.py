"""Keep the runs of a study as Optuna trials: each run is requested once, claimed by one worker, and finished once.

Each run is a trial, and one worker claims the trials of a task together. To claim a trial means to change its state
from WAITING to RUNNING, which the database does atomically. The first heartbeat is written before the claim, so that
the trial of a dead worker always becomes stale. (Optuna's `Study.optimize` writes the first heartbeat after the claim:
if a worker is killed in between, its trial never returns.)
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from adamas.compare.runner.storage import count_states, record_heartbeats
from adamas.compare.runner.tasks import Task
from adamas.compare.study.run import Outcome, Run

RUN, TASK, OUTCOME, ERROR = "run", "task", "outcome", "error"  # user attributes of a trial
_ALIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
_DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(0.0, 1e6),
    "weight_decay": FloatDistribution(0.0, 1e30),
    "seed": IntDistribution(0, 2**31 - 1),
}


@dataclass(frozen=True)
class Claim:
    """A task that this process has to train.

    Attributes:
        task: The whole task.
        trials: The trials that this process has to finish, by the key of their run; other runs finished before.
    """

    task: Task
    trials: dict[str, FrozenTrial]


class Trials:
    """The trials of one study.

    Args:
        study: The Optuna study.
        storage: The storage of the same study, for claims and heartbeats.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage) -> None:
        self.study = study
        self.storage = storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self._numbers: dict[int, int] = {}

    def are_kept(self) -> bool:
        """Return whether the study still exists; another process may have restarted it with --fresh.

        Nothing may be written to trials of a discarded study: SQLite reuses their numbers for trials of the next study.
        """
        try:
            return self.storage.get_study_id_from_name(self.study.study_name) == self.study_id
        except KeyError:
            return False

    def all(self) -> list[FrozenTrial]:
        """Return every trial in its present state, in the order of the numbers."""
        return self.study.get_trials(deepcopy=False)

    def ended(self) -> int:
        """Return how many trials have ended, in whatever state; the number never falls."""
        return sum(count for state, count in count_states(self.storage, self.study_id).items() if state.is_finished())

    def want(self, tasks: Iterable[Task], trials: Iterable[FrozenTrial]) -> bool:
        """Add a trial for each run that has none which waits, runs or is complete; return whether any was added."""
        covered = {_key(trial) for trial in trials if trial.state in _ALIVE}
        missing = {run.key: waiting_trial(run, task) for task in tasks for run in task.runs if run.key not in covered}
        for trial in missing.values():
            self.study.add_trial(trial)
        return bool(missing)

    def return_lost(self) -> None:
        """Fail the trials of workers that stopped their heartbeats; `want` then adds trials for their runs again."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)

    def claim(self) -> Claim | None:
        """Claim the waiting trials of a task for this process; return None if there is nothing to train.

        If a trial of a task is running, the task belongs to another worker, which is about to claim the rest. If a run
        of a task has no trial yet, the task is left alone: a worker that took it would train all of it, and another
        worker all of it again.
        """
        if TrialState.WAITING not in count_states(self.storage, self.study_id):
            return None
        trials = self.all()
        requested = {_key(trial) for trial in trials if trial.state in _ALIVE}
        taken = [trial.user_attrs[TASK] for trial in trials if trial.state == TrialState.RUNNING]
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        for first in waiting:
            data = first.user_attrs[TASK]
            task = Task.from_json(data)
            if data in taken or any(run.key not in requested for run in task.runs):
                continue
            if not self._take([first]):
                taken.append(data)
                continue
            rest = [trial for trial in waiting if trial is not first and trial.user_attrs[TASK] == data]
            if claimed := self._without_duplicates([first, *self._take(rest)]):
                return Claim(task, {_key(trial): trial for trial in claimed})
        return None

    def _take(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Claim trials one by one; return those that no other worker claimed first."""
        numbers = [self._number(trial) for trial in trials]
        if numbers:
            record_heartbeats(self.storage, numbers)
        taken: list[FrozenTrial] = []
        for trial, number in zip(trials, numbers, strict=True):
            with contextlib.suppress(UpdateFinishedTrialError):
                if self.storage.set_trial_state_values(number, TrialState.RUNNING):
                    taken.append(trial)
        return taken

    def _without_duplicates(self, claimed: list[FrozenTrial]) -> list[FrozenTrial]:
        """Drop each claimed trial if an earlier trial has the same run: two machines may add trials at the same moment.

        If two processes claim two trials of one run at the same moment, the earlier trial remains. Trials get their
        numbers in the order in which they become visible, and so a process that sees the later one sees both.
        """
        earliest: dict[str, int] = {}
        for trial in self.all():
            if trial.state in _ALIVE:
                earliest.setdefault(_key(trial), trial.number)
        kept = [trial for trial in claimed if earliest[_key(trial)] == trial.number]
        for trial in claimed:
            if trial not in kept:
                self._end(trial, TrialState.PRUNED)
        return kept

    def finish(self, trial: FrozenTrial, outcome: Outcome, metric: str) -> None:
        """Store the outcome and complete the trial; the value of a run without figures is infinite."""
        value = outcome.validation[metric] if outcome.ok else float("inf")
        self._end(trial, TrialState.COMPLETE, [value], **{OUTCOME: outcome.to_json()})

    def fail(self, trial: FrozenTrial, error: str | None) -> None:
        """Fail a trial: `error` is the traceback of the job, or None if the run was interrupted."""
        self._end(trial, TrialState.FAIL, None, **({} if error is None else {ERROR: error}))

    def _end(self, trial: FrozenTrial, state: TrialState, values: list[float] | None = None, **attributes: Any) -> None:
        """Write the last state of a trial, unless the study was discarded."""
        if not self.are_kept():
            return
        number = self._number(trial)
        # If the trial was taken for lost meanwhile, another worker trains its run again, with the same result.
        with contextlib.suppress(UpdateFinishedTrialError):
            for key, value in attributes.items():
                self.storage.set_trial_user_attr(number, key, value)
            self.storage.set_trial_state_values(number, state, values)

    def heartbeat(self, trials: Iterable[FrozenTrial]) -> contextlib.AbstractContextManager[None]:
        """Return a context in which heartbeats of claimed trials are written."""
        return heartbeat(self.storage, [self._number(trial) for trial in trials])

    def _number(self, trial: FrozenTrial) -> int:
        """Return the number that the storage gave a trial; the storage is asked once."""
        if trial.number not in self._numbers:
            number = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, trial.number)
            self._numbers[trial.number] = number
        return self._numbers[trial.number]


@contextlib.contextmanager
def heartbeat(storage: RDBStorage, numbers: Sequence[int]) -> Generator[None]:
    """Write heartbeats of trials from a thread while the block runs; afterwards, wait for the last one."""
    stop = threading.Event()

    def beat() -> None:
        try:
            while not stop.wait(storage.get_heartbeat_interval()):
                with contextlib.suppress(StorageInternalError, SQLAlchemyError):  # the database is away for a moment
                    record_heartbeats(storage, numbers)
        finally:
            storage.remove_session()  # a connection belongs to the thread that made it

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def outcomes(trials: Sequence[FrozenTrial]) -> dict[str, Outcome]:
    """Return the outcomes by the key of their run; if two trials have the same run, the first counts."""
    return {
        _key(trial): Outcome.from_json(trial.user_attrs[OUTCOME])
        for trial in reversed(trials)
        if trial.state == TrialState.COMPLETE
    }


def errors(trials: Iterable[FrozenTrial], after: int) -> list[str]:
    """Return the tracebacks of the job in trials with a number above `after`."""
    return [trial.user_attrs[ERROR] for trial in trials if trial.number > after and ERROR in trial.user_attrs]


def waiting_trial(run: Run, task: Task) -> FrozenTrial:
    """Return a trial that waits for a worker; its parameters are those that a dashboard plots."""
    return optuna.create_trial(
        state=TrialState.WAITING,
        params={"lr": run.lr, "weight_decay": run.weight_decay, "seed": run.seed},
        distributions=_DISTRIBUTIONS,
        user_attrs={RUN: {"key": run.key, "stage": run.stage, "arm": run.arm}, TASK: task.to_json()},
    )


def run_of(trial: FrozenTrial) -> Run:
    """Return the run that a trial stands for."""
    params, given = trial.params, trial.user_attrs[RUN]
    variant = trial.user_attrs[TASK]["variant"]
    return Run(given["stage"], given["arm"], params["lr"], params["weight_decay"], params["seed"], variant)


def _key(trial: FrozenTrial) -> str:
    """Return the key of the run that a trial stands for."""
    return trial.user_attrs[RUN]["key"]
