"""The pilot: Adam without decay at a few learning rates, which tells every arm where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adamas.compare.arms import Arm
from adamas.compare.budgets import Budget
from adamas.compare.cell import Cell, Outcome

SEED = 0
LEARNED = 0.9  # of the untrained loss: below that a run has learned something


class UnusableJobError(RuntimeError):
    """The pilot found nothing to build on."""


@dataclass(frozen=True)
class Pilot:
    """What the pilot found.

    Attributes:
        step: its best learning rate, as a step of the ladder.
        steps_per_epoch: M of the job.
        epochs: T of the job.
        gradient_scale: 10th, 50th and 90th percentile of sqrt(v_hat) over the weights and over the run at that rate.
        memorises: whether validation was worse than untrained at every rate, so that the training loss chose the rate.
        learns_early: whether the best run had left the untrained weights' loss well behind half-way: only then may a
            run that has not be given up.
    """

    step: int
    steps_per_epoch: float
    epochs: int
    gradient_scale: tuple[float, float, float]
    memorises: bool = False
    learns_early: bool = False

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


def steps(arm: Arm, budget: Budget) -> tuple[int, ...]:
    """The learning rates of an arm's pilot."""
    return budget.pilot if arm.built_in else budget.foreign_pilot


def cells(arm: Arm, budget: Budget) -> list[Cell]:
    """The pilot of an arm: without decay; Adamas' own arms share one, Adam's."""
    name = "none" if arm.built_in else arm.name
    return [Cell("pilot", name, ladder(step), 0.0, SEED) for step in steps(arm, budget)]


def read(arm: Arm, budget: Budget, outcomes: Mapping[Cell, Outcome], metric: str) -> Pilot:
    """Choose the best learning rate and keep what was measured there.

    Validation chooses. Where it only ever gets worse than that of the untrained weights, as in a job that memorises
    unless decay keeps it from that, it would choose the rate that learns least; there the training loss chooses.
    """
    tried = cells(arm, budget)
    found = [(step, outcomes[cell]) for step, cell in zip(steps(arm, budget), tried, strict=True)]
    feasible = [(step, outcome) for step, outcome in found if outcome.feasible]
    if not feasible:
        rates = ", ".join(f"{cell.lr:g}" for cell in tried)
        raise UnusableJobError(f"{arm.title} diverged without weight decay at every learning rate tried ({rates})")
    memorises = all(learned_nothing(outcome, metric) for _, outcome in feasible)
    by = (lambda outcome: outcome.training_loss) if memorises else (lambda outcome: outcome.validation[metric])
    step, best = min(feasible, key=lambda entry: (by(entry[1]), entry[0]))
    scale = best.gradient_scale or (0.0, 0.0, 0.0)
    if arm.built_in and not scale[0] > 0:
        raise UnusableJobError("no weight of the job ever received a gradient: there is nothing to compare")
    early = best.fit is not None and best.fit <= LEARNED
    return Pilot(step, best.steps_per_epoch, best.epochs, scale, memorises, early)


def learned_nothing(outcome: Outcome, metric: str) -> bool:
    """Whether a run that fitted its training data validates worse than the untrained weights."""
    if outcome.untrained is None or outcome.training_loss is None:
        return False
    return outcome.validation[metric] >= outcome.untrained[metric]
