"""Train many small runs together: every run is a copy of the job's weights, and each optimizer steps all of its runs.

Runs of one seed share their first weights and their batches, so arms and settings are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adamas.compare.job.job import Job
from adamas.compare.job.stacked import StackedWeights

_TOGETHER = 24  # runs in one pass: their weights and moments still fit into a processor's cache
Factory = Callable[[int], Job]


@dataclass(frozen=True)
class Arm:
    """An optimizer: "l2" (our Adam with L2), "adamw" (our AdamW) or "sgd" (torch's), with further arguments."""

    name: str
    kind: str
    options: tuple[tuple[str, Any], ...] = ()

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Return the optimizer of groups that each have an lr and a weight decay."""
        from adamas.torch import Adam, AdamW

        kinds: dict[str, Any] = {"l2": Adam, "adamw": AdamW, "sgd": torch.optim.SGD}
        return kinds[self.kind](groups, lr=groups[0]["lr"], **dict(self.options))


NONE = Arm("Adam without decay", "l2")
ADAM_L2 = Arm("Adam with L2", "l2")
ADAMW = Arm("AdamW", "adamw")
CAUTIOUS = Arm("AdamW, cautious", "adamw", (("cautious_decay", True),))
SGD = Arm("SGD", "sgd", (("momentum", 0.9),))


@dataclass(frozen=True)
class Run:
    """One run: the optimizer, the learning rate, the weight decay in torch's convention, and the seed."""

    arm: Arm
    lr: float
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Result:
    """The cross-entropies of a trained run; inf where it diverged."""

    validation: float
    test: float
    training: float


def train(job: Factory, runs: Iterable[Run]) -> dict[Run, Result]:
    """Train the job once for each run, and return the losses.

    Args:
        job: Makes the job of a seed.
        runs: The runs, in any order.
    """
    ordered = sorted(dict.fromkeys(runs), key=lambda run: run.seed)
    found: dict[Run, Result] = {}
    for first in range(0, len(ordered), _TOGETHER):
        found |= _train_together(job, ordered[first : first + _TOGETHER])
    return found


def _train_together(make: Factory, runs: Sequence[Run]) -> dict[Run, Result]:
    """Train some runs in one stack of weights."""
    with torch.random.fork_rng(devices=[]):
        jobs = {seed: make(seed) for seed in dict.fromkeys(run.seed for run in runs)}
    job = next(iter(jobs.values()))
    stack = StackedWeights(jobs, [run.seed for run in runs])
    groups = {
        run: [{"weight_decay": run.weight_decay, **group, "lr": run.lr} for group in stack.groups(place)]
        for place, run in enumerate(runs)
    }
    optimizers = [
        arm.build([group for run in runs if run.arm == arm for group in groups[run]])
        for arm in dict.fromkeys(run.arm for run in runs)
    ]
    bases = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    late = [0.0] * len(runs)
    for epoch in range(job.epochs):
        late = [0.0] * len(runs)
        for step, batches in enumerate(zip(*(each.batches(epoch) for each in jobs.values()), strict=True)):
            factor = job.schedule((epoch * job.steps_per_epoch + step) / job.steps)
            for group, lr in bases:
                group["lr"] = lr * factor
            losses = stack.gradients(batches)
            for optimizer in optimizers:
                optimizer.step()
            late = [total + loss / job.steps_per_epoch for total, loss in zip(late, losses, strict=True)]
    return {run: _result(stack, place, late[place]) for place, run in enumerate(runs)}


def _result(stack: StackedWeights, place: int, training: float) -> Result:
    """Return the losses of one run, with inf in place of NaN."""
    with torch.no_grad():
        found = [stack.evaluate(place, split)["cross_entropy"] for split in ("validation", "test")]
    return Result(*(value if value == value else float("inf") for value in (*found, training)))
