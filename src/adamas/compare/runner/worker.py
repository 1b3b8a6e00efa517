"""Claim tasks of a study, train them and store their outcomes: in a worker process, or in the calling process.

A worker process is started as `python -m adamas.compare.runner.worker` and reads one line of JSON from standard input.
It holds no state: if it is killed at any moment, only the runs that it was training are lost, and they are trained
again. When its standard input ends, because the tool stops it or is gone, it stops after the task that it is training.
It reports what it trains through standard output: see `process`.
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import optuna
import torch
from optuna.trial import FrozenTrial

import adamas.torch  # noqa: F401 # pyright: ignore[reportUnusedImport] - imported while the tool looks the job over
from adamas.compare.job.evaluate import randomness
from adamas.compare.job.job import JobFactory
from adamas.compare.runner.output import log_name, logged, take_over
from adamas.compare.runner.process import MARK, Pass, Reports, end_marked
from adamas.compare.runner.storage import close_storage, explained, open_storage
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.training import train_task
from adamas.compare.runner.trials import RUN, Claim, Trials
from adamas.compare.study.arms import Arm
from adamas.compare.study.errors import StorageError
from adamas.compare.study.run import Outcome
from adamas.compare.study.workload import Workload
from adamas.leaving import leave
from adamas.user_code import told

_MOST = 1000  # characters of a message of a run
_IDLE_SECONDS = 0.05  # between two looks at an empty queue


class InterruptedRun(BaseException):
    """Raised into the training of a run that the user has stopped."""


class Worker:
    """Claims tasks and trains them, one after the other.

    Args:
        trials: The trials of the study.
        workload: The workload that is trained.
        arms: The arms by name.
        reports: Takes what the worker trains; None in the calling process.
        logs: The folder of what runs print; None lets them print as they do.

    Attributes:
        error: The last error that the job raised; None if it raised none.
    """

    def __init__(
        self,
        trials: Trials,
        workload: Workload,
        arms: Mapping[str, Arm],
        reports: Reports | None = None,
        logs: Path | None = None,
    ) -> None:
        self.trials = trials
        self.workload = workload
        self.arms = arms
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._reports = reports
        self._logs = logs
        self._training = False
        self._factories: dict[str, JobFactory] = {}

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: stop now, but never inside a transaction of the database."""
        self.stop.set()
        if self._training:
            self._training = False
            raise InterruptedRun

    def on_end_of_input(self, orders: int) -> None:
        """Wait for the end of the orders, which came through standard input; then let the worker stop after its task.

        The thread reads the file descriptor: it would hold the lock of a file object all the time, and a process that
        the job forks, such as a data loader's worker, would wait for that lock for ever.
        """
        while os.read(orders, 4096):
            pass
        self.stop.set()

    def loop(self) -> None:
        """Train waiting tasks until the worker is told to stop."""
        while not self.stop.is_set():
            if not self.step():
                self.stop.wait(_IDLE_SECONDS)

    def step(self) -> bool:
        """Claim and train one task; return False if none is waiting."""
        claim = self.trials.claim()
        if claim is not None:
            self._train(claim)
        return claim is not None

    def _factory(self, variant: str) -> JobFactory:
        """Return the function that makes the job; its file is imported once, with the same seed in all workers."""
        if variant not in self._factories:
            with randomness(0, self.workload.device):
                self._factories[variant] = self.workload.load(variant)
        return self._factories[variant]

    def _train(self, claim: Claim) -> None:
        """Train one task and store the outcomes of its trials; an interrupted trial waits for another worker.

        If runs that train together raise an error, they are trained again one by one, to find the one that raises it.
        """
        held = dict(claim.trials)
        passes = [claim.task]
        with self.trials.heartbeat(claim.trials.values()):
            while passes:
                task = passes.pop(0)
                try:
                    outcomes, error = self._attempt(task, held)
                except BaseException as raised:
                    for trial in held.values():
                        self.trials.fail(trial)
                    if isinstance(raised, InterruptedRun):
                        return
                    raise
                if error and len(task.runs) > 1:
                    passes = [replace(task, runs=(run,)) for run in task.runs if run.key in held]
                    continue
                # An error of the database is no fault of the job: the worker dies of it, and its runs wait again.
                for run, outcome in zip(task.runs, outcomes, strict=True):
                    if run.key in held:
                        self.trials.finish(held.pop(run.key), outcome, task.metric, error and f"{run.key}\n{error}")

    def _attempt(self, task: Task, held: Mapping[str, FrozenTrial]) -> tuple[list[Outcome], str]:
        """Train runs together; if the job raises an error, return failed outcomes and the traceback."""
        began = time.monotonic()
        with self._watched(task, held):
            try:
                self._training = not self.stop.is_set()
                if not self._training:
                    raise InterruptedRun
                return train_task(self._factory(task.variant), self.workload.device, self.arms, task), ""
            except (Exception, SystemExit) as error:
                self._training = False
                self.error = error
                if self._logs is not None:
                    traceback.print_exc()
                outcome = Outcome("failed", seconds=time.monotonic() - began, message=_message(error))
                return [outcome] * len(task.runs), traceback.format_exc()
            finally:
                self._training = False

    @contextlib.contextmanager
    def _watched(self, task: Task, held: Mapping[str, FrozenTrial]) -> Generator[None]:
        """Report what is trained while the block runs, and keep what it prints in a log of its own."""
        training = [held[run.key] for run in task.runs if run.key in held]
        log = ""
        if self._logs is not None:
            first, others = training[0], len(task.runs) - 1
            name = f"{first.number:05d} {first.user_attrs[RUN]['key']}" + (f" and {others} more" if others else "")
            log = str(self._logs / f"{log_name(name)}.log")
        numbers = tuple(trial.number for trial in held.values()), tuple(trial.number for trial in training)
        if self._reports is not None:
            self._reports.work(Pass(*numbers, len(task.runs), log))
        try:
            with logged(log) if log else contextlib.nullcontext():
                yield
        finally:
            if self._reports is not None:
                self._reports.work(None)


def _message(error: BaseException) -> str:
    """Return what a run failed of, in one line."""
    text = told(error)
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        text = f"the job called sys.exit({code})" + text.removeprefix(f"SystemExit: {error}")
    if type(error).__name__ == "BdbQuit":
        text = "a debugger cannot stop in a worker process; use workers=0 (--workers 0)"
    return " ".join(text.split())[:_MOST]


def join_study(order: Mapping[str, Any]) -> Trials | None:
    """Open the trials of the study that an order names; None if the study was restarted, perhaps with another job."""
    storage = open_storage(order["storage"], create=False)
    with explained(storage):
        trials = Trials(optuna.load_study(study_name=order["study"], storage=storage), storage)
    return trials if trials.study_id == order["study_id"] else None


def _serve() -> None:
    """Wait for an order on standard input and work on its study until standard input ends."""
    orders, outward = take_over()
    line = b""
    while not line.endswith(b"\n"):
        line += (read := os.read(orders, 1 << 16))
        if not read:
            return  # the tool ended before it had an order
    order = json.loads(line)
    reports = Reports(outward)
    try:
        _work(order, orders, reports)
    except StorageError as error:
        reports.trouble(str(error))
        raise
    finally:
        end_marked(os.environ.get(MARK, "-"))


def _work(order: Mapping[str, Any], orders: int, reports: Reports) -> None:
    """Work on the study of an order until the orders end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tool handles Ctrl-C and stops its workers
    faulthandler.enable()  # a crash in compiled code says where it was
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)  # the pool asks where a run is before it ends it
    warnings.filterwarnings("ignore", message="the native kernel")  # the tool has shown this warning
    torch.set_num_threads(1)
    sys.path[:] = order["path"]
    # The function comes from the tool that started this process, through a pipe that nobody else writes to.
    function = pickle.loads(base64.b64decode(order["function"])) if order["function"] else None
    trials = join_study(order)
    if trials is None:
        return
    arms = {arm["name"]: Arm.from_json(arm) for arm in order["arms"]}
    workload = Workload.from_json(order["workload"], function)
    worker = Worker(trials, workload, arms, reports, Path(order["logs"]))
    signal.signal(signal.SIGTERM, worker.on_terminate)
    if hasattr(os, "register_at_fork"):  # processes that a job forks are no workers, and end when they are told to
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    threading.Thread(target=worker.on_end_of_input, args=(orders,), daemon=True).start()
    worker.loop()
    close_storage(trials.storage)


def main() -> NoReturn:
    """Run a worker process to its end."""
    leave(_serve)


if __name__ == "__main__":
    main()
