"""The contract between a training job and the comparison: what a job's factory returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Split = Literal["validation", "test"]
Loss = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Groups = Sequence[dict[str, Any]]


def cosine(progress: float) -> float:
    """Multiplier of the learning rate after the fraction `progress` of the steps: 1 at the start, 0 at the end.

    Example:
        >>> cosine(0.0), round(cosine(0.5), 12)
        (1.0, 0.5)
    """
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """Multiplier of a learning rate that stays."""
    return 1.0


@dataclass(frozen=True)
class Job:
    """One training run, ready to start, of which the comparison drives the loop.

    `factory(seed, device)` makes it, and fixes weights, data order and randomness. The comparison brings the optimizer
    and its learning rate, calls `model.train()` and `model.eval()`, and switches gradients off for evaluation.

    Attributes:
        model: what is trained.
        batches: the training batches of an epoch (counted from 0); batches are passed to `loss` as they come.
        loss: the training loss of a batch, a scalar tensor; several losses, in a list or by name, are added up.
        evaluate: figures of a split by name, lower being better in the one it is judged by; "test" is asked for in
            finalists only.
        epochs: passes over the training data.
        steps_per_epoch: batches in each of them.
        metric: the figure it is judged by; a built-in workload's record and `--metric` come first.
        parameter_groups: as a torch optimizer takes them; None stands for all parameters of the model.
        schedule: multiplier of the learning rate, given the fraction of the steps done.
        scheduler: makes a torch scheduler for the optimizer, stepped after every step, in place of `schedule`.
        stackable: whether several copies of the weights may train together through `torch.func`; for that `loss` must
            use the model alone, without `.item()` or branches on tensors.
    """

    model: nn.Module
    batches: Callable[[int], Iterable[Any]]
    loss: Callable[[Any], Loss]
    evaluate: Callable[[Split], Mapping[str, float]]
    epochs: int
    steps_per_epoch: int
    metric: str = "loss"
    parameter_groups: Groups | None = None
    schedule: Callable[[float], float] = cosine
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    stackable: bool = False

    def __post_init__(self) -> None:
        """Refuse pieces that cannot be what they should be, while the factory that made them is still in sight."""
        check(self, ("batches", "loss", "evaluate", "schedule"), ("epochs", "steps_per_epoch"))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class OwnLoop:
    """One training run that brings its loop: a plain script, or another library's trainer.

    Attributes:
        model: what is trained.
        fit: trains to the end with the optimizer it is given; it sets the learning rate's course itself.
        evaluate: as a `Job`'s; called after `fit` only.
        epochs: passes over the training data that `fit` makes.
        metric: as a `Job`'s.
        parameter_groups: as a `Job`'s.
    """

    model: nn.Module
    fit: Callable[[Optimizer], object]
    evaluate: Callable[[Split], Mapping[str, float]]
    epochs: int
    metric: str = "loss"
    parameter_groups: Groups | None = None

    def __post_init__(self) -> None:
        """Refuse pieces that cannot be what they should be."""
        check(self, ("fit", "evaluate"), ("epochs",))


JobFactory = Callable[[int, str], Job | OwnLoop]


def check(job: Job | OwnLoop, functions: Sequence[str], counts: Sequence[str]) -> None:
    """Say which piece of a job is wrong, and what it should be."""
    kind, model = type(job).__name__, cast(object, job.model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{kind}.model is a {type(model).__name__}; it must be a torch.nn.Module")
    for name in functions:
        value = getattr(job, name)
        if not callable(value):
            raise TypeError(f"{kind}.{name} is a {type(value).__name__}; it must be a function{HINTS.get(name, '')}")
    for name in counts:
        value = getattr(job, name)
        if not isinstance(value, int):
            raise TypeError(f"{kind}.{name}={value!r} must be a whole number, as len(loader) is")
        if value < 1:
            raise ValueError(f"{kind}.{name}={value} must be >= 1")
    for number, group in enumerate(job.parameter_groups or ()):
        if group.get("weight_decay"):
            raise ValueError(
                f"{kind}.parameter_groups[{number}] sets weight_decay={group['weight_decay']}, which the comparison is "
                "to choose; leave it out, or give 0 where weights must not decay"
            )


HINTS = {
    "batches": " of the epoch that returns its batches, as in lambda epoch: loader",
    "loss": " of a batch that returns the training loss",
    "evaluate": ' of "validation" or "test" that returns figures by name',
    "schedule": " of the fraction of steps done; a torch scheduler is given as scheduler=lambda optimizer: ...",
    "fit": " of the optimizer that trains the model to the end",
}
