"""Claim tasks of a study, train them and store their outcomes: in a worker process, or in the calling process.

A worker process is started as `python -m adamas.compare.runner.worker` and reads one line of JSON from standard input.
It holds no state: if it is killed at any moment, only the runs that it was training are lost, and they are trained
again. When its standard input ends, because the tool stops it or is gone, it stops after the task that it is training.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from types import FrameType
from typing import Any, NoReturn

import optuna
import torch

import adamas.torch  # noqa: F401 # pyright: ignore[reportUnusedImport] - imported while the tool looks the job over
from adamas.compare.job.evaluate import randomness
from adamas.compare.job.job import JobFactory
from adamas.compare.runner.storage import close_storage, open_storage
from adamas.compare.runner.training import train_task
from adamas.compare.runner.trials import Claim, Trials
from adamas.compare.study.arms import Arm
from adamas.compare.study.workload import Workload
from adamas.leaving import leave

_STANDARD_INPUT = 0
_IDLE_SECONDS = 0.05  # between two looks at an empty queue


class InterruptedRun(BaseException):
    """Raised into the training of a run that the user has stopped."""


class Worker:
    """Claims tasks and trains them, one after the other.

    Args:
        trials: The trials of the study.
        workload: The workload that is trained.
        arms: The arms by name.

    Attributes:
        error: The last error that the job raised; None if it raised none.
    """

    def __init__(self, trials: Trials, workload: Workload, arms: Mapping[str, Arm]) -> None:
        self.trials = trials
        self.workload = workload
        self.arms = arms
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._training = False
        self._factories: dict[str, JobFactory] = {}

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: stop now, but never inside a transaction of the database."""
        self.stop.set()
        if self._training:
            self._training = False
            raise InterruptedRun

    def on_end_of_input(self) -> None:
        """Wait for the end of standard input, then let the worker stop after its task.

        The thread reads the file descriptor: it would hold the lock of `sys.stdin` all the time, and a process that the
        job forks, such as a data loader's worker, would wait for that lock for ever.
        """
        while os.read(_STANDARD_INPUT, 4096):
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
        """Train one task and store the outcomes of its trials; an interrupted trial waits for another worker."""
        trials = claim.trials
        with self.trials.heartbeat(trials.values()):
            try:
                self._training = not self.stop.is_set()
                if not self._training:
                    raise InterruptedRun
                outcomes = train_task(self._factory(claim.task.variant), self.workload.device, self.arms, claim.task)
                self._training = False
            except Exception as error:
                self._training = False
                self.error = error
                text = f"{', '.join(trials)}\n{traceback.format_exc()}"
                for trial in trials.values():
                    self.trials.fail(trial, text)
                return
            except BaseException as error:
                self._training = False
                for trial in trials.values():
                    self.trials.fail(trial, None)
                if isinstance(error, InterruptedRun):
                    return
                raise
            # An error of the database is no fault of the job: the worker dies of it, and its runs are trained again.
            for run, outcome in zip(claim.task.runs, outcomes, strict=True):
                if run.key in trials:
                    self.trials.finish(trials[run.key], outcome, claim.task.metric)


def join_study(order: Mapping[str, Any]) -> Trials | None:
    """Open the trials of the study that an order names; None if the study was restarted, perhaps with another job."""
    storage = open_storage(order["storage"], create=False)
    trials = Trials(optuna.load_study(study_name=order["study"], storage=storage), storage)
    return trials if trials.study_id == order["study_id"] else None


def _serve() -> None:
    """Wait for an order on standard input and work on its study until standard input ends."""
    line = sys.stdin.readline()
    if not line:
        return  # the tool ended before it had an order
    order = json.loads(line)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tool handles Ctrl-C and stops its workers
    warnings.filterwarnings("ignore", message="the native kernel")  # the tool has shown this warning
    torch.set_num_threads(1)
    sys.path[:] = order["path"]
    # The function comes from the tool that started this process, through a pipe that nobody else writes to.
    function = pickle.loads(base64.b64decode(order["function"])) if order["function"] else None
    trials = join_study(order)
    if trials is None:
        return
    arms = {arm["name"]: Arm.from_json(arm) for arm in order["arms"]}
    worker = Worker(trials, Workload.from_json(order["workload"], function), arms)
    signal.signal(signal.SIGTERM, worker.on_terminate)
    threading.Thread(target=worker.on_end_of_input, daemon=True).start()
    worker.loop()
    close_storage(trials.storage)


def main() -> NoReturn:
    """Run a worker process to its end."""
    leave(_serve)


if __name__ == "__main__":
    main()
