"""What the user asked for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL, make_url

from adamas.compare.runner.crew import cores
from adamas.compare.search import pilot
from adamas.compare.search.sweep import RANGE
from adamas.compare.study.arms import ARMS, DEFAULT, JUDGED, Arm
from adamas.compare.study.budgets import BUDGETS, Budget
from adamas.compare.study.margin import Margin
from adamas.compare.study.workload import Workload


@dataclass(frozen=True)
class Settings:
    """One comparison.

    Attributes:
        workload: what is trained.
        arms: the candidates by name.
        budget: how many runs each arm gets.
        seeds: paired seeds of the finalists.
        margin: smallest difference that matters.
        workers: processes.
        storage: URL of the trials; None keeps them in `out`.
        out: folder of the report.
        fresh: discard what an earlier run left.
    """

    workload: Workload
    arms: dict[str, Arm] = field(default_factory=lambda: {name: ARMS[name] for name in DEFAULT})
    budget: Budget = BUDGETS["standard"]
    seeds: int = 8
    margin: Margin = field(default_factory=Margin)
    workers: int = field(default_factory=cores)
    storage: str | None = None
    out: Path = Path("report")
    fresh: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no study could run with."""
        for name, least, why in (
            ("seeds", 2, "a spread needs two"),
            ("workers", 1, "somebody has to do the work"),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be >= {least}: {why}")
        settled = [arm for arm, _, _ in self.workload.fixed]
        if settled and (unsettled := [name for name in self.arms if name not in settled]):
            raise ValueError(
                f"the workload {self.workload.name} tunes nothing: its settings follow from theory, for "
                f"{', '.join(settled)} alone, not for {', '.join(unsettled)}"
            )

    @property
    def trained_arms(self) -> dict[str, Arm]:
        """The candidates, and Adam without decay, which makes the pilot."""
        return {"none": ARMS["none"], **self.arms}

    @property
    def storage_url(self) -> str:
        """Where the trials live."""
        if self.storage:
            return self.storage
        # A path may hold characters that mean something in a URL.
        return URL.create("sqlite", database=str(self.out.absolute() / "trials.db")).render_as_string()

    @property
    def storage_shown(self) -> str:
        """Where the trials live, for people: without a password."""
        return make_url(self.storage).render_as_string(hide_password=True) if self.storage else str(self.out)

    @property
    def study_name(self) -> str:
        """Name of the study in the storage."""
        return f"adamas compare {self.workload.name}"

    @property
    def pilot_runs(self) -> int:
        """Runs that the pilots begin with."""
        if self.workload.fixed:
            return 0
        return len({cell for arm in self.trained_arms.values() for cell in pilot.cells(arm, self.budget)})

    @property
    def total_runs(self) -> int:
        """Runs of the whole study, if no pilot goes beyond its range."""
        finals = len(self.arms) * self.seeds
        if self.workload.fixed:
            return finals
        sweeps = len(JUDGED) * len(RANGE) * (1 + len(self.workload.variants)) if self.workload.variants else 0
        return self.pilot_runs + len(self.arms) * self.budget.trials + sweeps + finals

    def command(self, *extra: str) -> str:
        """The command line that repeats this comparison; the storage may name a password and is left out."""
        workload, budget = self.workload, self.budget
        parts = ["adamas", "compare", workload.typed or workload.name, "--budget", budget.base or budget.name]
        parts += ["--seeds", str(self.seeds), "--margin", str(self.margin)]
        if budget.base:
            parts += ["--trials", str(budget.trials)]
        if tuple(self.arms) != DEFAULT:
            parts += ["--arms", ",".join(self.arms)]
        if workload.typed:  # or Job.metric would decide
            parts += ["--metric", workload.metric]
        if workload.device != "cpu":
            parts += ["--device", workload.device]
        return shlex.join([*parts, *extra])
