"""The runs that train together: each has its optimizer, on the model's own weights or on a slice of stacked weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from adamas.compare.job.evaluate import build, groups_of, total
from adamas.compare.job.job import Job, Split
from adamas.compare.job.stacked import StackedWeights
from adamas.compare.runner.history import History
from adamas.compare.study.arms import Arm
from adamas.compare.study.run import Run


@dataclass(eq=False)
class Copy:
    """The optimizer of one run on its copy of the weights, with the history of the run."""

    run: Run
    optimizer: Optimizer
    rates: list[float]
    scheduler: LRScheduler | None
    history: History
    max_norm: float | None = None

    def step(self, factor: float) -> None:
        """Step at `factor` times the learning rate, or at the rate that the job's own scheduler has set."""
        if self.scheduler is None:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
        if self.max_norm is not None:
            clip_gradients(self.optimizer, self.max_norm)
        self.history.before_step()
        self.optimizer.step()
        self.history.after_step()
        if self.scheduler is not None:
            self.scheduler.step()


def make_copy(job: Job, arm: Arm, run: Run, groups: Any) -> Copy:
    """Build the optimizer of a run on the weights in `groups`."""
    optimizer = build(arm, groups, run.lr, run.weight_decay)
    rates = [group["lr"] for group in optimizer.param_groups]
    history = History(run, optimizer, job.steps, power=arm.decay_power)
    scheduler = job.scheduler(optimizer) if job.scheduler else None
    return Copy(run, optimizer, rates, scheduler, history, job.max_norm)


def clip_gradients(optimizer: Optimizer, max_norm: float) -> None:
    """Scale the gradients of all weights down to the norm `max_norm`, to the bits of torch's `clip_grad_norm_`.

    The scaled gradients are new tensors: the gradients of several weights, or of several copies, may share memory.
    """
    params = [param for group in optimizer.param_groups for param in group["params"] if param.grad is not None]
    grads = [param.grad for param in params]
    factor = torch.clamp(max_norm / (torch.nn.utils.get_total_norm(grads) + 1e-6), max=1.0)
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad * factor.to(grad.device)


class Single:
    """One run on the model's own weights."""

    def __init__(self, job: Job, arm: Arm, run: Run) -> None:
        self._job = job
        self.copies = [make_copy(job, arm, run, groups_of(job))]

    def gradients(self, batches: Sequence[Any]) -> list[float]:
        """Set the gradients for the batch and return the loss."""
        (batch,) = batches
        loss = total(self._job.loss(batch))
        self.copies[0].optimizer.zero_grad()
        loss.backward()
        return [loss.item()]

    def evaluate(self, copy: Copy, split: Split) -> Mapping[str, float]:
        """Return the job's figures of a split."""
        return self._job.evaluate(split)

    def drop(self, ended: Sequence[Copy]) -> None:
        """Stop training the copies in `ended`."""
        self.copies = [copy for copy in self.copies if copy not in ended]


class Stack:
    """Several runs on stacked weights.

    Args:
        jobs: The jobs by seed.
        arms: The arms by name.
        runs: The runs that train together, one copy each.
    """

    def __init__(self, jobs: Mapping[int, Job], arms: Mapping[str, Arm], runs: Sequence[Run]) -> None:
        self._weights = StackedWeights(jobs, [run.seed for run in runs])
        self.copies = [
            make_copy(jobs[run.seed], arms[run.arm], run, self._weights.groups(place)) for place, run in enumerate(runs)
        ]

    def gradients(self, batches: Sequence[Any]) -> list[float]:
        """Set the gradients of every copy on the batch of its seed and return the losses."""
        return self._weights.gradients(batches)

    def evaluate(self, copy: Copy, split: Split) -> Mapping[str, float]:
        """Return the job's figures of a split, computed with the weights of a copy."""
        return self._weights.evaluate(self.copies.index(copy), split)

    def drop(self, ended: Sequence[Copy]) -> None:
        """Stop training these copies, and compact the weights of the others."""
        if ended:
            stay = [place for place, copy in enumerate(self.copies) if copy not in ended]
            self.copies = [self.copies[place] for place in stay]
            self._weights.keep(stay)
