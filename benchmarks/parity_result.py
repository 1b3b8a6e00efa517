"""The runs of a parity study, their JSON, and the table made of them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adamas.bench.result import write_whole
from adamas.compare.verdict.statistics import Difference, mean_and_sd, paired_difference
from benchmarks import markdown
from benchmarks.parity_variants import BASELINE, VARIANTS

SCHEMA = 1  # raised whenever a key is added or renamed
COLUMNS = ("workload", "variant", "seeds", "validation loss", "to float32", "95 % interval", "limit", "a run")


@dataclass(frozen=True)
class Run:
    """One finished training run.

    Attributes:
        workload: name of the workload.
        variant: name of the variant.
        seed: seed of weights, data order and torch's random stream.
        validation: figures at the end of training; empty where it diverged.
        seconds: seconds that it took.
        versions: versions of the packages that it was made with.
    """

    workload: str
    variant: str
    seed: int
    validation: dict[str, float]
    seconds: float
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, str, int]:
        """The identity of the run: two runs with the same key would be the same computation."""
        return self.workload, self.variant, self.seed

    @property
    def loss(self) -> float:
        """The loss that is compared; infinite where training diverged."""
        return self.validation.get("cross_entropy", math.inf)


@dataclass
class Parity:
    """All finished runs and their recipes.

    Attributes:
        recipes: hyperparameters of each workload as plain data; runs with others are not mixed with these.
        runs: runs in the order in which they finished.
    """

    recipes: dict[str, dict[str, Any]]
    runs: list[Run] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the JSON to a file."""
        write_whole(path, json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Parity:
        """Return the runs that `write` wrote."""
        data = json.loads(path.read_text())
        return cls(data["recipes"], [Run(**run) for run in data["runs"]])

    def of(self, workload: str, variant: str) -> list[Run]:
        """Return the runs of one variant of one workload."""
        return [run for run in self.runs if (run.workload, run.variant) == (workload, variant)]

    def difference(self, workload: str, variant: str) -> Difference | None:
        """Return variant minus float32 over the seeds that both have; None where that says nothing."""
        first, second = ({run.seed: run.loss for run in self.of(workload, name)} for name in (variant, BASELINE))
        seeds = sorted(first.keys() & second.keys())
        pairs = [first[seed] for seed in seeds], [second[seed] for seed in seeds]
        if len(seeds) < 2 or not all(map(math.isfinite, (*pairs[0], *pairs[1]))):
            return None
        return paired_difference(*pairs, relative=True)


def table(result: Parity) -> str:
    """Return a page's table of every variant of every workload beside float32, with recipes and versions."""
    rows = [
        row(result, workload, variant)
        for workload in result.recipes
        for variant in VARIANTS
        if result.of(workload, variant)
    ]
    recipes = [
        f"- {workload}: lr {used['lr']:g}, weight decay {used['weight_decay']:g}. {used['why']}"
        for workload, used in result.recipes.items()
    ]
    versions = sorted({f"{name} {number}" for run in result.runs for name, number in run.versions.items()})
    said = f"Loss: mean ± sd over seeds. Made with {', '.join(versions)}."
    return "\n".join([markdown.table(COLUMNS, rows), "", *recipes, "", said])


def row(result: Parity, workload: str, variant: str) -> tuple[str, ...]:
    """Return the cells of one variant of one workload."""
    runs = result.of(workload, variant)
    losses = [run.loss for run in runs]
    diverged = losses.count(math.inf)
    mean, sd = (math.nan, math.nan) if diverged else mean_and_sd(losses)
    loss = f"{diverged} diverged" if diverged else f"{mean:.4f} ± {sd:.4f}" if len(losses) > 1 else f"{mean:.4f}"
    seconds = mean_and_sd([run.seconds for run in runs])[0]
    return workload, variant, str(len(losses)), loss, *compared(result, workload, variant), f"{seconds:.1f} s"


def compared(result: Parity, workload: str, variant: str) -> tuple[str, str, str]:
    """Return the cells of the difference, its interval, and whether the limit is kept."""
    if variant == BASELINE:
        return "", "", ""
    limit = VARIANTS[variant].limit
    difference = result.difference(workload, variant)
    if difference is None:
        mean, interval, kept = "", "", "undecided"
    else:
        mean, interval = f"{difference.mean:+.2%}", f"{difference.low:+.2%} to {difference.high:+.2%}"
        kept = "within" if limit is not None and difference.high <= limit else "**over**"
    if any(math.isinf(run.loss) for run in result.of(workload, variant)):
        kept = "**over**"
    return mean, interval, "" if limit is None else f"{limit:+.0%}: {kept}"
