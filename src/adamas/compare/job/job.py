"""The contract between a training job and the comparison: what a job's factory returns."""

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
Groups = Iterable[Any]  # as a torch optimizer takes them; once in a job, a list of dictionaries


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
        parameter_groups: as a torch optimizer takes them; None stands for all parameters of the model. A group may keep
            its weights from decaying with weight_decay=0.
        schedule: multiplier of the learning rate, given the fraction of the steps done.
        scheduler: makes a torch scheduler for the optimizer, stepped after every step, in place of `schedule`.
        stackable: whether several copies of the weights may train together through `torch.func`; for that `loss` must
            use the model and the batch alone, without `.item()` or branches on tensors, and do the same in every step:
            on a CPU what it does is recorded, repeated, and now and then compared (`adamas.compare.runner.repeating`).
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
        object.__setattr__(self, "parameter_groups", listed(self))

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
        evaluate: as a `Job`'s; called before `fit` too, for what the untrained model is worth.
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
        object.__setattr__(self, "parameter_groups", listed(self))


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
        if not isinstance(value, Integral):  # NumPy's too
            raise TypeError(f"{kind}.{name}={value!r} must be a whole number, as len(loader) is")
        if value < 1:
            raise ValueError(f"{kind}.{name}={value} must be >= 1")
        object.__setattr__(job, name, int(value))


def listed(job: Job | OwnLoop) -> list[dict[str, Any]] | None:
    """The parameter groups as lists, which can be read more than once, without the names that weights may have."""
    if job.parameter_groups is None:
        return None
    kind = type(job).__name__
    entries: list[Any] = list(job.parameter_groups)
    if not entries:
        raise ValueError(f"{kind}.parameter_groups is empty; leave it out to train every weight of the model")
    if not isinstance(entries[0], dict):
        entries = [{"params": entries}]
    groups: list[dict[str, Any]] = []
    for number, group in enumerate(entries):
        where = f"{kind}.parameter_groups[{number}]"
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f"{where} is {group!r:.60}; it must be a dictionary with 'params', as torch's are")
        params = weights_of(group["params"])
        if strange := [param for param in params if not isinstance(param, Tensor)]:
            raise TypeError(f"{where} holds a {type(strange[0]).__name__}; it must hold parameters of the model")
        if group.get("weight_decay"):
            raise ValueError(
                f"{where} sets weight_decay={group['weight_decay']}, which the comparison is to choose; leave it "
                "out, or give 0 where weights must not decay"
            )
        groups.append({**group, "params": params})
    for key, chosen in (("weight_decay", "nothing would decay"), ("lr", "no learning rate would be left to tune")):
        if all(key in group for group in groups):
            raise ValueError(
                f"{kind}.parameter_groups: every group sets its {key}, so {chosen}; leave it out of one at least"
            )
    return groups


def weights_of(params: Any) -> list[Any]:
    """The weights of a group: there may be one, or pairs of name and weight."""
    if isinstance(params, Tensor):
        return [params]
    return [cast(Any, param)[1] if isinstance(param, tuple) else param for param in params]


HINTS = {
    "batches": " of the epoch that returns its batches, as in lambda epoch: loader",
    "loss": " of a batch that returns the training loss",
    "evaluate": ' of "validation" or "test" that returns figures by name',
    "schedule": " of the fraction of steps done; a torch scheduler is given as scheduler=lambda optimizer: ...",
    "fit": " of the optimizer that trains the model to the end",
}
