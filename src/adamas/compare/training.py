"""Train one cell: the only place where the comparison touches tensors."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch.optim import Optimizer

from adamas.compare.arms import Arm
from adamas.compare.cell import Cell, Outcome
from adamas.compare.job import Job, JobFactory, Split
from adamas.decay import total_decay

PROBES = 20  # moments in a pilot run at which sqrt(v_hat) is looked at
PERCENTILES = (0.10, 0.50, 0.90)
PROBED_WEIGHTS = 50_000  # of a probe at most: torch.quantile takes 16 million values, and more add nothing


def run(factory: JobFactory, device: str, arm: Arm, cell: Cell) -> Outcome:
    """Train `cell` from its seed, and leave the caller's random stream as it was."""
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        outcome = train(factory(cell.seed, device), arm, cell)
    return replace(outcome, seconds=time.perf_counter() - started)


def train(job: Job, arm: Arm, cell: Cell) -> Outcome:
    """Train `job` with the optimizer of `arm`; validate at the end, test finalists only."""
    groups = job.model.parameters() if job.parameter_groups is None else job.parameter_groups
    optimizer = arm.build(groups, cell.lr, cell.weight_decay)
    factors = [job.schedule(step / job.steps) for step in range(job.steps)]
    probes = steps(job, optimizer, factors, probing=cell.stage == "pilot")
    outcome = Outcome(
        feasible=probes is not None,
        total_decay=total_decay((cell.lr * factor for factor in factors), cell.weight_decay),
        steps=job.steps,
        steps_per_epoch=job.steps_per_epoch,
        epochs=job.epochs,
        gradient_scale=percentiles(probes) if probes else None,
    )
    if probes is None:
        return outcome
    validation = figures(job, "validation")
    test = figures(job, "test") if cell.stage == "final" else None
    if not all(map(math.isfinite, [*validation.values(), *(test or {}).values()])):
        return replace(outcome, feasible=False)
    return replace(outcome, validation=validation, test=test)


def steps(job: Job, optimizer: Optimizer, factors: Sequence[float], probing: bool) -> list[torch.Tensor] | None:
    """Take every step of the job; return the probes of sqrt(v_hat), or None where the loss stopped being finite."""
    rates = [group["lr"] for group in optimizer.param_groups]
    probes: list[torch.Tensor] = []
    stride = max(1, job.steps // PROBES)
    job.model.train()
    for epoch in range(job.epochs):
        batches = 0
        for batches, batch in enumerate(job.batches(epoch), start=1):
            if batches > job.steps_per_epoch:
                break
            step = epoch * job.steps_per_epoch + batches
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factors[step - 1]
            loss = job.loss(batch)
            if not math.isfinite(loss.item()):
                return None
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if probing and step % stride == 0:
                probes.append(root_second_moments(optimizer, step))
        if batches != job.steps_per_epoch:
            many = "more" if batches > job.steps_per_epoch else f"{batches}"
            raise ValueError(
                f"steps_per_epoch={job.steps_per_epoch} must be the batches of an epoch; epoch {epoch} had {many}"
            )
    return probes


def root_second_moments(optimizer: Optimizer, step: int) -> torch.Tensor:
    """sqrt(v_hat) of the weights after `step` steps, without exact zeros: a weight that never saw a gradient."""
    parts = [
        (optimizer.state[param]["exp_avg_sq"] / (1.0 - group["betas"][1] ** step)).sqrt().flatten()
        for group in optimizer.param_groups
        for param in group["params"]
        if param in optimizer.state
    ]
    values = torch.cat(parts).cpu()
    values = values[values > 0]
    return values[:: max(1, len(values) // PROBED_WEIGHTS)]


def percentiles(probes: Sequence[torch.Tensor]) -> tuple[float, float, float]:
    """10th, 50th and 90th percentile over all probes together."""
    low, middle, high = torch.cat(list(probes)).double().quantile(torch.tensor(PERCENTILES, dtype=torch.float64))
    return low.item(), middle.item(), high.item()


def figures(job: Job, split: Split) -> dict[str, float]:
    """Evaluate a split without gradients, in evaluation mode."""
    job.model.eval()
    with torch.no_grad():
        result: Mapping[str, float] = job.evaluate(split)
    job.model.train()
    return {name: float(value) for name, value in result.items()}
