"""The pilot: Adam without decay at a few learning rates, which tells every arm where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adamas.compare.budgets import Budget
from adamas.compare.cell import Cell, Outcome

SEED = 0


class UnusableJobError(RuntimeError):
    """The pilot found nothing to build on."""


@dataclass(frozen=True)
class Pilot:
    """What the pilot found.

    Attributes:
        step: its best learning rate on validation, as a step of the ladder.
        steps_per_epoch: M of the job.
        epochs: T of the job.
        gradient_scale: 10th, 50th and 90th percentile of sqrt(v_hat) over the weights and over the run at that rate.
    """

    step: int
    steps_per_epoch: int
    epochs: int
    gradient_scale: tuple[float, float, float]

    @property
    def lr(self) -> float:
        """The best learning rate."""
        return ladder(self.step)


def ladder(step: int) -> float:
    """Learning rates people write: two a decade, 1e-3 at -6.

    Example:
        >>> [ladder(step) for step in (-7, -6, -5)]
        [0.0003, 0.001, 0.003]
    """
    decade, half = divmod(step, 2)
    return float(f"{3 if half else 1}e{decade}")


def cells(budget: Budget) -> list[Cell]:
    """The pilot's runs."""
    return [Cell("pilot", "none", ladder(step), 0.0, SEED) for step in budget.pilot]


def read(budget: Budget, outcomes: Mapping[Cell, Outcome], metric: str) -> Pilot:
    """Choose the best learning rate by validation and keep what was measured there."""
    found = [(step, outcomes[cell]) for step, cell in zip(budget.pilot, cells(budget), strict=True)]
    feasible = [(outcome.validation[metric], step, outcome) for step, outcome in found if outcome.feasible]
    if not feasible:
        tried = ", ".join(f"{cell.lr:g}" for cell in cells(budget))
        raise UnusableJobError(f"the job diverged without weight decay at every learning rate tried ({tried})")
    _, step, best = min(feasible, key=lambda entry: entry[:2])
    if best.gradient_scale is None or not best.gradient_scale[0] > 0:
        raise UnusableJobError("no weight of the job ever received a gradient: there is nothing to compare")
    return Pilot(step, best.steps_per_epoch, best.epochs, best.gradient_scale)
