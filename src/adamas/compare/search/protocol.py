"""The protocol: one pilot stage for all arms, then for each arm its own search and its finals.

The runs that an arm requests follow from the outcomes of its own earlier runs alone. So arms need not wait for one
another; an interrupted study continues when the same runs are requested again; and neither the number of workers nor
the order in which runs end changes a result.
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
from adamas.compare.study.arms import JUDGED
from adamas.compare.study.budgets import SEARCH_SEEDS
from adamas.compare.study.errors import EveryRunDivergedError, PilotError
from adamas.compare.study.run import Outcome, Request, Requests, Run
from adamas.compare.study.settings import Settings


class Protocol:
    """The protocol of one study.

    Args:
        settings: The settings of the study.
        spec: Everything that the figures of the runs depend on, for the record.
        follow: A function that goes through searches to their ends and sends them the outcomes of their requests.
    """

    def __init__(self, settings: Settings, spec: dict[str, Any], follow: Callable[[list[Requests]], None]) -> None:
        self._settings = settings
        self._spec = spec
        self._follow = follow
        self._outcomes: dict[Run, Outcome] = {}
        self._left_out: dict[str, str] = {}

    def go_through(self) -> Record:
        """Go from the pilot to the finals, and return the record of the study."""
        settings = self._settings
        pilots: dict[str, pilot.Pilot] = {}
        layout: dict[str, Grid] = {}
        if settings.workload.fixed:
            starts = [Winner(*config) for config in settings.workload.fixed if config[0] in settings.arms]
        else:
            pilots = self._pilots()
            piloted = {name: arm for name, arm in settings.arms.items() if name in pilots}
            layout = grids(piloted, pilots, pilots["none"], settings.budget)
            starts = list(layout.values())
        early = {name for name, found in pilots.items() if found.learns_early}
        arms = {start.arm: _ArmSearch(settings, start, start.arm in early) for start in starts}
        self._follow([arm.requests() for arm in arms.values()])
        for name, arm in arms.items():
            self._outcomes |= arm.outcomes
            if arm.left_out:
                self._left_out[name] = arm.left_out
        arms = {name: arm for name, arm in arms.items() if not arm.left_out}
        return Record(
            replace(settings, arms={name: settings.arms[name] for name in arms}),
            self._spec,
            pilots,
            layout,
            {name: arm.searched for name, arm in arms.items()},
            {name: arm.winner for name, arm in arms.items()},
            self._outcomes,
            {(name, variant): runs for name, arm in arms.items() for variant, runs in arm.sweeps.items()},
            self._left_out,
        )

    def _pilots(self) -> dict[str, pilot.Pilot]:
        """Return the results of each arm's pilot; an optimizer that is not built in is left out if its pilot fails."""
        arms = self._settings.trained_arms
        budget, metric = self._settings.budget, self._settings.workload.metric

        def requests() -> Requests:
            runs = [run for arm in arms.values() for run in pilot.first_runs(arm, budget)]
            for _ in range(1 + pilot.ROUNDS):
                if not runs:
                    return
                self._outcomes.update((yield Request(tuple(dict.fromkeys(runs)))))
                runs = [run for arm in arms.values() for run in pilot.further(arm, self._outcomes, metric)]

        self._follow([requests()])
        found: dict[str, pilot.Pilot] = {}
        for name, arm in arms.items():
            try:
                found[name] = pilot.read(arm, self._outcomes, metric)
            except PilotError as error:
                if arm.built_in:
                    raise
                self._left_out[name] = str(error)
        return found


class _ArmSearch:
    """The search of one arm, and its finals.

    Args:
        settings: The settings of the study.
        start: The first runs of the arm's search, or the config that needs no search.
        may_prune: Whether runs may be pruned; only if the best run of the pilot had learned something half-way.

    Attributes:
        searched: The runs that the winner was chosen from, in the order of the requests.
        winner: The config that was chosen.
        sweeps: The runs of the sweeps over weight decay, by variant of the job.
        outcomes: The outcomes of all runs of the arm.
        left_out: The reason why no config was chosen; empty where there is a winner. For an arm that the verdict is
            about, this ends the study with an error instead.
    """

    winner: Winner

    def __init__(self, settings: Settings, start: Grid | Winner, may_prune: bool) -> None:
        self.searched: list[Run] = []
        self.sweeps: dict[str, list[Run]] = {}
        self.outcomes: dict[Run, Outcome] = {}
        self.left_out = ""
        self._settings = settings
        self._arm = settings.arms[start.arm]
        self._start = start
        self._may_prune = may_prune
        self._metric = settings.workload.metric

    def requests(self) -> Requests:
        """Yield the requests of the arm, from its first run to its finals."""
        if isinstance(self._start, Winner):
            self.winner = self._start
        else:
            try:
                yield from self._search(self._start)
            except EveryRunDivergedError as error:
                if self._arm.name in JUDGED:
                    raise
                self.left_out = str(error)
                return
        yield from self._finals()

    def _search(self, grid: Grid) -> Requests:
        """Run the grid, extend it beyond its edges, spend the remaining runs on closer looks, and confirm the best."""
        budget, decays = self._settings.budget, self._arm.decay != "none"
        end = budget.trials - (budget.confirmations if decays else 0)
        yield from self._run(grid.runs())
        for _ in range(budget.lines):
            line = refine.extend(grid, budget, self.searched, self.outcomes, self._metric)
            yield from self._run(line[: end - len(self.searched)])
        for look in range(1, refine.LOOKS + 1):
            count = end - len(self.searched)
            if look < refine.LOOKS:  # an equal share for each look, in whole sets of seeds
                share = count // (refine.LOOKS + 1 - look)
                count = share - share % len(grid.seeds)
            yield from self._run(refine.refine(grid, look, count, self.searched, self.outcomes, self._metric))
        if decays:
            yield from self._run(refine.confirm(self.searched, budget, self.outcomes, self._metric), to_the_end=True)
        repeats = SEARCH_SEEDS if budget.confirmed and decays else len(grid.seeds)
        self.winner = winner(self._arm, self.searched, self.outcomes, self._metric, repeats)

    def _run(self, runs: list[Run], to_the_end: bool = False) -> Requests:
        """Request runs of the search, and keep their outcomes."""
        self.searched += runs
        if runs:
            self.outcomes.update((yield Request(tuple(runs), self._may_prune and not to_the_end)))

    def _finals(self) -> Requests:
        """Sweep over the variants of the job at the winner's learning rate, and run the winner on fresh seeds."""
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
