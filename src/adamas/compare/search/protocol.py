"""The protocol: a pilot for all arms, then each arm's own course from its grid to its finals.

What a course asks for follows from the outcomes of its own earlier runs alone. So arms need not wait for one another; a
study that was interrupted anywhere is continued by asking for the same runs again; and neither the number of workers
nor the order in which they finish changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from adamas.compare.search import pilot
from adamas.compare.search import refine as followup
from adamas.compare.search.grids import Grid, grids
from adamas.compare.search.record import Record
from adamas.compare.search.selection import EveryRunDivergedError, Winner, winner
from adamas.compare.search.sweep import sweep
from adamas.compare.study.arms import ARMS, JUDGED, Arm
from adamas.compare.study.budgets import SEARCH_SEEDS
from adamas.compare.study.run import Cell, Outcome, Stage
from adamas.compare.study.settings import Settings


@dataclass(frozen=True)
class Asked:
    """Runs that a course cannot go on without.

    Attributes:
        cells: what is to run, of one stage.
        may_give_up: whether runs that fit nothing half-way may be stopped.
    """

    cells: tuple[Cell, ...]
    may_give_up: bool = False

    @property
    def stage(self) -> Stage:
        """Theirs."""
        return self.cells[0].stage


Course = Generator[Asked, Mapping[Cell, Outcome]]
Follow = Callable[[list[Course]], None]


class Stages:
    """One study on its way.

    Args:
        settings: what was asked for.
        spec: what the runs depend on, for the record.
        follow: goes along some courses to their ends, each as fast as its own runs are done.
    """

    def __init__(self, settings: Settings, spec: dict[str, Any], follow: Follow) -> None:
        self._settings = settings
        self._spec = spec
        self._follow = follow
        self._piloted: dict[Cell, Outcome] = {}
        self._lost: dict[str, str] = {}

    def go_through(self) -> Record:
        """From the pilot to the finals."""
        pilots: dict[str, pilot.Pilot] = {}
        layout: dict[str, Grid] = {}
        if fixed := self._settings.workload.fixed:
            arms = {
                name: ArmCourse(self._settings, self._settings.arms[name], Winner(name, lr, decay))
                for name, lr, decay in fixed
                if name in self._settings.arms
            }
        else:
            pilots = self._pilots()
            piloted = {name: arm for name, arm in self._settings.arms.items() if name in pilots}
            layout = grids(piloted, pilots, pilots["none"], self._settings.budget)
            arms = {
                name: ArmCourse(self._settings, arm, layout[name], pilots[name].learns_early)
                for name, arm in piloted.items()
            }
        self._follow([arm.course() for arm in arms.values()])
        outcomes = self._piloted | {cell: found for arm in arms.values() for cell, found in arm.outcomes.items()}
        self._lost |= {name: arm.lost for name, arm in arms.items() if arm.lost}
        arms = {name: arm for name, arm in arms.items() if not arm.lost}
        return Record(
            replace(self._settings, arms={name: self._settings.arms[name] for name in arms}),
            self._spec,
            pilots,
            layout,
            {name: arm.searched for name, arm in arms.items()},
            {name: arm.winner for name, arm in arms.items()},
            outcomes,
            {(name, variant): cells for name, arm in arms.items() for variant, cells in arm.sweeps.items()},
            self._lost,
        )

    def _pilots(self) -> dict[str, pilot.Pilot]:
        """Find where each arm is to look; an optimizer that is not Adamas' own may be lost on the way."""
        arms = {"none": ARMS["none"], **self._settings.arms}
        budget, metric = self._settings.budget, self._settings.workload.metric

        def course() -> Course:
            cells = [cell for arm in arms.values() for cell in pilot.cells(arm, budget)]
            self._piloted.update((yield Asked(tuple(dict.fromkeys(cells)))))
            for _ in range(pilot.ROUNDS):
                cells = [cell for arm in arms.values() for cell in pilot.further(arm, self._piloted, metric)]
                if not cells:
                    return
                self._piloted.update((yield Asked(tuple(dict.fromkeys(cells)))))

        self._follow([course()])
        found: dict[str, pilot.Pilot] = {}
        for name, arm in arms.items():
            try:
                found[name] = pilot.read(arm, self._piloted, metric)
            except pilot.UnusableJobError as error:
                if arm.built_in:
                    raise
                self._lost[name] = str(error)
        return found


class ArmCourse:
    """The course of one arm.

    Args:
        settings: what was asked for.
        arm: whose course it is.
        start: the first runs of its search, or the cell that needs none.
        early: whether runs that fit nothing half-way may be stopped: if the best run of its pilot had fitted by then.

    Attributes:
        searched: the runs that its winner was chosen from, in the order in which they were asked for.
        winner: the chosen cell.
        sweeps: runs over a range of decays, by variant of the job.
        outcomes: of all its runs.
        lost: why it came to nothing; empty where it has a winner. The two that the verdict is about are never lost:
            their error ends the study.
    """

    winner: Winner

    def __init__(self, settings: Settings, arm: Arm, start: Grid | Winner, early: bool = False) -> None:
        self.searched: list[Cell] = []
        self.sweeps: dict[str, list[Cell]] = {}
        self.outcomes: dict[Cell, Outcome] = {}
        self.lost = ""
        self._settings = settings
        self._arm = arm
        self._start = start
        self._early = early
        self._metric = settings.workload.metric

    def course(self) -> Course:
        """From the first run to the last."""
        if isinstance(self._start, Winner):
            self.winner = self._start
        else:
            try:
                yield from self._search(self._start)
            except EveryRunDivergedError as error:
                if self._arm.name in JUDGED:
                    raise
                self.lost = str(error)
                return
        yield from self._finals()

    def _search(self, grid: Grid) -> Course:
        """Run the grid, go beyond its edges, spend what that leaves around the best cells, and confirm the best few."""
        budget, decays = self._settings.budget, self._arm.decay != "none"
        end = budget.trials - (budget.confirmations if decays else 0)
        yield from self._run(grid.cells())
        for _ in range(budget.lines):
            line = followup.extend(grid, budget, self.searched, self.outcomes, self._metric)
            yield from self._run(line[: end - len(self.searched)])
        for look in range(1, followup.LOOKS + 1):
            runs = end - len(self.searched)
            if look < followup.LOOKS:  # a share of them, on whole sets of seeds
                share = runs // (followup.LOOKS + 1 - look)
                runs = share - share % len(grid.seeds)
            yield from self._run(followup.refine(grid, look, runs, self.searched, self.outcomes, self._metric))
        if decays:
            yield from self._run(followup.confirm(self.searched, budget, self.outcomes, self._metric), to_the_end=True)
        repeats = SEARCH_SEEDS if budget.confirmed and decays else len(grid.seeds)
        self.winner = winner(self._arm, self.searched, self.outcomes, self._metric, repeats)

    def _run(self, cells: list[Cell], to_the_end: bool = False) -> Course:
        """Add runs to the search."""
        self.searched += cells
        if cells:
            self.outcomes.update((yield Asked(tuple(cells), self._early and not to_the_end)))

    def _finals(self) -> Course:
        """Sweep over the job's variants from the winner, and rerun it on fresh seeds."""
        variants = dict(self._settings.workload.variants)
        if variants and self._arm.name in JUDGED:
            self.sweeps = {variant: sweep(self.winner, variant) for variant in ["", *variants]}
            swept = tuple(cell for cells in self.sweeps.values() for cell in cells)
            self.outcomes.update((yield Asked(swept)))
        self.outcomes.update((yield Asked(tuple(self.winner.finals(self._settings.seeds)))))
