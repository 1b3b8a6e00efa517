"""A worker process: claims trials of a study, trains them with one thread, and stops when its input ends.

Started as `python -m adamas.compare.worker`, with one line of JSON on standard input. It holds no state: killed at any
moment, it loses nothing but the run it was in. When the tool that started it dies, its input ends too, and it stops
after the run at hand.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import traceback
from types import FrameType

import optuna
import torch
from optuna.trial import FrozenTrial

from adamas.compare.arms import ARMS
from adamas.compare.storage import open_storage
from adamas.compare.training import run
from adamas.compare.trials import Trials, cell_of
from adamas.compare.workload import Workload

IDLE_SECONDS = 0.1  # between two looks at an empty queue


class InterruptedRun(BaseException):
    """Raised into a run that the user stopped."""


class Worker:
    """The loop of one process, and how it ends."""

    def __init__(self, trials: Trials, workload: Workload) -> None:
        self.trials = trials
        self.workload = workload
        self.factory = workload.load()
        self.stop = threading.Event()
        self.training = False

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        """Stop now; only training is cut short, never a transaction."""
        self.stop.set()
        if self.training:
            self.training = False
            raise InterruptedRun

    def on_end_of_input(self) -> None:
        """Stop after the run at hand."""
        sys.stdin.read()
        self.stop.set()

    def loop(self) -> None:
        """Train what is waiting until told to stop."""
        while not self.stop.is_set():
            trial = self.trials.claim()
            if trial is None:
                self.stop.wait(IDLE_SECONDS)
            else:
                self.train(trial)

    def train(self, trial: FrozenTrial) -> None:
        """Train one trial and store what came of it."""
        cell = cell_of(trial)
        try:
            with self.trials.heartbeat(trial):
                self.training = not self.stop.is_set()
                if not self.training:
                    raise InterruptedRun
                outcome = run(self.factory, self.workload.device, ARMS[cell.arm], cell)
                self.training = False
        except InterruptedRun:
            self.trials.give_up(trial, None)
        except Exception:
            self.training = False
            self.trials.give_up(trial, f"{cell.key}\n{traceback.format_exc()}")
        else:
            self.trials.finish(trial, outcome, self.workload.metric)


def main() -> None:
    """Join the study that standard input names."""
    order = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tool hears Ctrl-C and passes on what it means
    torch.set_num_threads(1)
    storage = open_storage(order["storage"], create=False)
    study = optuna.load_study(study_name=order["study"], storage=storage)
    worker = Worker(Trials(study, storage), Workload(**order["workload"]))
    signal.signal(signal.SIGTERM, worker.on_terminate)
    threading.Thread(target=worker.on_end_of_input, daemon=True).start()
    worker.loop()


if __name__ == "__main__":
    main()
