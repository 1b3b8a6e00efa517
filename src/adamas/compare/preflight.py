"""Look a job over before anything is trained: is every piece there, and does the seed fix what it must?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adamas.compare import workloads
from adamas.compare.copies import groups_of, total
from adamas.compare.job import Job, OwnLoop
from adamas.compare.training import figures, randomness
from adamas.compare.workload import Workload
from adamas.user_code import told

SAME = 1e-4  # relative difference of losses that a GPU's order of summation may make
HIGHER_IS_BETTER = ("accuracy", "acc", "auc", "auroc", "f1", "precision", "recall", "r2", "bleu")


def find(name: str, device: str, metric: str | None) -> Workload:
    """The built-in workload called `name`, or the user's own job, looked over.

    Args:
        name: of a built-in workload; or "my_job.py:job", "package.module:job"; without a function, "job" is meant.
        device: where it trains.
        metric: the primary one; None leaves it to the workload or the job.

    Raises:
        ValueError: there is no such workload, or a piece of the job is missing or wrong.
    """
    workload = of_user(name) if ":" in name or name.endswith(".py") else workloads.find(name)
    workload = replace(workload, device=device, metric=metric or workload.metric)
    return inspected(workload)


def of_user(name: str) -> Workload:
    """A job of the user's own; its file's contents are part of what the study is."""
    source, _, function = name.rpartition(":") if ":" in name else (name, ":", "job")
    path = Path(source)
    is_file = path.suffix == ".py" and path.is_file()
    called = path.stem if path.suffix == ".py" else source
    return Workload(
        name=called if function == "job" else f"{called}:{function}",
        factory=f"{path.resolve() if is_file else source}:{function}",
        metric="",
        summary=f"The job {function} of {source}.",
        revision=hashlib.sha256(path.read_bytes()).hexdigest()[:12] if is_file else 1,
        typed=name,
    )


def inspected(workload: Workload) -> Workload:
    """Build the job, take the gradient of a batch, validate; fill in what only the job knows.

    The job is built three times, so that what a seed fixes can be seen: twice from one seed it must start alike, and
    from another it must not.
    """
    where = workload.typed or workload.name
    check_device(workload.device)
    factory = workload.load()

    def start(seed: int) -> tuple[Job | OwnLoop, float]:
        with randomness(seed, workload.device):
            with blamed(where, f"the call with (seed={seed}, device={workload.device!r})"):
                job: Any = factory(seed, workload.device)
            if not isinstance(job, (Job, OwnLoop)):
                raise ValueError(
                    f"job={where!r} returned a {type(job).__name__}; it must return an adamas.compare.Job or OwnLoop"
                )
            return job, fingerprint(where, job)

    (job, first), (_, again), (_, other) = start(0), start(0), start(1)
    if abs(first - again) > SAME * abs(first):
        raise ValueError(
            f"job={where!r}: built twice from seed 0, it started with {first:.6g} and {again:.6g}; the seed must fix "
            "weights, data order and augmentation (torch, NumPy and random are seeded before the call; generators of "
            "your own are yours to seed)"
        )
    if first == other:
        raise ValueError(
            f"job={where!r}: built from the seeds 0 and 1, it started alike ({first:.6g}); the seed must choose the "
            "initial weights or the order of the data, or every pair of runs would be the same pair"
        )
    metric = workload.metric or job.metric
    check_metric(where, job, metric)
    return replace(workload, metric=metric, stackable=isinstance(job, Job) and job.stackable)


def check_device(device: str) -> None:
    """Refuse a device that is not there."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used ({reason}); it must be cpu, cuda or cuda:N") from None


def fingerprint(where: str, job: Job | OwnLoop) -> float:
    """A number that follows from initial weights and first batch: the first loss, or the sum of all weights."""
    if isinstance(job, OwnLoop):
        return math.fsum(param.detach().double().sum().item() for param in job.model.parameters())
    with blamed(where, "batches(0)"):
        batch = next(iter(job.batches(0)), None)
    if batch is None:
        raise ValueError(f"job={where!r}: batches(0) has no batch")
    job.model.train()
    with blamed(where, "loss(batch)"):
        loss = total(job.loss(batch))
    if loss.numel() != 1:
        raise ValueError(f"job={where!r}: loss(batch) has shape {tuple(loss.shape)}; it must be one number: .mean() it")
    if not loss.requires_grad:
        raise ValueError(
            f"job={where!r}: loss(batch) does not depend on any weight that trains; no .item(), .detach() or no_grad "
            "may stand between the model and the loss"
        )
    if not math.isfinite(loss.item()):
        raise ValueError(f"job={where!r}: the first loss is {loss.item()}; it must be finite at the initial weights")
    with blamed(where, "the backward pass"):
        loss.backward()
    trained = [param for group in groups_of(job) for param in group["params"]]
    if all(param.grad is None for param in trained):
        raise ValueError(
            f"job={where!r}: the loss gives none of the optimizer's weights a gradient; "
            "Job.model and Job.parameter_groups must be what loss(batch) uses"
        )
    return loss.item()


def check_metric(where: str, job: Job | OwnLoop, metric: str) -> None:
    """Validate once, and see that the primary metric is there and lower is better."""
    with blamed(where, 'evaluate("validation")'):
        found = figures(job, job.evaluate, "validation")
    if metric not in found:
        raise ValueError(
            f'job={where!r}: evaluate("validation") returned {", ".join(found) or "nothing"}, but not {metric!r}; '
            "name the figure to judge by in Job(metric=...) or with --metric"
        )
    if metric.lower() in HIGHER_IS_BETTER:
        raise ValueError(
            f"metric={metric!r} is better when higher, and the comparison looks for the lowest; return the error "
            f"instead, as in {{'error': 1 - {metric}}}"
        )


@contextmanager
def blamed(where: str, what: str) -> Generator[None]:
    """Turn what the user's code raises into an error that says where."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"job={where!r}: {what} raised {told(error)}") from error
