"""A finished study: every run with its outcome, and the results of each stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adamas.compare.search.candidates import Candidates
from adamas.compare.search.grids import Grid
from adamas.compare.search.pilot import Pilot
from adamas.compare.search.selection import Winner
from adamas.compare.study.run import Outcome, Run
from adamas.compare.study.settings import Settings


@dataclass(frozen=True)
class Record:
    """A finished study.

    Attributes:
        settings: The settings of the study, without the arms that were left out.
        specification: Everything that the figures of the runs depend on.
        pilots: The results of each arm's pilot; empty where nothing was tuned.
        grids: The first runs of each arm.
        searched: The runs that each arm's winner was chosen from, in the order of the requests.
        winners: The config that was chosen for each arm.
        outcomes: The outcome of every run, pilot and finals included.
        sweeps: The runs of the sweeps over weight decay, by arm and variant of the job.
        left_out: The reason why an arm was left out, by arm.
        pairs: The number of seeds on which every winner ran.
        planned: The number of seeds that was planned before the finals; more of them may follow.
    """

    settings: Settings
    specification: dict[str, Any]
    pilots: dict[str, Pilot]
    grids: dict[str, Grid]
    searched: dict[str, list[Run]]
    winners: dict[str, Winner]
    outcomes: dict[Run, Outcome]
    sweeps: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    pairs: int = 0
    planned: int = 8

    @property
    def pilot(self) -> Pilot | None:
        """The pilot of Adam, which measured the gradients; None where nothing was tuned."""
        return self.pilots.get("none")

    def candidates(self, arm: str) -> Candidates:
        """Return the settings that an arm tried, with the surface through its runs and those of its pilot."""
        pilot = self.settings.arms[arm].pilot
        pilots = [run for run in self.outcomes if run.stage == "pilot" and run.arm == pilot]
        runs = list(dict.fromkeys([*pilots, *self.searched[arm]]))
        return Candidates(self.grids[arm], runs, self.outcomes, self.settings.workload.metric)

    def pairs_of(self, arm: str, pairs: int | None = None) -> int:
        """Return on how many seeds an arm's winner runs, where the others run on `pairs`."""
        return self.settings.budget.pairs_of(arm, pairs or self.pairs)

    def finals(self, arm: str) -> list[Outcome]:
        """Return the outcomes of an arm's finalists in the order of their seeds."""
        return [self.outcomes[run] for run in self.winners[arm].finals(self.pairs_of(arm))]
