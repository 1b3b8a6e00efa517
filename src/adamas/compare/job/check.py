"""Inspect a job before a study trains it: every piece must work, and the seed must fix how the job starts."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from adamas.compare.job.dependence import SAME, check_moves, check_repeated, check_split
from adamas.compare.job.evaluate import build, build_all, figures, groups_of, one_thread, primary, randomness
from adamas.compare.job.faults import Fault, Problem, faults_of
from adamas.compare.job.job import Job, JobFactory, OwnLoop, constant, cosine, primary_metric
from adamas.compare.job.start import Start, start, weights
from adamas.compare.study.arms import ARMS, Arm
from adamas.compare.study.direction import better_when_higher, with_negated
from adamas.compare.study.margin import Margin
from adamas.compare.study.workload import Workload

_ROUNDED = 1e-3  # relative difference of the sums of all gradients that a GPU may cause
_PEEKED = 20  # steps for which a scheduler is tried
_SEED_FIXES = (
    "the seed must fix weights, data order and augmentation (torch, NumPy and random are seeded before the call; seed "
    "your own generators in the function)"
)


def inspect_job(workload: Workload, margin: Margin | None, arms: Mapping[str, Arm]) -> Workload:
    """Inspect a job, and return its workload with the fields that only the job can tell.

    Args:
        workload: The workload, with its device, and with its metric if the user named one.
        margin: The margin with which differences are compared; None takes the workload's.
        arms: The arms that will train the job; an arm that is not Adamas' own may refuse its weights.

    Raises:
        ValueError: a piece of the job is missing or wrong.
    """
    try:
        return _inspect(workload, margin, arms, None)
    except Fault as fault:
        raise ValueError(str(fault.of(workload))) from fault.__cause__


def find_problems(workload: Workload, margin: Margin | None, arms: Mapping[str, Arm]) -> list[Problem]:
    """Inspect a job, and return the reasons why a study cannot use it; the list is empty if there are none."""
    faults: list[Fault] = []
    try:
        _inspect(workload, margin, arms, faults)
    except Fault as fault:
        faults.append(fault)
    return [fault.of(workload) for fault in faults]


def _inspect(
    workload: Workload, margin: Margin | None, arms: Mapping[str, Arm], faults: list[Fault] | None
) -> Workload:
    """Build the job three times, check each of its pieces, and return the completed workload.

    The list `faults` takes the faults of pieces that are checked one by one; if it is None, the first fault is raised.
    """
    margin = margin or Margin.parse(workload.margin)
    # Standard output belongs to the verdict, and relative paths begin at the folder in which the tool was started.
    with contextlib.redirect_stdout(sys.stderr), contextlib.chdir("."), one_thread():
        _check_device(workload.device)
        with randomness(0, workload.device):
            factory = workload.load()
        starts = _check_starts(factory, workload.device)
        job = starts[0].job
        metric = _metric(workload, job)
        first, twin, other = (each._replace(validation=with_negated(each.validation, metric)) for each in starts)
        here = first.validation
        checks = [
            partial(_check_metric, here, metric, margin),
            partial(check_repeated, metric, first, twin, workload.device),
            partial(_check_test, job, metric),
            partial(_check_schedule, job),
            partial(_check_scheduler, job),
            partial(check_split, metric, first, other, workload.device),
            partial(check_moves, metric, first, other, factory, workload.device),
            partial(_check_arms, job, arms),
        ]
        with randomness(0, workload.device):
            for check in checks:
                try:
                    check()
                except Fault as fault:
                    if faults is None:
                        raise
                    faults.append(fault)
                    if metric not in here:
                        break
    found = replace(workload, metric=metric, groups=job.parameter_groups is not None, schedule="own")
    if isinstance(job, OwnLoop):
        return found
    named = {id(cosine): "cosine", id(constant): "constant"}
    schedule = "own" if job.scheduler else named.get(id(job.schedule), "own")
    return replace(found, stackable=job.stackable, schedule=schedule, max_norm=job.max_norm)


def _metric(workload: Workload, job: Job | OwnLoop) -> str:
    """Return the metric that the user named, or the job's; whether higher is better stays as the job says."""
    chosen = workload.metric or primary_metric(job)
    return primary_metric(job) if chosen == job.metric else chosen


def _check_device(device: str) -> None:
    """Refuse a device that this machine does not have."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used ({reason}); it must be cpu, cuda or cuda:N") from None


def _check_starts(factory: JobFactory, device: str) -> tuple[Start, Start, Start]:
    """Check that one seed lets the job start alike and another seed does not, also after another run has trained.

    Returns:
        Two starts of seed 0 and one of seed 1.
    """
    first, twin, other = (start(factory, device, seed) for seed in (0, 0, 1))
    one, again = first.fingerprint[0], twin.fingerprint[0]
    if abs(one - again) > SAME * abs(one):
        raise Fault(f"built twice from seed 0, it started with {one:.6g} and {again:.6g}", _SEED_FIXES)
    same = SAME if device == "cpu" else _ROUNDED
    for step, (here, there) in enumerate(zip(first.gradients, twin.gradients, strict=False), start=1):
        if abs(here - there) > same * abs(here):  # two NaN agree
            raise Fault(
                f"built twice from seed 0, it started alike, but step {step} had gradients of the sizes {here:.6g} and "
                f"{there:.6g}",
                _SEED_FIXES,
            )
    if first.fingerprint == other.fingerprint:
        raise Fault(
            f"built from the seeds 0 and 1, it started alike ({one:.6g})",
            "the seed must choose the initial weights or the order of the data; otherwise all seeds give the same run",
        )
    if not set(map(id, weights(first.job))).isdisjoint(map(id, weights(twin.job))):
        _check_reset(factory, device, first, twin)  # shared weights are allowed if each call resets them
    return first, twin, other


def _check_reset(factory: JobFactory, device: str, first: Start, twin: Start) -> None:
    """Check that a call resets weights that two runs share, after one of them has trained."""
    for optimizer in build_all(twin.job, ARMS["none"], 0.1, 0.0).values():
        optimizer.step()
        optimizer.zero_grad()
    later = start(factory, device, 0).fingerprint
    if any(abs(before - after) > SAME * abs(before) for before, after in zip(first.fingerprint, later, strict=True)):
        raise Fault(
            "two runs were given the same weights, and the second would go on where the first ended",
            "make the model inside the function",
        )


def _check_metric(found: Mapping[str, float], metric: str, margin: Margin) -> None:
    """Check that the primary metric is among the figures, that lower is better, and that the margin suits it."""
    if metric not in found:
        raise Fault(
            f'evaluate("validation") returned {", ".join(found) or "nothing"}, but not {metric.removeprefix("-")!r}',
            "name the figure to judge by in Job(metric=...) or with --metric",
        )
    if wrong := ", ".join(f"{name}={value}" for name, value in found.items() if not math.isfinite(value)):
        raise Fault(
            f'evaluate("validation") returned {wrong} for the untrained weights',
            "every figure must be finite, or the run counts as failed: leave out what cannot be computed",
        )
    if better_when_higher(metric):
        name = metric.removeprefix("-")
        raise (
            Fault(
                f"metric={metric!r} is better when higher, and the comparison looks for the lowest",
                f"add maximize=True to the job or judge by --metric=-{name}, or return an error in place of {name}",
            )
            if name == metric
            else Fault(
                f"metric={metric!r} is the negative of {name}, which is better when lower",
                f"judge by {name}: leave out maximize=True, or the minus",
            )
        )
    # A negated accuracy of untrained weights may be 0, and is negative later. A negated log-likelihood is positive.
    if margin.relative and (found[metric] < 0 or (metric.startswith("-") and found[metric] == 0)):
        unit = "0.005abs" if metric.startswith("-") else "0.002abs"
        raise Fault(
            f"{metric} is {found[metric]:g}, and margin={margin} is a fraction of it, which must be above 0",
            f"give the margin in the metric's own unit, as in --margin {unit}",
        )


def _check_test(job: Job | OwnLoop, metric: str) -> None:
    """Check that the test figures contain the primary metric; the figures are of untrained weights and are not kept."""
    with faults_of('evaluate("test")'):
        primary(figures(job, job.evaluate, "test"), "test", metric)


def _check_schedule(job: Job | OwnLoop) -> None:
    """Check that the multiplier of the learning rate is a number from the first step to the last."""
    if isinstance(job, OwnLoop):
        return
    for fraction in (0.0, 0.5, (job.steps - 1) / job.steps):
        with faults_of(f"schedule({fraction:.3g})"):
            factor: Any = job.schedule(fraction)
        if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
            raise Fault(
                f"schedule({fraction:.3g}) returned {factor!r}",
                "it must return what the learning rate is multiplied by after that fraction of the steps, a number "
                ">= 0",
            )


def _check_scheduler(job: Job | OwnLoop) -> None:
    """Check that a torch scheduler steps without arguments, and follows the learning rate of the optimizer."""
    if isinstance(job, OwnLoop) or job.scheduler is None:
        return
    rates: dict[float, list[float]] = {1e-3: [], 2e-3: []}
    for lr, found in rates.items():
        optimizer = build(ARMS["none"], groups_of(job), lr, 0.0)
        optimizer.zero_grad()
        own_loop = "one that wants a figure, as ReduceLROnPlateau does, needs a loop of your own: an OwnLoop"
        with faults_of("scheduler(optimizer), stepped after every step without arguments,", own_loop):
            scheduler = job.scheduler(optimizer)
            for _ in range(min(job.steps, _PEEKED)):
                found += [group["lr"] for group in optimizer.param_groups]
                optimizer.step()
                scheduler.step()
    one, other = rates.values()
    if one == other and any(one):
        raise Fault(
            f"scheduler(optimizer) sets the same learning rates whatever the optimizer has ({one[0]:g} at first), so "
            "there is nothing to tune",
            'take them from the optimizer, as in max_lr=[group["lr"] for group in optimizer.param_groups]',
        )


def _check_arms(job: Job | OwnLoop, arms: Mapping[str, Arm]) -> None:
    """Let the optimizer of every arm take a step: some take certain weights only, as Muon takes matrices."""
    for arm in {"none": ARMS["none"], **arms}.values():
        with faults_of(f"the first step of {arm.name} on its weights"):
            for optimizer in build_all(job, arm, 1e-3, 1e-3).values():
                optimizer.step()
