"""Named budgets: the number of runs that each arm may spend, fixed before anything is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SEARCH_SEEDS = 3  # the seeds that a confirmed config ran on
_LEAST_COLUMNS, _MOST_COLUMNS = 3, 500  # of a grid; with two, every best config would lie on an edge
_MOST_RATES = 60  # learning rates of the arm without decay
_MOST_REPEATS = 6  # seeds of each learning rate of that arm, unless it would then have more than 60 rates
_SPAN = (10.0, 1 / 100)  # of the decay timescales, as multiples of the length of a run


@dataclass(frozen=True)
class Budget:
    """The number of runs of an arm: its grid, lines beyond an edge of the grid, closer looks, and confirmation.

    Every arm has `trials` runs, whatever their outcomes are: runs that no edge needs go into the closer looks. The arm
    without decay has only its learning rate to choose. It runs each one `repeats` times, and tries more of them.

    Attributes:
        name: The name that the user types.
        pilot: The learning rates of the pilot, as steps of the ladder ..., 0.1, 0.3, 1, ..., on which 1 is step 0.
        foreign_pilot: The learning rates of the pilot of an arm that is not built in, as steps of the ladder.
        lrs: The learning rates of every arm, as steps of the ladder above the pilot's best.
        timescales: The decay timescales of AdamW, as multiples of the length of a run; other arms have as many decays.
        lines: How often a grid is extended beyond an edge that its best config lies on.
        line: The number of runs of one extension.
        refined: The number of runs of the closer looks, if the grid was extended as often as possible.
        confirmed: How many of the best configs run on two more seeds before one of them is chosen.
        base: The name of the budget that this one was made from, with another number of runs.
    """

    name: str
    pilot: tuple[int, ...]
    foreign_pilot: tuple[int, ...]
    lrs: tuple[int, ...]
    timescales: tuple[float, ...]
    lines: int
    line: int
    refined: int
    confirmed: int
    base: str = ""

    @property
    def grid(self) -> int:
        """The number of runs of an arm's grid."""
        return len(self.lrs) * len(self.timescales)

    @property
    def repeats(self) -> int:
        """The number of seeds of each learning rate of the arm without decay.

        It is equal for all rates, so that luck does not choose; it leaves two thirds of the runs for rates after the
        grid; and it is seldom above six, because a rate with a diverged run is not chosen.

        Example:
            >>> [(budget.name, budget.trials, budget.repeats) for budget in BUDGETS.values()]
            [('quick', 32, 3), ('standard', 59, 3), ('thorough', 129, 6)]
        """
        share = self.trials // (3 * len(self.lrs))
        return max(SEARCH_SEEDS, min(_MOST_REPEATS, share), math.ceil(self.trials / _MOST_RATES))

    @property
    def confirmations(self) -> int:
        """The number of runs that confirm an arm's best configs."""
        return (SEARCH_SEEDS - 1) * self.confirmed

    @property
    def after_grid(self) -> int:
        """The number of runs of an arm after its grid, pilot and finals not counted."""
        return self.lines * self.line + self.refined + self.confirmations

    @property
    def trials(self) -> int:
        """The number of runs of an arm, pilot and finals not counted."""
        return self.grid + self.after_grid

    def with_trials(self, trials: int) -> Budget:
        """Return this budget with another number of runs for each arm, and as many decays as that number leaves.

        Example:
            >>> BUDGETS["quick"].with_trials(40).trials
            40
        """
        rows = len(self.lrs)
        columns, rest = divmod(trials - self.after_grid, rows)
        if columns < _LEAST_COLUMNS:
            raise ValueError(
                f"trials={trials} must be >= {self.after_grid + _LEAST_COLUMNS * rows} with the budget {self.name}: "
                f"{rows} learning rates, {_LEAST_COLUMNS} decays, and {self.after_grid} runs after the grid"
                + ("" if self.name == "quick" else "; --budget quick needs fewer")
            )
        if columns > _MOST_COLUMNS:
            raise ValueError(
                f"trials={trials} must be <= {self.after_grid + rows * _MOST_COLUMNS} with the budget {self.name}: "
                f"{_MOST_COLUMNS} decays for each of {rows} learning rates differ by less than seeds can measure"
            )
        high, low = _SPAN
        scales = tuple(high * (low / high) ** (column / (columns - 1)) for column in range(columns))
        name = f"{self.name} with {trials} runs"
        return replace(self, base=self.name, name=name, timescales=scales, refined=self.refined + rest)


# A learning rate above the pilot's best is often better once decay limits the weights; a lower one seldom is.
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="quick",
            pilot=(-8, -7, -6, -5),
            foreign_pilot=(-8, -6, -4, -2, 0),
            lrs=(0, 1, 2),
            timescales=(10, 1, 1 / 10, 1 / 100),
            lines=1,
            line=4,
            refined=8,
            confirmed=4,
        ),
        Budget(
            name="standard",
            pilot=(-8, -7, -6, -5, -4, -3),
            foreign_pilot=(-8, -7, -6, -5, -4, -3, -2, -1, 0),
            lrs=(-1, 0, 1, 2, 3),
            timescales=(10, 3, 1, 1 / 3, 1 / 10, 1 / 30, 1 / 100),
            lines=2,
            line=5,
            refined=8,
            confirmed=3,
        ),
        Budget(
            name="thorough",
            pilot=(-10, -9, -8, -7, -6, -5, -4, -3),
            foreign_pilot=(-10, -9, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1),
            lrs=(-2, -1, 0, 1, 2, 3, 4),
            timescales=(10, 5, 3, 2, 1, 1 / 2, 1 / 3, 1 / 5, 1 / 10, 1 / 20, 1 / 30, 1 / 50, 1 / 100),
            lines=2,
            line=8,
            refined=12,
            confirmed=5,
        ),
    )
}


def find(name: str) -> Budget:
    """Return the budget called `name`; the error lists the known ones."""
    if name not in BUDGETS:
        raise ValueError(f"unknown budget {name!r}; the known ones are: {', '.join(BUDGETS)}")
    return BUDGETS[name]
