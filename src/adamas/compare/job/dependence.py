"""Check that the primary figure follows from the weights: from nothing else, and from them at all."""

from __future__ import annotations

import contextlib
import itertools
import math

import torch
from torch import Tensor, nn

from adamas.compare.job.evaluate import build_all, fit, primary, randomness, total
from adamas.compare.job.evaluate import figures as evaluated
from adamas.compare.job.faults import Fault, faults_of
from adamas.compare.job.job import Job, JobFactory, OwnLoop
from adamas.compare.job.start import Enough, Start, before_each_step, weights
from adamas.compare.study.arms import ARMS
from adamas.compare.study.direction import with_negated

SAME = 1e-4  # relative difference of two losses that the order of summation on a GPU may cause
ALIKE = 0.05  # relative difference of two figures on a GPU, where one example more may be classified correctly
_NOTHING = 1e-7  # figures below it are rounding
_STEPS = 5  # of training, after which a figure that did not move is a constant
_LARGE = 0.1  # a learning rate at which these steps change every weight clearly
_ENDS = (0.0, 1.0, 100.0)  # a figure such as an exact-match rate may stay at an end of its range for long


def check_repeated(metric: str, first: Start, twin: Start, device: str) -> None:
    """Check that equal weights give equal figures: a figure must not depend on earlier calls.

    Args:
        metric: The primary metric.
        first: The job of seed 0.
        twin: A second job of seed 0.
        device: The device of the jobs; on a GPU, equal sums may differ a little.
    """
    here, there = first.validation[metric], twin.validation.get(metric, math.nan)
    if not _close(here, there, device):
        raise Fault(
            f'built twice from seed 0, evaluate("validation") gave {metric} {here:.6g} and {there:.6g}',
            "it must follow from the model alone, not from earlier calls or from a random generator that goes on",
        )


def check_split(metric: str, first: Start, other: Start, device: str) -> None:
    """Check that the weights of seed 0 have the same figure in the job of seed 1: both must have the same split.

    The weights of the job of seed 1 are overwritten. Nothing is concluded if its figure does not follow them, as where
    an average of the weights is evaluated.
    """
    if not _carry(first.job.model, other.job.model):
        return
    with randomness(0, device), faults_of('evaluate("validation")'):
        moved = primary(evaluated(other.job, other.job.evaluate, "validation"), "validation", metric)[metric]
    expected, before = first.validation[metric], other.validation.get(metric, math.nan)
    if not _close(moved, expected, device) and not _close(moved, before, device):
        raise Fault(
            f'with the same weights, evaluate("validation") gave {metric} {expected:.6g} in the job of seed 0 and '
            f"{moved:.6g} in the job of seed 1",
            "the seed must choose neither the split nor anything else that evaluate uses: draw these from a generator "
            "of their own, as in torch.randperm(n, generator=torch.Generator().manual_seed(0)) or random_state=0",
        )


def check_moves(metric: str, first: Start, other: Start, factory: JobFactory, device: str) -> None:
    """Refuse a constant metric: it is the same for the weights of two seeds, for random weights and after training.

    A figure that stays at an end of its range, as an exact-match rate does at first, is taken if another figure moves.
    The weights of the job of seed 1 are overwritten.
    """
    value = first.validation[metric]
    seen = [other.validation]
    if not _stuck(metric, value, seen):
        return
    _scramble(weights(other.job))
    seen.append(_attempt(other.job, device))
    if not _stuck(metric, value, seen):
        return
    seen.append(_attempt(_trained(factory, device), device))
    if not _stuck(metric, value, seen):
        return
    others = [name for name in first.validation if name not in (metric, metric.removeprefix("-"))]
    moving = any(figures.get(name) != first.validation[name] for figures in seen for name in others)
    if moving and abs(value) in _ENDS:
        return
    raise Fault(
        f"{metric} is {value:g} for the weights of seeds 0 and 1, for random weights, and after {_STEPS} steps with a "
        "large learning rate",
        "evaluate must use the model that is trained; a figure that moves only late, as an exact-match rate does, "
        "needs another one beside it that moves early, such as the loss",
    )


def _close(one: float, other: float, device: str) -> bool:
    """Return whether two figures are equal, apart from the rounding of their device."""
    return math.isclose(one, other, rel_tol=SAME if device == "cpu" else ALIKE, abs_tol=_NOTHING)


def _stuck(metric: str, value: float, seen: list[dict[str, float]]) -> bool:
    """Return whether the metric has had one value only; an evaluation that failed had another."""
    return all(with_negated(figures, metric).get(metric) == value for figures in seen)


def _carry(source: nn.Module, target: nn.Module) -> bool:
    """Copy all weights and buffers from one model into another; return False if they are not of one shape."""
    given, taken = _tensors(source), _tensors(target)
    if {name: tensor.shape for name, tensor in given.items()} != {name: each.shape for name, each in taken.items()}:
        return False
    with torch.no_grad():
        for name, tensor in given.items():
            taken[name].copy_(tensor)
    return True


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights and the buffers of a model by name, also buffers that a checkpoint leaves out."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _scramble(params: list[Tensor]) -> None:
    """Add noise of about their own size to the weights."""
    for param in params:
        size = param.abs().mean().item() if param.numel() else 0.0
        param.add_(torch.randn_like(param) * max(size, 0.1))


def _attempt(job: Job | OwnLoop, device: str) -> dict[str, float]:
    """Return the validation figures; none if odd weights make the evaluation raise an error."""
    with randomness(0, device), contextlib.suppress(Exception):
        return evaluated(job, job.evaluate, "validation")
    return {}


def _trained(factory: JobFactory, device: str) -> Job | OwnLoop:
    """Return the job of seed 0 after a few steps with a large learning rate."""
    with randomness(0, device), faults_of("training"):
        job = factory(0, device)
        optimizers = build_all(job, ARMS["none"], _LARGE, 0.0)
        if isinstance(job, OwnLoop):
            left = iter(range(_STEPS))

            def ready(optimizer: torch.optim.Optimizer) -> None:
                if next(left, None) is None:
                    raise Enough

            for optimizer in optimizers.values():
                before_each_step(optimizer, ready)
            with contextlib.suppress(Enough):
                fit(job, optimizers)
            return job
        job.model.train()
        batches = itertools.chain.from_iterable(map(job.batches, range(job.epochs)))
        for batch in itertools.islice(batches, _STEPS):
            optimizers[""].zero_grad()
            total(job.loss(batch)).backward()
            optimizers[""].step()
        return job
