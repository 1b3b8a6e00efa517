"""The protocol: a pilot for all arms, then each arm's own course from its grid to its finals.

What a course asks for follows from the outcomes of its own earlier runs alone. So arms need not wait for one another; a
study that was interrupted anywhere is continued by asking for the same runs again; and neither the number of workers
nor the order in which they finish changes a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from adamas.compare.search import pilot, refine
from adamas.compare.search.grids import Grid, grids
from adamas.compare.search.record import Record
from adamas.compare.search.selection import Winner, winner
from adamas.compare.search.sweep import RANGE, sweep
from adamas.compare.study.arms import ARMS, JUDGED, Arm
from adamas.compare.study.budgets import SEARCH_SEEDS
from adamas.compare.study.errors import EveryRunDivergedError, PilotError
from adamas.compare.study.run import Outcome, Request, Requests, Run
from adamas.compare.study.settings import Settings

Follow = Callable[[list[Requests]], None]


class Protocol:
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
        self._piloted: dict[Run, Outcome] = {}
        self._lost: dict[str, str] = {}

    def go_through(self) -> Record:
        """From the pilot to the finals."""
        pilots: dict[str, pilot.Pilot] = {}
        layout: dict[str, Grid] = {}
        if fixed := self._settings.workload.fixed:
            arms = {
                name: ArmSearch(self._settings, self._settings.arms[name], Winner(name, lr, decay))
                for name, lr, decay in fixed
                if name in self._settings.arms
            }
        else:
            pilots = self._pilots()
            piloted = {name: arm for name, arm in self._settings.arms.items() if name in pilots}
            layout = grids(piloted, pilots, pilots["none"], self._settings.budget)
            arms = {
                name: ArmSearch(self._settings, arm, layout[name], pilots[name].learns_early)
                for name, arm in piloted.items()
            }
        self._follow([arm.course() for arm in arms.values()])
        outcomes = self._piloted | {run: found for arm in arms.values() for run, found in arm.outcomes.items()}
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
            {(name, variant): runs for name, arm in arms.items() for variant, runs in arm.sweeps.items()},
            self._lost,
        )

    def _pilots(self) -> dict[str, pilot.Pilot]:
        """Find where each arm is to look; an optimizer that is not Adamas' own may be lost on the way."""
        arms = {"none": ARMS["none"], **self._settings.arms}
        budget, metric = self._settings.budget, self._settings.workload.metric

        def course() -> Requests:
            runs = [run for arm in arms.values() for run in pilot.first_runs(arm, budget)]
            self._piloted.update((yield Request(tuple(dict.fromkeys(runs)))))
            for _ in range(pilot.ROUNDS):
                runs = [run for arm in arms.values() for run in pilot.further(arm, self._piloted, metric)]
                if not runs:
                    return
                self._piloted.update((yield Request(tuple(dict.fromkeys(runs)))))

        self._follow([course()])
        found: dict[str, pilot.Pilot] = {}
        for name, arm in arms.items():
            try:
                found[name] = pilot.read(arm, self._piloted, metric)
            except PilotError as error:
                if arm.built_in:
                    raise
                self._lost[name] = str(error)
        return found


class ArmSearch:
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
        self.searched: list[Run] = []
        self.sweeps: dict[str, list[Run]] = {}
        self.outcomes: dict[Run, Outcome] = {}
        self.lost = ""
        self._settings = settings
        self._arm = arm
        self._start = start
        self._early = early
        self._metric = settings.workload.metric

    def course(self) -> Requests:
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

    def _search(self, grid: Grid) -> Requests:
        """Run the grid, go beyond its edges, spend what that leaves around the best cells, and confirm the best few."""
        budget, decays = self._settings.budget, self._arm.decay != "none"
        end = budget.trials - (budget.confirmations if decays else 0)
        yield from self._run(grid.runs())
        for _ in range(budget.lines):
            line = refine.extend(grid, budget, self.searched, self.outcomes, self._metric)
            yield from self._run(line[: end - len(self.searched)])
        for look in range(1, refine.LOOKS + 1):
            count = end - len(self.searched)
            if look < refine.LOOKS:  # a share of them, on whole sets of seeds
                share = count // (refine.LOOKS + 1 - look)
                count = share - share % len(grid.seeds)
            yield from self._run(refine.refine(grid, look, count, self.searched, self.outcomes, self._metric))
        if decays:
            yield from self._run(refine.confirm(self.searched, budget, self.outcomes, self._metric), to_the_end=True)
        repeats = SEARCH_SEEDS if budget.confirmed and decays else len(grid.seeds)
        self.winner = winner(self._arm, self.searched, self.outcomes, self._metric, repeats)

    def _run(self, runs: list[Run], to_the_end: bool = False) -> Requests:
        """Add runs to the search."""
        self.searched += runs
        if runs:
            self.outcomes.update((yield Request(tuple(runs), self._early and not to_the_end)))

    def _finals(self) -> Requests:
        """Sweep over the job's variants from the winner, and rerun it on fresh seeds."""
        variants = dict(self._settings.workload.variants)
        if variants and self._arm.name in JUDGED:
            self.sweeps = {variant: sweep(self.winner, variant) for variant in ["", *variants]}
            swept = tuple(run for runs in self.sweeps.values() for run in runs)
            self.outcomes.update((yield Request(swept)))
        self.outcomes.update((yield Request(tuple(self.winner.finals(self._settings.seeds)))))


def expected_runs(settings: Settings) -> tuple[int, int]:
    """Return how many runs the pilots begin with, and how many the whole study has if no pilot exceeds its range."""
    finals = len(settings.arms) * settings.seeds
    if settings.workload.fixed:
        return 0, finals
    pilots = len({run for arm in settings.trained_arms.values() for run in pilot.first_runs(arm, settings.budget)})
    variants = settings.workload.variants
    sweeps = len(JUDGED) * len(RANGE) * (1 + len(variants)) if variants else 0
    return pilots, pilots + len(settings.arms) * settings.budget.trials + sweeps + finals
