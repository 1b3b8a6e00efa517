"""What the user asked for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

from adamas.compare.study.arms import ARMS, DEFAULT, Arm, choose
from adamas.compare.study.budgets import BUDGETS, Budget
from adamas.compare.study.budgets import find as find_budget
from adamas.compare.study.margin import Margin
from adamas.compare.study.workload import Workload


def default_workers(device: str) -> int:
    """Return the number of workers: one for each core that this process may use, or one where they share a GPU."""
    if device != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Options:
    """What the user asked for, read and checked before anything is imported or started for a job.

    Attributes:
        arms: The candidates by name.
        budget: How many runs each arm may spend.
        margin: The smallest difference that matters; None takes the workload's.
        out: The folder of the trials and the report.
        seeds: Paired seeds of the finalists.
        metric: The primary metric; None takes the job's.
        device: The device to train on.
        workers: The number of worker processes; 0 trains in the calling process.
        storage: A database URL for the trials; None keeps them in `out`.
        fresh: Whether to discard the runs of an earlier call.
    """

    arms: dict[str, Arm]
    budget: Budget
    margin: Margin | None
    out: Path
    seeds: int = 8
    metric: str | None = None
    device: str = "cpu"
    workers: int = 0
    storage: str | None = None
    fresh: bool = False

    @classmethod
    def read(
        cls,
        arms: str | Iterable[str] = DEFAULT,
        budget: str = "standard",
        trials: int | None = None,
        margin: str | float | None = None,
        out: str | os.PathLike[str] | None = None,
        **given: Any,
    ) -> Options:
        """Read the arguments of `compare`; an error names the value, the rule and the fix."""
        chosen = find_budget(budget)
        if trials is not None:
            chosen = chosen.with_trials(trials)
        if given.get("workers") is None:
            given["workers"] = default_workers(given.get("device", "cpu"))
        read = None if margin is None else Margin.parse(margin)
        options = cls(choose(arms), chosen, read, Path("report" if out is None else out), **given)
        _check_counts(options.seeds, options.workers)
        return options

    def settings(self, workload: Workload) -> Settings:
        """Return the settings of a study of this workload."""
        return Settings(
            workload=workload,
            arms=self.arms,
            budget=self.budget,
            seeds=self.seeds,
            margin=self.margin or Margin.parse(workload.margin),
            workers=self.workers,
            storage=self.storage,
            out=self.out,
            fresh=self.fresh,
        )


def _check_counts(seeds: int, workers: int) -> None:
    """Refuse numbers that no study could run with."""
    for name, value, least, why in (
        ("seeds", seeds, 2, "a spread needs two"),
        ("workers", workers, 0, "with 0, the calling process trains the runs itself"),
    ):
        if value < least:
            raise ValueError(f"{name}={value} must be >= {least}: {why}")


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
    workers: int = field(default_factory=lambda: default_workers("cpu"))
    storage: str | None = None
    out: Path = Path("report")
    fresh: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no study could run with."""
        _check_counts(self.seeds, self.workers)
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
