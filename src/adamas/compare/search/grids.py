"""What each arm tries first: the same learning rates, its own range of weight decay, at equal cost.

Both arms with decay lay out their columns in lr * weight_decay, the paper's convention, so that a column is one
timescale at every learning rate. The same number means a far larger pull under Adam with L2, which divides it by
sqrt(v_hat): that arm's columns are AdamW's, times the sqrt(v_hat) that the pilot measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adamas.compare.search.pilot import Pilot, ladder
from adamas.compare.study.arms import Arm
from adamas.compare.study.budgets import Budget
from adamas.compare.study.run import Run, Stage
from adamas.decay import from_independent, to_independent, weight_decay_from_timescale

SEED = 0


@dataclass(frozen=True)
class Grid:
    """An arm's first runs: every learning rate with every column of decay.

    Attributes:
        arm: its name.
        lrs: ascending.
        decays: lr * weight_decay of the columns, ascending; one 0 for the arm without decay.
        seeds: each cell's repetitions.
    """

    arm: str
    lrs: tuple[float, ...]
    decays: tuple[float, ...]
    seeds: tuple[int, ...] = (SEED,)

    def run(self, lr: float, decay: float, seed: int = SEED, stage: Stage = "search") -> Run:
        """The run at a learning rate and a decay in the paper's convention."""
        return Run(stage, self.arm, lr, torch_decay(decay, lr), seed)

    def runs(self) -> list[Run]:
        """Every run of the grid."""
        return [self.run(lr, decay, seed) for lr in self.lrs for decay in self.decays for seed in self.seeds]

    @property
    def lr_step(self) -> float:
        """Ratio of neighbouring learning rates."""
        return (self.lrs[-1] / self.lrs[0]) ** (1 / (len(self.lrs) - 1))

    @property
    def decay_step(self) -> float:
        """Ratio of neighbouring columns."""
        return (self.decays[-1] / self.decays[0]) ** (1 / (len(self.decays) - 1))


def grid(arm: Arm, pilot: Pilot, scale: tuple[float, float, float], budget: Budget) -> Grid:
    """Lay out the grid of an arm.

    Args:
        arm: whose.
        pilot: the arm's, for its learning rate.
        scale: 10th, 50th and 90th percentile of sqrt(v_hat) in Adam's pilot.
        budget: how many rows and columns.
    """
    lrs = rows(pilot, budget)
    if arm.decay == "none":
        return Grid(arm.name, lrs, (0.0,), tuple(range(budget.repeats)))
    decays = sorted(
        to_independent(weight_decay_from_timescale(factor * pilot.epochs, pilot.lr, pilot.steps_per_epoch), pilot.lr)
        for factor in budget.timescales
    )
    if arm.decay == "l2":
        low, _, high = scale
        decays = np.geomspace(decays[0] * low, decays[-1] * high, len(decays)).tolist()
    return Grid(arm.name, lrs, tuple(decays))


def rows(pilot: Pilot, budget: Budget) -> tuple[float, ...]:
    """The learning rates of an arm: around the pilot's best, or from one range of good rates to the next.

    Which range suits an arm is not known from the pilot, which has no decay. Rows are as many as ever, and the closer
    looks make up for those that are further apart.
    """
    if not pilot.basins:
        return tuple(ladder(pilot.step + offset) for offset in budget.lrs)
    low, high = pilot.basins
    return tuple(round_to(float(rate), 2) for rate in np.geomspace(ladder(low), ladder(high + 1), len(budget.lrs)))


def grids(arms: Mapping[str, Arm], pilots: Mapping[str, Pilot], adam: Pilot, budget: Budget) -> dict[str, Grid]:
    """The grid of every arm."""
    return {name: grid(arm, pilots[name], adam.gradient_scale, budget) for name, arm in arms.items()}


def torch_decay(decay: float, lr: float) -> float:
    """Turn a column into torch's weight_decay, with the three digits that anybody would paste."""
    return round_to(from_independent(decay, lr), 3)


def round_to(value: float, digits: int) -> float:
    """Round to significant digits.

    Example:
        >>> round_to(0.0012345, 3)
        0.00123
    """
    return float(f"{value:.{digits - 1}e}")
