"""The tiny job, which misbehaves in two of its runs: alone in the pilot, and in a pass with others in the search."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from adamas.compare.job.job import Job
from tests.compare import tiny_job

BEHAVIOUR = "HOSTILE_JOB"  # environment variable: what the two runs do
GUILTY = {
    "pilot none lr=0.1 weight_decay=0.0 seed=0",
    "search adamw lr=0.1 weight_decay=0.5 seed=0",
}
SLEEPS = "98765.4321"  # how long the processes sleep that a run leaves behind: a number to find them by


def misbehave(alone: bool) -> None:
    match os.environ[BEHAVIOUR]:
        case "raises":
            raise ValueError("a rate\nthat is too high")
        case "exits":
            sys.exit(3)
        case "dies":
            os._exit(3)
        case "hangs":
            time.sleep(1000)
        case "asks":
            input("go on? ") if alone else breakpoint()
        case "prints":
            print("a line of Python, with an é")
            subprocess.run(["sh", "-c", "echo of a process; echo of its errors >&2"], check=True)
            for _ in range(300):
                os.write(1, b"x" * 10_000)
        case "leaves processes":
            for new_session in (False, True):
                subprocess.Popen(["sleep", SLEEPS], start_new_session=new_session)
                subprocess.Popen(["sh", "-c", f"trap '' TERM; sleep {SLEEPS} & wait"], start_new_session=new_session)
                subprocess.run(["sh", "-c", f"sleep {SLEEPS} &"], start_new_session=new_session, check=True)


def job(seed: int, device: str) -> Job:
    """Return the tiny job with a scheduler that knows the setting of the run."""

    def scheduler(optimizer: Optimizer) -> LRScheduler:
        group = optimizer.param_groups[0]
        if group["lr"] == 0.1 and group["weight_decay"] in (0.0, 0.5):
            misbehave(alone=group["weight_decay"] == 0.0)
        return LambdaLR(optimizer, lambda step: 1 - step / 20)

    return replace(tiny_job.job(seed, device), scheduler=scheduler)
