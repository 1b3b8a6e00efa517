"""Named budgets: how many runs each arm may spend, fixed before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

REFINED = 8  # runs around the best cell of a grid
SEARCH_SEEDS = 3  # what a confirmed cell is judged by


@dataclass(frozen=True)
class Budget:
    """How a study spends its runs: a grid, a refinement around its best cell, more seeds for the best few.

    Every arm gets `trials` runs. Without decay only the learning rate is left to choose: that arm runs each one
    repeatedly, and spends the second half on the two learning rates half a step from its best.

    Attributes:
        name: what the user types.
        pilot: learning rates of the pilot, as steps of the ladder 1e-4 3e-4 1e-3 ..., on which 1 is step 0.
        lrs: learning rates of every arm, as steps of the ladder above the pilot's best.
        timescales: AdamW's decay timescales, as multiples of the length of the run; other arms get as many columns.
        refined: whether 8 runs refine the grid around its best cell.
        confirmed: how many of the best cells run on two more seeds before one of them is chosen.
    """

    name: str
    pilot: tuple[int, ...]
    lrs: tuple[int, ...]
    timescales: tuple[float, ...]
    refined: bool
    confirmed: int

    @property
    def grid(self) -> int:
        """Runs of an arm's grid."""
        return len(self.lrs) * len(self.timescales)

    @property
    def follow_up(self) -> int:
        """Runs of an arm that depend on its grid; an even number."""
        return (REFINED if self.refined else 0) + (SEARCH_SEEDS - 1) * self.confirmed

    @property
    def trials(self) -> int:
        """Runs of each arm, finalists not counted."""
        return self.grid + self.follow_up


# A larger learning rate than the pilot's best often pays once decay holds the weights back, a smaller one seldom does.
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="quick",
            pilot=(-8, -7, -6, -5),
            lrs=(0, 1, 2),
            timescales=(10, 1, 1 / 10, 1 / 100),
            refined=True,
            confirmed=0,
        ),
        Budget(
            name="standard",
            pilot=(-8, -7, -6, -5, -4, -3),
            lrs=(-1, 0, 1, 2, 3),
            timescales=(10, 3, 1, 1 / 3, 1 / 10, 1 / 30, 1 / 100),
            refined=True,
            confirmed=3,
        ),
        Budget(
            name="thorough",
            pilot=(-10, -9, -8, -7, -6, -5, -4, -3),
            lrs=(-2, -1, 0, 1, 2, 3, 4),
            timescales=(10, 5, 3, 2, 1, 1 / 2, 1 / 3, 1 / 5, 1 / 10, 1 / 20, 1 / 30, 1 / 50, 1 / 100),
            refined=True,
            confirmed=5,
        ),
    )
}


def find(name: str) -> Budget:
    """Return the budget called `name`; the error lists the known ones."""
    if name not in BUDGETS:
        raise ValueError(f"unknown budget {name!r}; the known ones are: {', '.join(BUDGETS)}")
    return BUDGETS[name]
