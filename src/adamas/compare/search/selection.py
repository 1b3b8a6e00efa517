"""Choose each arm's config on validation, and lay out its final runs on fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from adamas.compare.search.candidates import Candidates, Regret
from adamas.compare.study.arms import Arm
from adamas.compare.study.errors import EveryRunDivergedError
from adamas.compare.study.run import Config, Outcome, Run

STRONGEST, WEAKEST = "strongest decay", "weakest decay"
FIRST_FINAL_SEED = 1000  # above every seed of the search: finalists have fresh seeds


@dataclass(frozen=True)
class Winner:
    """The config that was chosen for an arm.

    Attributes:
        arm: The name of the arm.
        lr: The learning rate.
        weight_decay: The weight decay in torch's convention.
        at_edge: The limit of the explored region that the config lies on, as "weakest decay"; None inside the region.
        confirmed: Whether the config ran on as many seeds as planned; False where each of those has a diverged run.
        regret: How much worse the config may be than the arm's best.
    """

    arm: str
    lr: float
    weight_decay: float
    at_edge: str | None = None
    confirmed: bool = True
    regret: Regret = field(default_factory=Regret)

    def finals(self, seeds: int) -> list[Run]:
        """Return the final runs; the i-th of every arm has the same seed, and so the same weights, data and noise."""
        return [Run("final", self.arm, self.lr, self.weight_decay, FIRST_FINAL_SEED + i) for i in range(seeds)]


def scores(runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> dict[Config, float]:
    """Return the mean validation figure of each config; inf if a run has no figure."""
    values_of: dict[Config, list[float]] = {}
    for run in runs:
        outcome = outcomes[run]
        values_of.setdefault(run.config, []).append(outcome.validation[metric] if outcome.ok else math.inf)
    return {config: math.fsum(values) / len(values) for config, values in values_of.items()}


def winner(arm: Arm, candidates: Candidates, confirmed: Sequence[Config], runs: Sequence[Run]) -> Winner:
    """Choose the config that is lowest on the arm's surface, of those that ran on more seeds.

    If each of these has a run without a figure, choose among all configs that have none.

    Args:
        arm: The arm.
        candidates: The configs of the arm, with the surface through all runs.
        confirmed: The configs that ran on more seeds; if empty, all configs may be chosen.
        runs: The runs of the search.

    Raises:
        EveryRunDivergedError: every config has a run without a figure.
    """
    sound = [config for config in confirmed or candidates.tried if config not in candidates.without_figures]
    chosen = candidates.best(sound)[0] if candidates.own else None
    if chosen is None or chosen in candidates.without_figures:
        rates = sorted({run.lr for run in runs})
        raise EveryRunDivergedError(
            f"no setting of {arm.title}, at learning rates from {rates[0]:g} to {rates[-1]:g}, gave a finite figure on "
            "each of its seeds: the loss or a figure of evaluate() was inf or NaN, or a run had learned nothing "
            "half-way. A longer warm-up, or clipped gradients, may make the job stable"
        )
    regret = candidates.regret(chosen)
    return Winner(arm.name, *chosen, _edge(chosen, runs), bool(sound) or not confirmed, regret)


def _edge(best: Config, runs: Sequence[Run]) -> str | None:
    """Return the limit of the explored region that a config lies on, in words; None inside the region.

    A decay is the strongest, or weakest, if no run within a step of the grid's learning rates has a stronger, or
    weaker, decay in the paper's convention; on a grid of one rate, if no run at all has. A closer look tries only few
    decays at a rate between two of the grid's.
    """
    lr, decay = best.lr, best.lr * best.weight_decay
    rates = sorted({run.lr for run in runs})
    if lr in (rates[0], rates[-1]):
        return "lowest learning rate" if lr == rates[0] else "highest learning rate"
    of_grid = sorted({run.lr for run in runs if run.stage == "search"})
    step = 1.02 * max((high / low for low, high in pairwise(of_grid)), default=math.inf)  # 2 % more: rates are rounded
    near = {run.weight_decay_paper for run in runs if max(run.lr, lr) < step * min(run.lr, lr)}
    if decay > 0 and len(near) > 1:
        if decay > 0.99 * max(near):  # decays are rounded to 3 digits
            return STRONGEST
        if decay < 1.01 * min(near):
            return WEAKEST
    return None
