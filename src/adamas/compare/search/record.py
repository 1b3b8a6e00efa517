"""A finished study: every run, what each stage made of it, the chosen cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adamas.compare.search.grids import Grid
from adamas.compare.search.pilot import Pilot
from adamas.compare.search.selection import Winner
from adamas.compare.study.run import Outcome, Run
from adamas.compare.study.settings import Settings


@dataclass(frozen=True)
class Record:
    """A finished study.

    Attributes:
        settings: what was asked for, arms that came to nothing left out.
        specification: what the runs depend on.
        pilots: what the pilot of each arm found; empty where nothing was tuned.
        grids: the first runs of each arm.
        searched: all runs of each arm that its winner was chosen from, in the order in which they were asked for.
        winners: the chosen cells.
        outcomes: of every run, the pilot's and the finals' included.
        sweeps: the runs of a sweep over decay, by arm and variant of the job.
        lost: why an arm was left out, by arm.
    """

    settings: Settings
    specification: dict[str, Any]
    pilots: dict[str, Pilot]
    grids: dict[str, Grid]
    searched: dict[str, list[Run]]
    winners: dict[str, Winner]
    outcomes: dict[Run, Outcome]
    sweeps: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def pilot(self) -> Pilot | None:
        """Adam's pilot, which measured the gradients; None where nothing was tuned."""
        return self.pilots.get("none")

    @property
    def title(self) -> dict[str, str]:
        """How sentences call each arm."""
        return {name: arm.title for name, arm in self.settings.arms.items()}

    def finals(self, arm: str) -> list[Outcome]:
        """The finalists of an arm, by seed."""
        return [self.outcomes[run] for run in self.winners[arm].finals(self.settings.seeds)]
