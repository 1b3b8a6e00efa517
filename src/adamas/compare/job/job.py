"""The contract between a training job and the comparison: a job is a function that returns a `Job` or an `OwnLoop`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Split = Literal["validation", "test"]
Loss = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Groups = Iterable[Any]  # parameter groups as a torch optimizer takes them; a job turns them into a list


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
            group with weight_decay=0 does not decay.
        schedule: A function of the fraction of the steps done that returns the multiplier of the learning rate.
        scheduler: A function of the optimizer that returns a torch scheduler, to be stepped after every step; it
            replaces `schedule`.
        stackable: Whether several replicas of the weights may train together through `torch.func`. Then `loss` must use
            the model and the batch alone, without `.item()` or branches on tensors.
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
        fit: A function of the optimizer that trains the model to the end and sets the learning rates.
        evaluate: The figures of a split, as in `Job`; called before `fit` too, for the figures of the untrained model.
        epochs: The number of passes over the training data that `fit` makes.
        metric: The primary metric, as in `Job`.
        parameter_groups: Parameter groups, as in `Job`.
    """

    model: nn.Module
    fit: Callable[[Optimizer], object]
    evaluate: Callable[[Split], Mapping[str, float]]
    epochs: int
    metric: str = "loss"
    parameter_groups: Groups | None = None

    def __post_init__(self) -> None:
        """Refuse attributes of a wrong kind, while the function that made them is still in the traceback."""
        _check(self)


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
    if job.parameter_groups is not None:
        groups = _plain_groups(f"{kind}.parameter_groups", list(job.parameter_groups))
        object.__setattr__(job, "parameter_groups", groups)


def _plain_groups(where: str, entries: list[Any]) -> list[dict[str, Any]]:
    """Return parameter groups with their weights in lists, which can be read more than once, without names."""
    if not entries:
        raise ValueError(f"{where} is empty; leave it out to train every weight of the model")
    if not isinstance(entries[0], dict):
        entries = [{"params": entries}]
    groups: list[dict[str, Any]] = []
    for number, group in enumerate(entries):
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(
                f"{where}[{number}] is {group!r:.60}; it must be a dictionary with 'params', as torch's are"
            )
        params = _weights_of(group["params"])
        if strange := [param for param in params if not isinstance(param, Tensor)]:
            kind = type(strange[0]).__name__
            raise TypeError(f"{where}[{number}] holds a {kind}; it must hold parameters of the model")
        if group.get("weight_decay"):
            raise ValueError(
                f"{where}[{number}] sets weight_decay={group['weight_decay']}, which the comparison is to choose; "
                "leave it out, or give 0 where weights must not decay"
            )
        groups.append({**group, "params": params})
    for key, effect in (("weight_decay", "nothing would decay"), ("lr", "no learning rate would be left to tune")):
        if all(key in group for group in groups):
            raise ValueError(f"{where}: every group sets its {key}, so {effect}; leave it out of one at least")
    return groups


def _weights_of(params: Any) -> list[Any]:
    """Return the weights of a group, which may hold one weight, several, or pairs of name and weight."""
    if isinstance(params, Tensor):
        return [params]
    return [cast(Any, param)[1] if isinstance(param, tuple) else param for param in params]
