"""The first runs of each arm: the same learning rates, its own range of weight decay, at equal cost.

The columns of a grid are values of lr * weight_decay, the paper's convention, so that a column is one timescale at
every learning rate. Adam with L2 divides its decay by sqrt(v_hat): its columns are those of AdamW times the sqrt(v_hat)
that the pilot measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adamas.compare.search.pilot import SEED, Pilot, ladder
from adamas.compare.study.arms import Arm
from adamas.compare.study.budgets import Budget
from adamas.compare.study.run import Config, Run, Stage
from adamas.decay import from_independent, l2_window, timescale_window


@dataclass(frozen=True)
class Grid:
    """The first runs of an arm: every learning rate with every weight decay.

    Attributes:
        arm: The name of the arm.
        lrs: The learning rates, ascending.
        decays: The weight decays in the paper's convention, ascending; one 0 for the arm without decay.
    """

    arm: str
    lrs: tuple[float, ...]
    decays: tuple[float, ...]

    def run(self, lr: float, weight_decay_paper: float, seed: int = SEED, stage: Stage = "search") -> Run:
        """Return the run with torch's weight decay for the paper's, rounded to three digits for the user to paste."""
        return Run(stage, self.arm, lr, round_to(from_independent(weight_decay_paper, lr), 3), seed)

    def of(self, config: Config, seed: int, stage: Stage) -> Run:
        """Return the run of a config."""
        return Run(stage, self.arm, config.lr, config.weight_decay, seed)

    def runs(self) -> list[Run]:
        """Return every run of the grid."""
        return [self.run(lr, decay) for lr in self.lrs for decay in self.decays]

    @property
    def bare(self) -> bool:
        """Whether the arm has no decay."""
        return self.decays == (0.0,)

    @property
    def lr_step(self) -> float:
        """The mean ratio of neighbouring learning rates; that of the ladder if there is one rate."""
        return (self.lrs[-1] / self.lrs[0]) ** (1 / (len(self.lrs) - 1)) if len(self.lrs) > 1 else 10**0.5

    @property
    def inert(self) -> float:
        """A weight decay a tenth of the weakest: it hardly acts, and stands for training without decay."""
        return self.decays[0] / 10

    @property
    def decay_step(self) -> float:
        """The ratio of neighbouring weight decays."""
        return (self.decays[-1] / self.decays[0]) ** (1 / (len(self.decays) - 1))


def grids(arms: Mapping[str, Arm], pilots: Mapping[str, Pilot], adam: Pilot, budget: Budget) -> dict[str, Grid]:
    """Return the grid of every arm.

    Args:
        arms: The arms by name.
        pilots: The pilot of each arm, which gives its learning rates.
        adam: The pilot of Adam, which measured sqrt(v_hat).
        budget: The number of learning rates and of weight decays.
    """
    return {name: _grid(arm, pilots[name], adam.gradient_scale, budget) for name, arm in arms.items()}


def _grid(arm: Arm, pilot: Pilot, scale: tuple[float, float, float], budget: Budget) -> Grid:
    """Return the grid of an arm; `scale` holds the 10th, 50th and 90th percentile of sqrt(v_hat)."""
    lrs = _learning_rates(pilot, budget)
    if arm.decay == "none":
        return Grid(arm.name, pilot.rates, (0.0,))
    decays = timescale_window(pilot.epochs, pilot.steps_per_epoch, pilot.lr, budget.timescales)
    if arm.decay == "l2":
        decays = np.geomspace(*l2_window((decays[0], decays[-1]), scale[0], scale[2]), len(decays)).tolist()
    return Grid(arm.name, lrs, tuple(decays))


def _learning_rates(pilot: Pilot, budget: Budget) -> tuple[float, ...]:
    """Return the learning rates of an arm: around the pilot's best, or from one range of good rates to the other.

    The pilot, which has no decay, cannot show which of the two ranges suits an arm. The number of rates is the same in
    both cases; where they lie further apart, the closer looks make up for it.
    """
    if not pilot.basins:
        return tuple(ladder(pilot.step + offset) for offset in budget.lrs)
    low, high = pilot.basins
    return tuple(round_to(float(rate), 2) for rate in np.geomspace(ladder(low), ladder(high + 1), len(budget.lrs)))


def round_to(value: float, digits: int) -> float:
    """Return a number rounded to that many significant digits.

    Example:
        >>> round_to(0.0012345, 3)
        0.00123
    """
    return float(f"{value:.{digits - 1}e}")
