"""A study's runs as Optuna trials: wanted once, claimed by one worker at a time, finished once.

Each cell is a trial, and the trials of a task are claimed together by one worker. A claim is the storage's own atomic
step from WAITING to RUNNING, with a heartbeat written before it, so that no moment exists at which a dead worker's
trial could be told from a live one's by nothing. (Optuna's `Study.optimize` writes the first heartbeat after the claim:
a worker killed in between leaves a trial that never returns.)
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
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

RUN, TASK, OUTCOME, ERROR = "cell", "task", "outcome", "error"  # user attributes of a trial
ALIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(0.0, 1e6),
    "weight_decay": FloatDistribution(0.0, 1e30),
    "seed": IntDistribution(0, 2**31 - 1),
}


@dataclass(frozen=True)
class Claim:
    """A task, and those of its trials that this worker is to finish, by the key of their cell."""

    task: Task
    trials: dict[str, FrozenTrial]


class Trials:
    """The trials of one study.

    Args:
        study: where they live.
        storage: the same study's storage, for claims and heartbeats.
    """

    def __init__(self, study: optuna.Study, storage: RDBStorage) -> None:
        self.study = study
        self.storage = storage
        self.study_id = storage.get_study_id_from_name(study.study_name)
        self._numbers: dict[int, int] = {}

    def are_kept(self) -> bool:
        """Whether the study is still there: another process may have discarded it, and begun one of the same name.

        What is written to its trials afterwards may come to stand in another's: SQLite gives their numbers again.
        """
        try:
            return self.storage.get_study_id_from_name(self.study.study_name) == self.study_id
        except KeyError:
            return False

    def all(self) -> list[FrozenTrial]:
        """Every trial as it stands, in the order of its number."""
        return self.study.get_trials(deepcopy=False)

    def ended(self) -> int:
        """How many trials are over, however they ended; it only ever grows."""
        return sum(count for state, count in count_states(self.storage, self.study_id).items() if state.is_finished())

    def want(self, tasks: Iterable[Task], trials: Iterable[FrozenTrial]) -> bool:
        """Enqueue the cells that none of `trials` is waiting for, running or done with; say whether there were any."""
        covered = {trial.user_attrs[RUN]["key"] for trial in trials if trial.state in ALIVE}
        missing = {run.key: waiting_trial(run, task) for task in tasks for run in task.runs if run.key not in covered}
        for trial in missing.values():
            self.study.add_trial(trial)
        return bool(missing)

    def return_lost(self) -> None:
        """Fail the trials of workers that stopped giving signs of life; `want` then asks for their cells again."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)

    def claim(self) -> Claim | None:
        """Take the waiting trials of a task for this process; None if there is nothing to do.

        A task of which a trial is running belongs to another worker, which is about to take the rest. One of which a
        trial is yet to be asked for is left until it is: whoever took it would have to train all of it a second time.
        """
        if TrialState.WAITING not in count_states(self.storage, self.study_id):
            return None
        trials = self.all()
        asked = {trial.user_attrs[RUN]["key"] for trial in trials if trial.state in ALIVE}
        theirs = [trial.user_attrs[TASK] for trial in trials if trial.state == TrialState.RUNNING]
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        for first in waiting:
            layout = first.user_attrs[TASK]
            task = Task.from_json(layout)
            if layout in theirs or any(run.key not in asked for run in task.runs):
                continue
            if not self._take([first]):
                theirs.append(layout)
                continue
            rest = [trial for trial in waiting if trial is not first and trial.user_attrs[TASK] == layout]
            if taken := self._without_duplicates([first, *self._take(rest)]):
                return Claim(task, {trial.user_attrs[RUN]["key"]: trial for trial in taken})
        return None

    def _take(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Claim trials; return those of them to which no other worker was faster."""
        numbers = [self._number(trial) for trial in trials]
        if numbers:
            record_heartbeats(self.storage, numbers)
        return [trial for trial, number in zip(trials, numbers, strict=True) if self._run(number)]

    def _run(self, number: int) -> bool:
        """Say that a trial is run here; False if it no longer waits."""
        try:
            return self.storage.set_trial_state_values(number, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _without_duplicates(self, claimed: list[FrozenTrial]) -> list[FrozenTrial]:
        """Drop claimed trials of which an earlier one is the same run: two machines that start at once both ask for it.

        Of two such trials that are claimed at the same moment one remains: trials are numbered in the order in which
        they become visible, so whoever sees the later one sees the earlier one too.
        """
        earliest: dict[str, int] = {}
        for trial in self.all():
            if trial.state in ALIVE:
                earliest.setdefault(trial.user_attrs[RUN]["key"], trial.number)
        kept = [trial for trial in claimed if earliest[trial.user_attrs[RUN]["key"]] == trial.number]
        for trial in claimed:
            if trial not in kept:
                self._end(trial, TrialState.PRUNED)
        return kept

    def finish(self, trial: FrozenTrial, outcome: Outcome, metric: str) -> None:
        """Store the outcome and complete the trial; an infeasible one is kept with an infinite value."""
        value = outcome.validation[metric] if outcome.ok else float("inf")
        self._end(trial, TrialState.COMPLETE, [value], {OUTCOME: outcome.to_json()})

    def fail(self, trial: FrozenTrial, error: str | None) -> None:
        """Fail a trial that was interrupted (None) or raised `error`."""
        self._end(trial, TrialState.FAIL, attributes={} if error is None else {ERROR: error})

    def _end(
        self,
        trial: FrozenTrial,
        state: TrialState,
        values: list[float] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        if not self.are_kept():
            return
        number = self._number(trial)
        try:
            for key, value in (attributes or {}).items():
                self.storage.set_trial_user_attr(number, key, value)
            self.storage.set_trial_state_values(number, state, values)
        except UpdateFinishedTrialError:
            pass  # taken for dead meanwhile, and run again by another worker, with the same result

    def heartbeat(self, trials: Iterable[FrozenTrial]) -> Heartbeat:
        """Signs of life for claimed trials."""
        return Heartbeat(self.storage, [self._number(trial) for trial in trials])

    def _number(self, trial: FrozenTrial) -> int:
        """What the storage calls a trial; it is asked once."""
        if trial.number not in self._numbers:
            number = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, trial.number)
            self._numbers[trial.number] = number
        return self._numbers[trial.number]


class Heartbeat:
    """Writes signs of life from a thread while the block runs."""

    def __init__(self, storage: RDBStorage, numbers: Sequence[int]) -> None:
        self._storage = storage
        self._numbers = numbers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        """Start."""
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and wait for the last one to be written."""
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        try:
            while not self._stop.wait(self._storage.get_heartbeat_interval()):
                with suppress(StorageInternalError, SQLAlchemyError):  # a database that is away for a moment
                    record_heartbeats(self._storage, self._numbers)
        finally:
            self._storage.remove_session()  # a connection belongs to the thread that made it


def outcomes(trials: Sequence[FrozenTrial]) -> dict[str, Outcome]:
    """Finished outcomes by the key of their cell; of two trials of a cell the first counts."""
    return {
        trial.user_attrs[RUN]["key"]: Outcome.from_json(trial.user_attrs[OUTCOME])
        for trial in reversed(trials)
        if trial.state == TrialState.COMPLETE
    }


def errors(trials: Iterable[FrozenTrial], after: int) -> list[str]:
    """What the trials numbered above `after` raised."""
    return [trial.user_attrs[ERROR] for trial in trials if trial.number > after and ERROR in trial.user_attrs]


def waiting_trial(run: Run, task: Task) -> FrozenTrial:
    """A trial that waits for a worker; its parameters are those a dashboard would plot."""
    return optuna.create_trial(
        state=TrialState.WAITING,
        params={"lr": run.lr, "weight_decay": run.weight_decay, "seed": run.seed},
        distributions=DISTRIBUTIONS,
        user_attrs={RUN: {"key": run.key, "stage": run.stage, "arm": run.arm}, TASK: task.to_json()},
    )


def run_of(trial: FrozenTrial) -> Run:
    """The cell that a trial stands for."""
    params, said = trial.params, trial.user_attrs[RUN]
    variant = trial.user_attrs[TASK]["variant"]
    return Run(said["stage"], said["arm"], params["lr"], params["weight_decay"], params["seed"], variant)
