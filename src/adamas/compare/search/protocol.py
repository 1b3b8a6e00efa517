"""The protocol: one pilot stage for all arms, then for each arm its own search, then the finals of all arms.

The runs that an arm's search requests follow from the outcomes of the pilot and of its own earlier runs alone. So arms
need not wait for one another; an interrupted study continues when the same runs are requested again; and neither the
number of workers nor the order in which runs end changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from adamas.compare.search import pilot
from adamas.compare.search.candidates import Candidates
from adamas.compare.search.grids import Grid, grids
from adamas.compare.search.pilot import SEED
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
        planned: The number of pairs that was planned when the study began; None takes that of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        spec: dict[str, Any],
        follow: Callable[[list[Requests]], None],
        planned: int | None = None,
    ) -> None:
        self._planned = planned or settings.pairs
        self._settings = settings
        self._spec = spec
        self._follow = follow
        self._outcomes: dict[Run, Outcome] = {}
        self._left_out: dict[str, str] = {}

    def search(self) -> Record:
        """Go from the pilot to the config of each arm, and return the record of a study without finals."""
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
        arms = {start.arm: self._arm_search(start, start.arm in early) for start in starts}
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
            planned=self._planned,
        )

    def finals(self, record: Record, pairs: int) -> Record:
        """Run each arm's winner on fresh seeds until it has `pairs` of them; return the record with these runs."""
        finals = [run for arm, winner in record.winners.items() for run in winner.finals(record.pairs_of(arm, pairs))]
        runs = [run for run in finals if run not in record.outcomes]
        outcomes = dict(record.outcomes)

        def requests() -> Requests:
            outcomes.update((yield Request(tuple(runs))))

        if runs:
            self._follow([requests()])
        return replace(record, outcomes=outcomes, pairs=pairs)

    def _arm_search(self, start: Grid | Winner, may_prune: bool) -> _ArmSearch:
        """Return the search of an arm, which knows what training without decay gave."""
        arm = self._settings.arms[start.arm]
        pilots = {run: outcome for run, outcome in self._outcomes.items() if run.arm == arm.pilot}
        return _ArmSearch(self._settings, start, pilots, may_prune)

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
    """The search of one arm.

    Args:
        settings: The settings of the study.
        start: The first runs of the arm's search, or the config that needs no search.
        pilots: The arm's runs of the pilot with their outcomes; they are without decay.
        may_prune: Whether runs may be pruned; only if the best run of the pilot had learned something half-way.

    Attributes:
        searched: The runs of the search, in the order of the requests; those of the pilot for an arm without decay.
        winner: The config that was chosen.
        sweeps: The runs of the sweeps over weight decay, by variant of the job.
        outcomes: The outcomes of all runs of the arm.
        left_out: The reason why no config was chosen; empty where there is a winner. For an arm that the verdict is
            about, this ends the study with an error instead.
    """

    winner: Winner

    def __init__(
        self, settings: Settings, start: Grid | Winner, pilots: Mapping[Run, Outcome], may_prune: bool
    ) -> None:
        self.sweeps: dict[str, list[Run]] = {}
        self.left_out = ""
        self._settings = settings
        self._arm = settings.arms[start.arm]
        self._start = start
        self._pilots = list(pilots)
        self._may_prune = may_prune
        self._metric = settings.workload.metric
        self.outcomes: dict[Run, Outcome] = dict(pilots)
        self.searched: list[Run] = self._pilots[:] if self._arm.decay == "none" else []

    def requests(self) -> Requests:
        """Yield the requests of the arm, from its first run to its winner and the sweeps around it."""
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
        yield from self._sweep()

    def _search(self, grid: Grid) -> Requests:
        """Run the grid, then rounds of runs where the best config may be, and confirm the best few on more seeds."""
        budget, decays = self._settings.budget, self._arm.decay != "none"
        if decays:
            yield from self._run(grid.runs())
        rounds = budget.rounds if decays else (budget.alone - budget.alone // 2, budget.alone // 2)
        for count in rounds:
            yield from self._run([grid.of(config, SEED, "refine") for config in self._candidates(grid).next(count)])
        best = self._candidates(grid).best()[: budget.confirmed]
        seeds = range(SEED + 1, SEED + SEARCH_SEEDS)
        yield from self._run([grid.of(config, seed, "confirm") for config in best for seed in seeds], to_the_end=True)
        self.winner = winner(self._arm, self._candidates(grid), best, self.searched)

    def _candidates(self, grid: Grid) -> Candidates:
        """Return the configs of the arm as all its runs so far show them, those of the pilot included."""
        runs = list(dict.fromkeys([*self._pilots, *self.searched]))
        return Candidates(grid, runs, self.outcomes, self._metric)

    def _run(self, runs: list[Run], to_the_end: bool = False) -> Requests:
        """Request runs of the search, and keep their outcomes."""
        self.searched += runs
        if runs:
            self.outcomes.update((yield Request(tuple(runs), self._may_prune and not to_the_end)))

    def _sweep(self) -> Requests:
        """Sweep over the variants of the job at the winner's learning rate."""
        variants = dict(self._settings.workload.variants)
        if variants and self._arm.name in JUDGED:
            self.sweeps = {variant: sweep(self.winner, variant) for variant in ["", *variants]}
            swept = tuple(run for runs in self.sweeps.values() for run in runs)
            self.outcomes.update((yield Request(swept)))


def expected_runs(settings: Settings) -> tuple[int, int]:
    """Return how many runs the pilots begin with, and how many the whole study has at most.

    The study has fewer runs if a look at its finals decides, and more if the best rate of a pilot lies at an end.
    """
    arms, budget = settings.arms.values(), settings.budget
    finals = sum(budget.pairs_of(arm.name, settings.pairs) for arm in arms)
    if settings.workload.fixed:
        return 0, finals
    pilots = len({run for arm in settings.trained_arms.values() for run in pilot.first_runs(arm, budget)})
    searches = sum(budget.trials_alone if arm.decay == "none" else budget.trials for arm in arms)
    variants = settings.workload.variants
    sweeps = len(JUDGED) * len(RANGE) * (1 + len(variants)) if variants else 0
    total = pilots + searches + sweeps + finals
    return pilots, min(total, budget.most or total)
