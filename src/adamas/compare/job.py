"""The contract between a training job and the comparison: what a job's factory returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Split = Literal["validation", "test"]


def cosine(progress: float) -> float:
    """Multiplier of the learning rate after the fraction `progress` of the steps: 1 at the start, 0 at the end.

    Example:
        >>> cosine(0.0), round(cosine(0.5), 12)
        (1.0, 0.5)
    """
    return 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Job:
    """One training run, ready to start.

    `factory(seed, device)` makes it, and fixes weights, data order and randomness. The comparison brings the optimizer
    and its learning rate, calls `model.train()` and `model.eval()`, and switches gradients off for evaluation.

    Attributes:
        model: what is trained.
        batches: the training batches of an epoch (counted from 0); batches are passed to `loss` as they come.
        loss: the training loss of a batch, a scalar tensor to call `backward()` on.
        evaluate: figures of a split by name, the primary metric among them; "test" is asked for in finalists only.
        epochs: passes over the training data.
        steps_per_epoch: batches in each of them.
        parameter_groups: as a torch optimizer takes them; None stands for all parameters of the model.
        schedule: multiplier of the learning rate, given the fraction of the steps done.
    """

    model: nn.Module
    batches: Callable[[int], Iterable[Any]]
    loss: Callable[[Any], Tensor]
    evaluate: Callable[[Split], Mapping[str, float]]
    epochs: int
    steps_per_epoch: int
    parameter_groups: Sequence[dict[str, Any]] | None = None
    schedule: Callable[[float], float] = cosine

    def __post_init__(self) -> None:
        """Refuse lengths that leave nothing to train."""
        for name in ("epochs", "steps_per_epoch"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be >= 1")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.epochs * self.steps_per_epoch


JobFactory = Callable[[int, str], Job]
