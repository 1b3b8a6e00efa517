"""The options of a command or call, and the settings of one study."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
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


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """The attributes that `Options` and `Settings` share.

    Attributes:
        arms: The candidates by name.
        budget: How many runs each arm may spend.
        seeds: The number of paired seeds of the finalists, at most; None takes the budget's.
        workers: The number of worker processes; 0 trains in the calling process.
        storage: A database URL for the trials; None keeps them in `out`.
        out: The folder of the trials and the report.
        fresh: Whether to discard the runs of an earlier call.
        timeout: The seconds that a run may take; None sets no limit.
    """

    arms: dict[str, Arm] = field(default_factory=lambda: {name: ARMS[name] for name in DEFAULT})
    budget: Budget = BUDGETS["standard"]
    seeds: int | None = None
    workers: int = field(default_factory=lambda: default_workers("cpu"))
    storage: str | None = None
    out: Path = Path("report")
    fresh: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers with which no study could run."""
        for name, value, least, why in (
            ("seeds", self.pairs, 2, "a spread needs two"),
            ("workers", self.workers, 0, "with 0, the calling process trains the runs itself"),
        ):
            if value < least:
                raise ValueError(f"{name}={value} must be >= {least}: {why}")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout={self.timeout:g} must be > 0: the seconds that a run may take")
        if self.timeout is not None and self.workers == 0:
            raise ValueError(
                f"timeout={self.timeout:g} needs workers >= 1: with workers=0 the calling process trains, and nothing "
                "can end its runs; leave timeout out, or use workers=1"
            )

    @property
    def pairs(self) -> int:
        """The number of paired seeds of the finalists, at most."""
        return self.budget.pairs if self.seeds is None else self.seeds


@dataclass(frozen=True, kw_only=True)
class Options(_Shared):
    """The options of a command or call, checked before a job is imported.

    Attributes:
        margin: The smallest difference that matters; None takes the workload's.
        metric: The primary metric; None takes the job's.
        device: The device to train on.
    """

    margin: Margin | None = None
    metric: str | None = None
    device: str = "cpu"

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
        return cls(arms=choose(arms), budget=chosen, margin=read, out=Path("report" if out is None else out), **given)

    def settings(self, workload: Workload) -> Settings:
        """Return the settings of a study of this workload."""
        shared = {each.name: getattr(self, each.name) for each in fields(_Shared)}
        return Settings(workload, margin=self.margin or Margin.parse(workload.margin), **shared)


@dataclass(frozen=True)
class Settings(_Shared):
    """The settings of one study; `Options` and `Settings` share the attributes of `_Shared`.

    Attributes:
        workload: The workload that is trained.
        margin: The smallest difference that matters.
    """

    workload: Workload
    margin: Margin = field(default_factory=Margin, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse settings with which no study could run."""
        super().__post_init__()
        settled = [arm for arm, _, _ in self.workload.fixed]
        if settled and (unsettled := [name for name in self.arms if name not in settled]):
            raise ValueError(
                f"the workload {self.workload.name} tunes nothing: theory gives settings for {', '.join(settled)}, but "
                f"not for {', '.join(unsettled)}; leave out what it has no settings for"
            )

    @property
    def trained_arms(self) -> dict[str, Arm]:
        """The candidates, and Adam without decay, which trains the pilot runs."""
        return {"none": ARMS["none"], **self.arms}

    @property
    def storage_url(self) -> str:
        """The database URL of the trials."""
        if self.storage:
            return self.storage
        # A path may hold characters that have a meaning in a URL.
        return URL.create("sqlite", database=str(self.out.absolute() / "trials.db")).render_as_string()

    @property
    def storage_shown(self) -> str:
        """The place of the trials for people to read, without a password."""
        return make_url(self.storage).render_as_string(hide_password=True) if self.storage else str(self.out)

    @property
    def study_name(self) -> str:
        """The name of the study in the storage."""
        return f"adamas compare {self.workload.name}"

    def command(self, seeds: int | None = None) -> str:
        """Return the command line that repeats this study, without the storage, which may name a password.

        Args:
            seeds: Another number of paired seeds, with which the command goes on with the study.
        """
        workload, budget = self.workload, self.budget
        options = {
            "budget": budget.base or budget.name,
            "seeds": seeds or self.seeds,
            "margin": self.margin,
            "trials": budget.trials if budget.base else None,
            "arms": ",".join(self.arms) if tuple(self.arms) != DEFAULT else None,
            "metric": workload.metric if workload.typed else None,  # without it, the job would choose
            "device": workload.device if workload.device != "cpu" else None,
        }
        parts = [part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))]
        return shlex.join(["adamas", "compare", workload.typed or workload.name, *parts])
