"""A job that trains in a few milliseconds, and a command that runs the tool on it in a process that can be killed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamas.compare.job.job import Job, Split
from adamas.compare.runner import pool, process, storage
from adamas.compare.study.budgets import Budget
from adamas.compare.study.settings import Settings
from adamas.compare.study.workload import Workload
from adamas.compare.verdict.contract import to_json
from tests.compare import fork_server
from tests.compare.barrier import Barrier

TINY = Budget(
    "tiny",
    pilot=(-4, -3),
    foreign_pilot=(-4, -2),
    lrs=(0, 1),
    timescales=(1, 1 / 10),
    rounds=(1, 1),
    confirmed=1,
    alone=1,
    pairs=3,
)
RUNS = 2 + 1 + 2 * 8 + 3 + 3 * 3  # the pilot and its extension, two arms with decay, the arm without, three seeds each


def job(seed: int, device: str) -> Job:
    """Return a linear model on noisy data, with 4 epochs of 5 steps."""
    torch.manual_seed(seed)
    model = nn.Linear(8, 1)
    data = torch.Generator().manual_seed(7)
    inputs = torch.randn(90, 8, generator=data)
    targets = inputs[:, :1] + 0.5 * torch.randn(90, 1, generator=data)
    parts = {"train": slice(0, 30), "validation": slice(30, 60), "test": slice(60, 90)}

    def batches(epoch: int) -> Iterator[Tensor]:
        return iter(torch.randperm(30).split(6))

    def loss(rows: Tensor) -> Tensor:
        return functional.mse_loss(model(inputs[rows]), targets[rows])

    def evaluate(split: Split) -> dict[str, float]:
        part = parts[split]
        return {"loss": functional.mse_loss(model(inputs[part]), targets[part]).item()}

    return Job(model, batches, loss, evaluate, epochs=4, steps_per_epoch=5, stackable=True)


def slow_job(seed: int, device: str) -> Job:
    """Return the same job, slow enough to be killed in the middle; a barrier decides how slow, if there is one."""
    if barrier := Barrier.of_environment():
        barrier.run_begins()
    else:
        time.sleep(0.2)
    return job(seed, device)


def broken_job(seed: int, device: str) -> Job:
    """Raise an error instead of returning a job."""
    raise RuntimeError("no data here")


def settings(out: Path, workers: int = 0, factory: str = "job", **changes: object) -> Settings:
    workload = Workload("tiny", f"{__name__}:{factory}", "loss", "A linear model.", stackable=factory != "slow_job")
    return Settings(workload, budget=TINY, seeds=3, workers=workers, out=out, **changes)  # type: ignore[arg-type]


def hurry() -> None:
    """Shorten the heartbeats, so that a lost run returns before a test times out."""
    storage.FILE_HEARTBEAT = storage.SERVER_HEARTBEAT = (1, 3)


def main() -> None:
    """Run the tool on the slow job and print its JSON; the arguments are OUT WORKERS [STORAGE]."""
    hurry()
    barrier = Barrier.of_environment()
    if barrier:
        barrier.tool_arrives()
    pool._WORKER, pool._REPLACEMENTS, pool._KILLS = "tests.compare.tiny_worker", 100, 100
    if fork_server.ADDRESS in os.environ:
        process.subprocess.Popen = fork_server.ForkedProcess  # type: ignore[assignment,misc]
    from adamas.compare.api import run_study

    if barrier:
        barrier.tool_begins()
    out, workers, *database = sys.argv[1:]
    given = settings(Path(out), int(workers), "slow_job", storage=next(iter(database), None))
    slow = replace(given.workload, factory="tests.compare.tiny_job:slow_job")
    given = replace(given, workload=slow)
    print(json.dumps(to_json([run_study(given).summary])))


if __name__ == "__main__":
    main()
