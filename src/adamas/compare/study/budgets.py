"""Named budgets: the number of runs that each arm may spend, fixed before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

SEARCH_SEEDS = 3  # the seeds that a confirmed config ran on
_LEAST_COLUMNS, _MOST_COLUMNS = 3, 200  # of a grid; with two, every best config would lie on an edge
_SPAN = (10.0, 1 / 100)  # of the decay timescales, as multiples of the length of a run


@dataclass(frozen=True)
class Budget:
    """The number of runs of an arm: its grid, rounds of runs where the grid was best, and confirmation.

    Every arm with decay has `trials` runs, whatever their outcomes are. The arm without decay has its learning rate
    alone to choose, and begins with the pilot, which is Adam without decay: it has `alone` runs more.

    Attributes:
        name: The name that the user types.
        pilot: The learning rates of the pilot, as steps of the ladder ..., 0.1, 0.3, 1, ..., on which 1 is step 0.
        foreign_pilot: The learning rates of the pilot of an arm that is not built in, as steps of the ladder.
        lrs: The learning rates of every arm, as steps of the ladder above the pilot's best.
        timescales: The decay timescales of AdamW, as multiples of the length of a run; other arms have as many decays.
        rounds: The number of runs of each round after the grid; the runs of a round follow from all runs before it.
        confirmed: How many of the best configs run on two more seeds before one of them is chosen.
        alone: The number of learning rates that the arm without decay tries after the pilot, in two rounds.
        pairs: The number of paired seeds of the finals, at most, unless the user gives another.
        pairs_alone: The number of those that Adam without decay runs on, at most; None lets it run on all of them.
        most: The number of runs of the whole study, at most; None leaves it open.
        base: The name of the budget that this one was made from, with another number of runs.
    """

    name: str
    pilot: tuple[int, ...]
    foreign_pilot: tuple[int, ...]
    lrs: tuple[int, ...]
    timescales: tuple[float, ...]
    rounds: tuple[int, ...]
    confirmed: int
    alone: int
    pairs: int
    pairs_alone: int | None = None
    most: int | None = None
    base: str = ""

    @property
    def grid(self) -> int:
        """The number of runs of an arm's grid."""
        return len(self.lrs) * len(self.timescales)

    @property
    def confirmations(self) -> int:
        """The number of runs that confirm an arm's best configs."""
        return (SEARCH_SEEDS - 1) * self.confirmed

    @property
    def after_grid(self) -> int:
        """The number of runs of an arm after its grid, pilot and finals not counted."""
        return sum(self.rounds) + self.confirmations

    @property
    def trials(self) -> int:
        """The number of runs of an arm with decay, pilot and finals not counted.

        Example:
            >>> [(budget.name, budget.trials) for budget in BUDGETS.values()]
            [('scout', 9), ('quick', 18), ('standard', 38), ('thorough', 79)]
        """
        return self.grid + self.after_grid

    @property
    def trials_alone(self) -> int:
        """The number of runs of the arm without decay, pilot and finals not counted."""
        return self.alone + self.confirmations

    def pairs_of(self, arm: str, pairs: int) -> int:
        """Return on how many seeds an arm's winner runs in the finals, where most arms run on `pairs`."""
        return min(pairs, self.pairs_alone or pairs) if arm == "none" else pairs

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
                + ("" if self.name == "scout" else "; --budget scout needs fewer")
            )
        if columns > _MOST_COLUMNS:
            raise ValueError(
                f"trials={trials} must be <= {self.after_grid + rows * _MOST_COLUMNS} with the budget {self.name}: "
                f"{_MOST_COLUMNS} decays for each of {rows} learning rates differ by less than seeds can measure"
            )
        high, low = _SPAN
        scales = tuple(high * (low / high) ** (column / (columns - 1)) for column in range(columns))
        name = f"{self.name} with {trials} runs"
        rounds = (*self.rounds[:-1], self.rounds[-1] + rest)
        return replace(self, base=self.name, name=name, timescales=scales, rounds=rounds, most=None)


# A learning rate above the pilot's best is often better once decay limits the weights; a lower one seldom is.
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(
            name="scout",
            pilot=(-8, -7, -6, -5),
            foreign_pilot=(-8, -6, -4, -2, 0),
            lrs=(0,),
            timescales=(10, 10**0.25, 10**-0.5, 10**-1.25, 1 / 100),
            rounds=(2, 2),
            confirmed=0,
            alone=0,
            pairs=8,
            pairs_alone=2,
            most=40,
        ),
        Budget(
            name="quick",
            pilot=(-8, -7, -6, -5),
            foreign_pilot=(-8, -6, -4, -2, 0),
            lrs=(0,),
            timescales=(10, 3, 1, 1 / 3, 1 / 10, 1 / 30, 1 / 100),
            rounds=(4, 3),
            confirmed=2,
            alone=2,
            pairs=8,
        ),
        Budget(
            name="standard",
            pilot=(-8, -7, -6, -5, -4, -3),
            foreign_pilot=(-8, -7, -6, -5, -4, -3, -2, -1, 0),
            lrs=(-1, 0, 1, 2),
            timescales=(10, 2, 1 / 3, 1 / 20, 1 / 100),
            rounds=(4, 4, 4),
            confirmed=3,
            alone=4,
            pairs=20,
        ),
        Budget(
            name="thorough",
            pilot=(-10, -9, -8, -7, -6, -5, -4, -3),
            foreign_pilot=(-10, -9, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1),
            lrs=(-1, 0, 1, 2, 3),
            timescales=(10, 3, 1, 1 / 3, 1 / 10, 1 / 20, 1 / 30, 1 / 60, 1 / 100),
            rounds=(6, 6, 6, 6),
            confirmed=5,
            alone=6,
            pairs=20,
        ),
    )
}


def find(name: str) -> Budget:
    """Return the budget called `name`; the error lists the known ones."""
    if name not in BUDGETS:
        raise ValueError(f"unknown budget {name!r}; the known ones are: {', '.join(BUDGETS)}")
    return BUDGETS[name]
