"""What the user asked for."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL, make_url

from adamas.compare.budgets import BUDGETS, Budget
from adamas.compare.margin import Margin
from adamas.compare.workload import Workload


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """One comparison.

    Attributes:
        workload: what is trained.
        budget: how many runs each arm gets.
        seeds: paired seeds of the finalists.
        margin: smallest difference that matters.
        workers: processes.
        storage: URL of the trials; None keeps them in `out`.
        out: folder of the report.
        fresh: discard what an earlier run left.
    """

    workload: Workload
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

    @property
    def storage_url(self) -> str:
        """Where the trials live."""
        if self.storage:
            return self.storage
        # A path may hold characters that mean something in a URL.
        return URL.create("sqlite", database=str(self.out / "trials.db")).render_as_string()

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
        parts = ["adamas", "compare", self.workload.name, "--budget", self.budget.name, "--seeds", str(self.seeds)]
        return shlex.join([*parts, "--margin", str(self.margin), *extra])
