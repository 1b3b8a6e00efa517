"""Keep the runs of a study as Optuna trials: each run is requested once, claimed by one worker, and finished once.

Each run is a trial, and one worker claims the trials of a task together. To claim a trial means to change its state
from WAITING to RUNNING, which the database does atomically. The first heartbeat is written before the claim, so that
the trial of a dead worker always becomes stale. (Optuna's `Study.optimize` writes the first heartbeat after the claim:
if a worker is killed in between, its trial never returns.)
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from adamas.compare.runner.storage import count_states, explained, read_heartbeats, record_heartbeats
from adamas.compare.runner.tasks import Task
from adamas.compare.study.run import STAGES, Outcome, Run, Status

RUN, TASK, OUTCOME, ERROR = "run", "task", "outcome", "error"  # user attributes of a trial
_FORGOTTEN = "forgotten"  # user attribute of a study: runs that failed up to this trial are trained again
_ALIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
_DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(0.0, 1e6),
    "weight_decay": FloatDistribution(0.0, 1e30),
    "seed": IntDistribution(0, 2**31 - 1),
}


_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def _explained(method: Callable[Concatenate[Any, _Given], _Found]) -> Callable[Concatenate[Any, _Given], _Found]:
    """Let a method raise the errors of the database as sentences."""

    @functools.wraps(method)
    def call(self: Any, *args: _Given.args, **kwargs: _Given.kwargs) -> _Found:
        with explained(self.storage):
            return method(self, *args, **kwargs)

    return call


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
        self._forgotten: int = study.user_attrs.get(_FORGOTTEN, -1)
        self._beats: dict[int, tuple[Any, float]] = {}  # the heartbeats, and when this process first saw each of them

    @_explained
    def are_kept(self) -> bool:
        """Return whether the study still exists; another process may have restarted it with --fresh.

        Nothing may be written to trials of a discarded study: SQLite reuses their numbers for trials of the next study.
        """
        try:
            return self.storage.get_study_id_from_name(self.study.study_name) == self.study_id
        except KeyError:
            return False

    @_explained
    def all(self) -> list[FrozenTrial]:
        """Return every trial in its present state, in the order of the numbers."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            given, task = trial.user_attrs.get(RUN, {}), trial.user_attrs.get(TASK, {})
            if given.get("stage") not in STAGES or not {"key", "arm"} <= given.keys() or "metric" not in task:
                raise ValueError(f"trial {trial.number} names no run")
        return [trial for trial in trials if trial.number > self._forgotten or ERROR not in trial.user_attrs]

    @_explained
    def forget_failures(self) -> None:
        """Let the runs that failed be trained again by the next call: it may find the job repaired."""
        self.study.set_user_attr(_FORGOTTEN, max(trial.number for trial in self.all()))

    @_explained
    def ended(self) -> int:
        """Return how many trials have ended, in whatever state; the number never falls."""
        return sum(count for state, count in count_states(self.storage, self.study_id).items() if state.is_finished())

    @_explained
    def want(self, tasks: Iterable[Task], trials: Iterable[FrozenTrial]) -> bool:
        """Add a trial for each run that has none which waits, runs or is complete; return whether any was added."""
        covered = {_key(trial) for trial in trials if trial.state in _ALIVE}
        missing = {run.key: waiting_trial(run, task) for task in tasks for run in task.runs if run.key not in covered}
        for trial in missing.values():
            self.study.add_trial(trial)
        return bool(missing)

    @_explained
    def return_lost(self) -> None:
        """Fail the trials of workers that stopped their heartbeats; `want` then adds trials for their runs again.

        By the clock of the database, a heartbeat is too old after the grace period. If that clock was set back, the
        last heartbeat of a dead worker lies in the future: it is too old if this process saw it unchanged for as long.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        now, grace, before = time.monotonic(), self.storage.grace_period or math.inf, self._beats
        self._beats = {
            trial: before[trial] if trial in before and before[trial][0] == beat else (beat, now)
            for trial, beat in read_heartbeats(self.storage, self.study_id).items()
        }
        for trial, (_, since) in self._beats.items():
            if now - since > grace:
                with contextlib.suppress(UpdateFinishedTrialError):
                    self.storage.set_trial_state_values(trial, TrialState.FAIL)

    @_explained
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

    @_explained
    def finish(self, trial: FrozenTrial, outcome: Outcome, metric: str, error: str = "") -> None:
        """Store the outcome and complete the trial; the value of a run without figures is infinite.

        Args:
            trial: The trial.
            outcome: The outcome of its run.
            metric: The primary metric.
            error: The traceback, if the job raised an error.
        """
        value = outcome.validation[metric] if outcome.ok else float("inf")
        found = {OUTCOME: outcome.to_json(), **({ERROR: error} if error else {})}
        self._end(trial, TrialState.COMPLETE, [value], **found)

    @_explained
    def fail(self, trial: FrozenTrial) -> None:
        """Fail the trial of an interrupted run; `want` then adds a trial for the run again."""
        self._end(trial, TrialState.FAIL)

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
    return {_key(trial): _outcome_of(trial) for trial in reversed(trials) if trial.state == TrialState.COMPLETE}


def _outcome_of(trial: FrozenTrial) -> Outcome:
    """Return the outcome of a trial, after a check that the database gave back what was written."""
    outcome, metric = Outcome.from_json(trial.user_attrs[OUTCOME]), trial.user_attrs[TASK]["metric"]
    tested = outcome.test or {}
    sums: list[Any] = [outcome.total_decay, outcome.steps, outcome.epochs, outcome.seconds]
    numbers = [*outcome.validation.values(), *tested.values(), *(outcome.untrained or {}).values(), *sums]
    numbers += [*(outcome.gradient_scale or ()), *(value for moment in outcome.curve for value in moment)]
    numbers += [value for value in (outcome.fit, outcome.training_loss) if value is not None]
    named = not outcome.ok or (metric in outcome.validation and (not tested or metric in tested))
    known = outcome.status in get_args(Status) and all(isinstance(number, int | float) for number in numbers)
    if not named or not known:
        raise ValueError(f"trial {trial.number} holds no outcome")
    return outcome


def errors(trials: Iterable[FrozenTrial]) -> list[str]:
    """Return the tracebacks of the runs in which the job raised an error."""
    return [trial.user_attrs[ERROR] for trial in trials if ERROR in trial.user_attrs]


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
