"""The contract between a training job and the comparison: a job is a function that returns a `Job` or an `OwnLoop`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from adamas.compare.job.groups import Groups, plain_groups

Split = Literal["validation", "test"]
Loss = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def cosine(progress: float) -> float:
    """Return the multiplier of the learning rate after the fraction `progress` of the steps, from 1 down to 0.

    Example:
        >>> cosine(0.0), round(cosine(0.5), 12)
        (1.0, 0.5)
    """
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """Return 1, the multiplier of a learning rate that does not change."""
    return 1.0


@dataclass(frozen=True)
class Job:
    """One training run, ready to start; the comparison runs its loop.

    `factory(seed, device)` makes the job and fixes weights, data order and randomness. The comparison makes the
    optimizer, sets its learning rate, calls `model.train()` and `model.eval()`, and switches gradients off for
    evaluation.

    Attributes:
        model: The model that is trained.
        batches: A function of the epoch, counted from 0, that returns its training batches.
        loss: A function of a batch that returns the training loss, a scalar tensor. If it returns several losses, in a
            list or by name, they are added up.
        evaluate: A function of "validation" or "test" that returns figures by name. Lower must be better in the primary
            metric. Only finalists are evaluated on "test".
        epochs: The number of passes over the training data.
        steps_per_epoch: The number of batches in an epoch.
        metric: The primary metric among the figures; a built-in workload and `--metric` overrule it.
        parameter_groups: Parameter groups, as a torch optimizer takes them; None takes all parameters of the model. A
            group with weight_decay=0 does not decay; every other group gets the weight decay of the run, also in place
            of one that it sets. A group with `lr_scale` trains at this multiple of the learning rate.
        schedule: A function of the fraction of the steps done that returns the multiplier of the learning rate.
        scheduler: A function of the optimizer that returns a torch scheduler, to be stepped after every step; it
            replaces `schedule`.
        stackable: Whether several replicas of the weights may train together through `torch.func`. Then `loss` must use
            the model and the batch alone, without `.item()` or branches on tensors.
        max_norm: The largest norm of the gradients of all weights together; before each step, larger gradients are
            scaled down to it, as `torch.nn.utils.clip_grad_norm_` does. None does not clip.
        maximize: Whether a higher figure is better. Then the study minimizes the negative of the figure, under the
            name "-" + metric. `metric="-top1"` means the same as `metric="top1", maximize=True`.
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
    max_norm: float | None = None
    maximize: bool = False

    def __post_init__(self) -> None:
        """Refuse attributes of a wrong kind, while the function that made them is still in the traceback."""
        _check(self)

    @property
    def steps(self) -> int:
        """The number of optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True)
class OwnLoop:
    """One training run with its own loop: a plain script, or the trainer of another library.

    Attributes:
        model: The model that is trained.
        fit: A function of the optimizer that trains the model to the end and sets the learning rates. If
            `parameter_groups` names several optimizers, it is given a dictionary of them.
        evaluate: The figures of a split, as in `Job`; called before `fit` too, for the figures of the untrained model.
        epochs: The number of passes over the training data that `fit` makes.
        metric: The primary metric, as in `Job`.
        parameter_groups: Parameter groups, as in `Job`; or a mapping from names to groups, one entry for each of
            several optimizers, as in {"generator": ..., "discriminator": ...}. All of them are of the same arm, with
            the same learning rate and weight decay. The first one counts the steps of the run.
        maximize: Whether a higher figure is better, as in `Job`.
    """

    model: nn.Module
    fit: Callable[[Any], object]
    evaluate: Callable[[Split], Mapping[str, float]]
    epochs: int
    metric: str = "loss"
    parameter_groups: Groups | None = None
    maximize: bool = False

    def __post_init__(self) -> None:
        """Refuse attributes of a wrong kind, while the function that made them is still in the traceback."""
        _check(self)


def primary_metric(job: Job | OwnLoop) -> str:
    """Return the metric that the study minimizes: the job's own, with a minus in front if higher is better."""
    return f"-{job.metric}" if job.maximize else job.metric


JobFactory = Callable[[int, str], Job | OwnLoop]

_FUNCTIONS = {
    "batches": " of the epoch that returns its batches, as in lambda epoch: loader",
    "loss": " of a batch that returns the training loss",
    "fit": " of the optimizer that trains the model to the end",
    "evaluate": ' of "validation" or "test" that returns figures by name',
    "schedule": " of the fraction of steps done; a torch scheduler is given as scheduler=lambda optimizer: ...",
}


def _check(job: Job | OwnLoop) -> None:
    """Refuse attributes of a wrong kind; make counts plain integers, and parameter groups plain lists."""
    kind, model = type(job).__name__, cast(object, job.model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{kind}.model is a {type(model).__name__}; it must be a torch.nn.Module")
    given = vars(job)
    for name, hint in _FUNCTIONS.items():
        if name in given and not callable(value := given[name]):
            raise TypeError(f"{kind}.{name} is a {type(value).__name__}; it must be a function{hint}")
    for name in ("epochs", "steps_per_epoch"):
        if name not in given:
            continue
        value = given[name]
        if not isinstance(value, Integral):  # NumPy's integers are too
            raise TypeError(f"{kind}.{name}={value!r} must be a whole number, as len(loader) is")
        if value < 1:
            raise ValueError(f"{kind}.{name}={value} must be >= 1")
        object.__setattr__(job, name, int(value))
    if (max_norm := given.get("max_norm")) is not None and not (
        isinstance(max_norm, Real) and 0 < float(max_norm) < math.inf
    ):
        raise ValueError(f"{kind}.max_norm={max_norm!r} must be a finite number above 0; leave it out not to clip")
    if job.maximize and job.metric.startswith("-"):
        raise ValueError(
            f"{kind}.metric={job.metric!r} is negated, and maximize=True negates it again; give one of the two"
        )
    if job.parameter_groups is not None:
        groups = plain_groups(f"{kind}.parameter_groups", job.parameter_groups)
        if isinstance(job, Job) and isinstance(groups, dict):
            raise TypeError(
                "Job.parameter_groups names several optimizers, and a Job trains with one; give a list of groups, or "
                "return an OwnLoop, whose fit gets the optimizers by name"
            )
        object.__setattr__(job, "parameter_groups", groups)
