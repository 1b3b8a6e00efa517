"""Seed a job, build its optimizers, add up its losses, evaluate it: what checking and training have in common."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from adamas.compare.job.groups import PlainGroups
from adamas.compare.job.job import Job, OwnLoop, Split
from adamas.compare.study.arms import Arm
from adamas.compare.study.direction import with_negated

Evaluate = Callable[[Split], Mapping[str, float]]


@contextlib.contextmanager
def randomness(seed: int, device: str) -> Generator[None]:
    """Seed Python, NumPy and torch while the block runs, and restore their states afterwards."""
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def one_thread() -> Generator[None]:
    """Let torch compute with one thread while the block runs, as every worker process does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def groups_of(job: Job | OwnLoop) -> list[dict[str, Any]]:
    """Return copies of the job's parameter groups, or one group of all parameters where the job has no groups."""
    return [group for groups in named_groups(job).values() for group in groups]


def named_groups(job: Job | OwnLoop) -> dict[str, list[dict[str, Any]]]:
    """Return copies of the parameter groups of each optimizer by its name; a single optimizer has the name ""."""
    given = cast("PlainGroups | None", job.parameter_groups)
    if given is None:
        given = [{"params": list(job.model.parameters())}]
    named = given if isinstance(given, dict) else {"": given}
    return {name: [{**group, "params": list(group["params"])} for group in groups] for name, groups in named.items()}


def build(arm: Arm, groups: Iterable[Mapping[str, Any]], lr: float, weight_decay: float) -> Optimizer:
    """Return an arm's optimizer; a group with `lr_scale` trains at this multiple of the learning rate."""
    scaled: list[dict[str, Any]] = []
    for group in groups:
        own = dict(group)
        if (scale := own.pop("lr_scale", None)) is not None:
            own["lr"] = lr * float(scale)
        scaled.append(own)
    return arm.build(scaled, lr, weight_decay)


def build_all(job: Job | OwnLoop, arm: Arm, lr: float, weight_decay: float) -> dict[str, Optimizer]:
    """Return an arm's optimizers on the weights of a job by name; a single optimizer has the name ""."""
    return {name: build(arm, groups, lr, weight_decay) for name, groups in named_groups(job).items()}


def fit(job: OwnLoop, optimizers: Mapping[str, Optimizer]) -> None:
    """Let a job train itself, with its only optimizer or with a dictionary of its optimizers."""
    job.model.train()
    job.fit(dict(optimizers) if isinstance(job.parameter_groups, dict) else optimizers[""])


def total(loss: Any) -> Tensor:
    """Return the loss as one tensor; several losses, in a list or by name, are added up."""
    if isinstance(loss, Tensor):
        return loss.reshape(()) if loss.numel() == 1 else loss
    given: object = loss.values() if isinstance(loss, Mapping) else loss
    parts: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise TypeError(f"loss(batch) returned {kinds}; it must return a tensor, or tensors to be added up")
    return torch.stack(parts).sum()


def figures(job: Job | OwnLoop, evaluate: Evaluate, split: Split) -> dict[str, float]:
    """Evaluate a split in evaluation mode, without gradients and without a trace in torch's random state."""
    job.model.eval()
    devices = [param.device for param in job.model.parameters() if param.is_cuda][:1]
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        found: Any = evaluate(split)
    job.model.train()
    if not isinstance(found, Mapping):
        raise TypeError(f"evaluate({split!r}) returned a {type(found).__name__}; it must return figures by name")
    try:
        return {name: float(value) for name, value in found.items()}
    except (TypeError, ValueError, RuntimeError):
        kinds = ", ".join(f"{name}: {type(value).__name__}" for name, value in found.items())
        raise TypeError(f"evaluate({split!r}) returned {kinds}; every figure must be one number") from None


def primary(found: dict[str, float], split: Split, metric: str) -> dict[str, float]:
    """Return the figures of a split, the primary metric among them; "-top1" is the negative of the figure "top1"."""
    found = with_negated(found, metric)
    if metric not in found:
        raise ValueError(
            f"evaluate({split!r}) returned {', '.join(found) or 'nothing'}, but not {metric.removeprefix('-')!r}, "
            "which the comparison judges by; every split must be given the same names"
        )
    return found
