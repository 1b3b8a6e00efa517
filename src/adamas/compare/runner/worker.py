"""A worker process: claims trials of a study, trains them with one thread, and stops when its input ends.

Started as `python -m adamas.compare.runner.worker COUNT REPLACEMENTS`, with one line of JSON on standard input;
several share that input. A worker holds no state: killed at any moment, it loses nothing but the run it was in. When
the tool that started it dies, its input ends too, and it stops after the run at hand.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import optuna
import torch

import adamas.torch  # noqa: F401 # pyright: ignore[reportUnusedImport] - what arms are built of, for who is forked here
from adamas.compare.job.job import JobFactory
from adamas.compare.runner.crew import ONE_THREAD
from adamas.compare.runner.foreman import Foreman
from adamas.compare.runner.storage import open_storage
from adamas.compare.runner.training import randomness, run
from adamas.compare.runner.trials import Claim, Trials
from adamas.compare.study.arms import Arm
from adamas.compare.study.workload import Workload
from adamas.leaving import leave

STANDARD_INPUT = 0
IDLE_SECONDS = 0.05  # between two looks at an empty queue
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h


class InterruptedRun(BaseException):
    """Raised into a run that the user stopped."""


class Worker:
    """The loop of one process, and how it ends."""

    def __init__(self, trials: Trials, workload: Workload, arms: Mapping[str, Arm]) -> None:
        self.trials = trials
        self.workload = workload
        self.arms = arms
        self.stop = threading.Event()
        self.training = False
        self._factories: dict[str, JobFactory] = {}

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Stop now; only training is cut short, never a transaction."""
        self.stop.set()
        if self.training:
            self.training = False
            raise InterruptedRun

    def on_end_of_input(self) -> None:
        """Stop after the run at hand.

        Not through `sys.stdin`, whose lock this thread would hold all the time: a process that the job forks, as a data
        loader's workers are, closes it first of all, and would wait for a thread that it does not have.
        """
        while os.read(STANDARD_INPUT, 4096):
            pass
        self.stop.set()

    def loop(self) -> None:
        """Train what is waiting until told to stop."""
        while not self.stop.is_set():
            claim = self.trials.claim()
            if claim is None:
                self.stop.wait(IDLE_SECONDS)
            else:
                self.train(claim)

    def factory(self, variant: str) -> JobFactory:
        """The job's, imported once: what its file reads is read once, and what it draws is alike in all workers."""
        if variant not in self._factories:
            with randomness(0, self.workload.device):
                self._factories[variant] = self.workload.load(variant)
        return self._factories[variant]

    def train(self, claim: Claim) -> None:
        """Train one task and store what came of its trials."""
        trials = claim.trials
        with self.trials.heartbeat(trials.values()):
            try:
                self.training = not self.stop.is_set()
                if not self.training:
                    raise InterruptedRun
                outcomes = run(self.factory(claim.task.variant), self.workload.device, self.arms, claim.task)
                self.training = False
            except InterruptedRun:
                for trial in trials.values():
                    self.trials.give_up(trial, None)
            except Exception:
                self.training = False
                error = f"{', '.join(trials)}\n{traceback.format_exc()}"
                for trial in trials.values():
                    self.trials.give_up(trial, error)
            else:  # a database that fails here is no fault of the job: the worker dies, and its runs return
                for cell, outcome in zip(claim.task.cells, outcomes, strict=True):
                    if cell.key in trials:
                        self.trials.finish(trials[cell.key], outcome, claim.task.metric)


def write_to(log: str) -> None:
    """Let a file take what this process writes, whoever in it does."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next step, instead of returning it and being given it anew by pages.

    Gradients of stacked weights are megabytes, which it returns by default: 170 page faults a step, 3 % of its time.
    """
    if sys.platform == "linux" and hasattr(glibc := ctypes.CDLL(None), "mallopt"):
        glibc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the highest there is
        glibc.mallopt(M_TRIM_THRESHOLD, 256 << 20)


def work(order: Mapping[str, Any]) -> None:
    """Join the study that an order names, until standard input ends."""
    warnings.filterwarnings("ignore", message="the native kernel")  # the tool, which looks the job over, has said it
    os.environ.update(ONE_THREAD)  # for whatever the job starts; a fork has the tool's environment
    torch.set_num_threads(1)
    keep_freed_memory()
    storage = open_storage(order["storage"], create=False)
    study = optuna.load_study(study_name=order["study"], storage=storage)
    trials = Trials(study, storage)
    if trials.study_id != order["study_id"]:
        return  # the study was begun afresh, perhaps of another job; its own tool has its own workers
    arms = {arm["name"]: Arm.from_json(arm) for arm in order["arms"]}
    worker = Worker(trials, Workload.from_json(order["workload"]), arms)
    signal.signal(signal.SIGTERM, worker.on_terminate)
    threading.Thread(target=worker.on_end_of_input, daemon=True).start()
    worker.loop()
    storage.remove_session()
    storage.engine.dispose()  # the last to close an SQLite file puts into it what lies beside it


def serve(count: int, replacements: int) -> None:
    """Wait for an order, and follow it: alone, or as the foreman of several."""
    line = sys.stdin.readline()
    if not line:
        return  # the tool left without an order
    order = json.loads(line)
    write_to(order["log"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tool hears Ctrl-C and passes on what it means
    if count > 1:
        sys.exit(Foreman(partial(work, order), count, replacements).run())
    work(order)


def main() -> NoReturn:
    """The process of its own: COUNT REPLACEMENTS."""
    leave(lambda: serve(*map(int, sys.argv[1:])))


if __name__ == "__main__":
    main()
