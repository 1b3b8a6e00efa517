"""Named budgets: how many runs each arm may spend, fixed before anything is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SEARCH_SEEDS = 3  # what a confirmed cell is judged by
LEAST_COLUMNS, MOST_COLUMNS = 3, 500  # of a grid; of two, every best would lie on an edge
MOST_RATES = 60  # of the arm without decay
MOST_REPEATS = 6  # of a rate of that arm, where this leaves no more rates than that
SPAN = (10.0, 1 / 100)  # of the decay timescales, as multiples of the run


@dataclass(frozen=True)
class Budget:
    """How a study spends its runs: a grid, lines beyond the edge its best cell lies on, closer looks, more seeds.

    Every arm gets `trials` runs, whatever they show. Runs that no edge asks for go into the closer looks. Without decay
    only the learning rate is left to choose: that arm runs each one `repeats` times, and tries more of them.

    Attributes:
        name: what the user types.
        pilot: learning rates of the pilot, as steps of the ladder 1e-4 3e-4 1e-3 ..., on which 1 is step 0.
        foreign_pilot: the same for optimizers that are not Adamas' own, whose rates may lie anywhere.
        lrs: learning rates of every arm, as steps of the ladder above the pilot's best.
        timescales: AdamW's decay timescales, as multiples of the length of the run; other arms get as many columns.
        lines: how often a grid whose best cell lies on its edge is extended beyond it.
        line: runs of such an extension.
        refined: runs of the closer looks, where the grid was extended as often as it may be.
        confirmed: how many of the best cells run on two more seeds before one of them is chosen.
        base: name of the budget it was made from by another number of runs.
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
        """Runs of an arm's grid."""
        return len(self.lrs) * len(self.timescales)

    @property
    def repeats(self) -> int:
        """Seeds of each learning rate of the arm without decay: the same for all, so that luck does not choose.

        As many as leave two thirds of the runs for other rates than the grid's, and seldom over six: a rate of which a
        run diverged is not chosen. Runs that are no whole number of rates go into one that has too few seeds for it.

        Example:
            >>> [(budget.name, budget.trials, budget.repeats) for budget in BUDGETS.values()]
            [('quick', 32, 3), ('standard', 59, 3), ('thorough', 129, 6)]
        """
        share = self.trials // (3 * len(self.lrs))
        return max(SEARCH_SEEDS, min(MOST_REPEATS, share), math.ceil(self.trials / MOST_RATES))

    @property
    def confirmations(self) -> int:
        """Runs that confirm an arm's best cells."""
        return (SEARCH_SEEDS - 1) * self.confirmed

    @property
    def follow_up(self) -> int:
        """Runs of an arm that depend on its grid."""
        return self.lines * self.line + self.refined + self.confirmations

    @property
    def trials(self) -> int:
        """Runs of each arm, pilot and finalists not counted."""
        return self.grid + self.follow_up

    def with_trials(self, trials: int) -> Budget:
        """The same budget with another number of runs for each arm: as many columns of decay as that leaves.

        Example:
            >>> BUDGETS["quick"].with_trials(40).trials
            40
        """
        rows = len(self.lrs)
        columns, rest = divmod(trials - self.follow_up, rows)
        if columns < LEAST_COLUMNS:
            least = self.follow_up + LEAST_COLUMNS * rows
            raise ValueError(
                f"trials={trials} must be >= {least} with the budget {self.name}: {rows} learning rates, "
                f"{LEAST_COLUMNS} decays, and {self.follow_up} runs to follow them up"
                + ("" if self.name == "quick" else "; --budget quick takes fewer")
            )
        if columns > MOST_COLUMNS:
            raise ValueError(
                f"trials={trials} must be <= {self.follow_up + rows * MOST_COLUMNS} with the budget {self.name}: "
                f"{MOST_COLUMNS} decays for each of {rows} learning rates are finer than any seed can tell"
            )
        high, low = SPAN
        scales = tuple(high * (low / high) ** (column / (columns - 1)) for column in range(columns))
        return replace(
            self, base=self.name, name=f"{self.name} with {trials} runs", timescales=scales, refined=self.refined + rest
        )


# A larger learning rate than the pilot's best often pays once decay holds the weights back, a smaller one seldom does.
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
