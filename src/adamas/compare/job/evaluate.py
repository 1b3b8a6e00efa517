"""Evaluate a job, seed it, and add up its losses: what checking a job and training it have in common."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamas.compare.job.job import Job, OwnLoop, Split

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
    groups = [{"params": list(job.model.parameters())}] if job.parameter_groups is None else job.parameter_groups
    return [{**group, "params": list(group["params"])} for group in groups]


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
    """Return the figures of a split after a check that the primary metric is among them."""
    if metric not in found:
        raise ValueError(
            f"evaluate({split!r}) returned {', '.join(found) or 'nothing'}, but not {metric!r}, which the comparison "
            "judges by; every split must be given the same names"
        )
    return found
