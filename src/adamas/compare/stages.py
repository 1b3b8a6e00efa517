"""The protocol: pilot, grids, extension, refinement, confirmation, sweeps, finals.

Each stage's runs follow from the stages before it alone. So a study that was interrupted anywhere is continued by
asking for the same runs again, and neither the number of workers nor the order in which they finish changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from adamas.compare import followup, pilot
from adamas.compare.arms import ARMS, JUDGED
from adamas.compare.budgets import SEARCH_SEEDS
from adamas.compare.cell import Cell, Outcome
from adamas.compare.grids import Grid, grids
from adamas.compare.record import Record
from adamas.compare.selection import Winner, winner
from adamas.compare.settings import Settings
from adamas.compare.sweep import sweep

Complete = Callable[..., Mapping[Cell, Outcome]]


class Stages:
    """One study on its way.

    Args:
        settings: what was asked for.
        spec: what the runs depend on, for the record.
        complete: returns the outcomes of the cells it is given; `may_give_up` says whether runs that fit nothing
            half-way may be stopped.
    """

    def __init__(self, settings: Settings, spec: dict[str, Any], complete: Complete) -> None:
        self._settings = settings
        self._spec = spec
        self._complete = complete
        self._metric = settings.workload.metric
        self._arms = settings.arms
        self._outcomes: dict[Cell, Outcome] = {}
        self._searched: dict[str, list[Cell]] = {name: [] for name in settings.arms}

    def go_through(self) -> Record:
        """Every stage after the other."""
        if fixed := self._settings.workload.fixed:
            return self._finish({}, {}, {arm: Winner(arm, lr, decay) for arm, lr, decay in fixed if arm in self._arms})
        pilots = self._pilots()
        early = pilots["none"].learns_early
        layout = grids(self._arms, pilots, pilots["none"], self._settings.budget)
        self._search({arm: grid.cells() for arm, grid in layout.items()}, early)
        self._follow_up(layout, early)
        return self._finish(pilots, layout, self._winners())

    def _pilots(self) -> dict[str, pilot.Pilot]:
        """Find where each arm is to look."""
        arms = {"none": ARMS["none"], **self._arms}
        budget = self._settings.budget
        self._run(cell for arm in arms.values() for cell in pilot.cells(arm, budget))
        return {name: pilot.read(arm, budget, self._outcomes, self._metric) for name, arm in arms.items()}

    def _follow_up(self, layout: Mapping[str, Grid], early: bool) -> None:
        """Go beyond edges, spend what that leaves around the best cells, and confirm the best few."""
        budget, searched, outcomes = self._settings.budget, self._searched, self._outcomes
        left = dict.fromkeys(self._arms, budget.lines * budget.line + budget.refined)
        for _ in range(budget.lines):
            lines = {
                arm: followup.extend(grid, budget, searched[arm], outcomes, self._metric)
                for arm, grid in layout.items()
            }
            left = {arm: left[arm] - len(line) for arm, line in lines.items()}
            self._search(lines, early)
        decaying = [name for name, arm in self._arms.items() if arm.decay != "none"]
        confirmation = (SEARCH_SEEDS - 1) * budget.confirmed
        left = {arm: runs + (0 if arm in decaying else confirmation) for arm, runs in left.items()}
        self._search(
            {
                arm: followup.refine(grid, left[arm], searched[arm], outcomes, self._metric)
                for arm, grid in layout.items()
            },
            early,
        )
        self._search({arm: followup.confirm(searched[arm], budget, outcomes, self._metric) for arm in decaying}, early)

    def _winners(self) -> dict[str, Winner]:
        """Choose each arm's cell on validation."""
        return {
            name: winner(
                arm,
                self._searched[name],
                self._outcomes,
                self._metric,
                SEARCH_SEEDS if self._settings.budget.confirmed and arm.decay != "none" else 1,
            )
            for name, arm in self._arms.items()
        }

    def _finish(self, pilots: dict[str, pilot.Pilot], layout: dict[str, Grid], winners: dict[str, Winner]) -> Record:
        """Sweep over the job's variants, and rerun the winners on fresh paired seeds."""
        workload = self._settings.workload
        sweeps = {
            (arm, variant): sweep(winners[arm], variant)
            for variant in (["", *dict(workload.variants)] if workload.variants else [])
            for arm in JUDGED
        }
        self._run(cell for cells in sweeps.values() for cell in cells)
        # Seed by seed, so that the arms' runs of a pair are neighbours in time.
        pairs = zip(*(chosen.finals(self._settings.seeds) for chosen in winners.values()), strict=True)
        self._run(cell for pair in pairs for cell in pair)
        return Record(self._settings, self._spec, pilots, layout, self._searched, winners, self._outcomes, sweeps)

    def _search(self, further: Mapping[str, list[Cell]], early: bool) -> None:
        """Run more cells of arms; those that fit nothing half-way are stopped, if the pilot's best run did by then."""
        for arm, cells in further.items():
            self._searched[arm] = self._searched[arm] + cells
        self._run((cell for cells in further.values() for cell in cells), may_give_up=early)

    def _run(self, cells: Iterable[Cell], may_give_up: bool = False) -> None:
        wanted = list(cells)
        if wanted:
            self._outcomes.update(self._complete(wanted, may_give_up=may_give_up))
