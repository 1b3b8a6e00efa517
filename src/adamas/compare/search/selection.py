"""Choose each arm's cell on validation, and lay out the finals on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from adamas.compare.study.arms import Arm
from adamas.compare.study.errors import EveryRunDivergedError
from adamas.compare.study.run import Config, Outcome, Run

WEAKEST = "the weakest decay tried"
FIRST_FINAL_SEED = 1000  # no search run uses a seed as high: finalists start afresh


@dataclass(frozen=True)
class Winner:
    """An arm's chosen hyperparameters.

    Attributes:
        arm: its name.
        lr: learning rate.
        weight_decay: torch's.
        at_edge: which limit of the explored region the cell lies on, in words; None inside it.
        confirmed: whether it ran on the seeds it had to; not where every cell that did lost one of them.
    """

    arm: str
    lr: float
    weight_decay: float
    at_edge: str | None = None
    confirmed: bool = True

    def finals(self, seeds: int) -> list[Run]:
        """Its reruns; the i-th of every arm shares the seed, and so weights, data order and randomness."""
        return [Run("final", self.arm, self.lr, self.weight_decay, FIRST_FINAL_SEED + i) for i in range(seeds)]


def scores(runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str, repeats: int = 1) -> dict[Config, float]:
    """Mean validation figure by (lr, weight_decay) where there are `repeats` runs or more; infinite if any diverged."""
    values_at: dict[Config, list[float]] = {}
    for run in runs:
        outcome = outcomes[run]
        value = outcome.validation[metric] if outcome.ok else math.inf
        values_at.setdefault(run.config, []).append(value)
    return {point: math.fsum(values) / len(values) for point, values in values_at.items() if len(values) >= repeats}


def winner(arm: Arm, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str, repeats: int) -> Winner:
    """The lowest mean among the cells with `repeats` runs; of equals the smaller decay, then the smaller rate.

    Where each of these lost a run, the others are left: one run that went well is more than one that did not.
    """
    found = scores(runs, outcomes, metric, repeats)
    confirmed = any(map(math.isfinite, found.values()))
    if not confirmed:
        found = scores(runs, outcomes, metric)
    best = min(found, key=lambda config: (found[config], config.weight_decay, config.lr), default=None)
    if best is None or math.isinf(found[best]):
        rates = sorted({run.lr for run in runs})
        raise EveryRunDivergedError(
            f"no setting of {arm.title}, at learning rates from {rates[0]:g} to {rates[-1]:g}, gave a finite figure on "
            "each of its seeds: their losses diverged, evaluate() returned none, or half-way they had learned nothing. "
            "A longer warm-up, or clipped gradients, may steady the job"
        )
    tried = list(scores(runs, outcomes, metric))
    return Winner(arm.name, *best, edge(*best, tried, rung(runs)), confirmed)


def rung(runs: Sequence[Run]) -> float:
    """The largest ratio of neighbouring learning rates of the grid, and a little more: rates are rounded."""
    rates = sorted({run.lr for run in runs if run.stage == "search"})
    return 1.02 * max((high / low for low, high in pairwise(rates)), default=1.0)


def edge(lr: float, weight_decay: float, points: list[Config], rung: float) -> str | None:
    """The limit of the explored region that a chosen cell lies on.

    A decay is the strongest, or weakest, where no cell within a rung of the learning rate has a stronger, or weaker one
    as the paper counts: a closer look tries few decays at rates between those of the grid, which see all of them.
    """
    lrs = [point[0] for point in points]
    if lr in (min(lrs), max(lrs)):
        return f"the {'lowest' if lr == min(lrs) else 'highest'} learning rate tried"
    near = {rate * decay for rate, decay in points if max(rate, lr) < rung * min(rate, lr)}
    if weight_decay > 0 and len(near) > 1:
        if lr * weight_decay > 0.99 * max(near):  # decays are rounded to 3 digits
            return "the strongest decay tried"
        if lr * weight_decay < 1.01 * min(near):
            return WEAKEST
    return None
