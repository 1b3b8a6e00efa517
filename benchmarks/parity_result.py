"""The runs of a parity study, their JSON, and the table made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adamas.compare.verdict.statistics import Difference, mean_and_sd, paired_difference
from benchmarks.markdown import line
from benchmarks.parity_variants import BASELINE, VARIANTS

SCHEMA = 1  # raised whenever a key is added or renamed


@dataclass(frozen=True)
class Run:
    """One finished training run.

    Attributes:
        workload: what was trained.
        variant: with which optimizer.
        seed: of weights, data order and torch's stream.
        validation: figures at the end of training; empty where it diverged.
        seconds: wall time.
        versions: of what it was made with.
    """

    workload: str
    variant: str
    seed: int
    validation: dict[str, float]
    seconds: float
    versions: dict[str, str]

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is a run of: two of one key would be the same computation."""
        return self.workload, self.variant, self.seed

    @property
    def loss(self) -> float:
        """The figure that is compared; infinite where training diverged."""
        return self.validation.get("cross_entropy", math.inf)


@dataclass
class Parity:
    """All finished runs and what they share.

    Attributes:
        recipes: of each workload, the hyperparameters, as plain data; runs made otherwise are not mixed with these.
        runs: in the order in which they finished.
    """

    recipes: dict[str, dict[str, Any]]
    runs: list[Run] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Parity:
        """Read what `write` wrote."""
        data = json.loads(path.read_text())
        return cls(data["recipes"], [Run(**run) for run in data["runs"]])

    def losses(self, workload: str, variant: str) -> dict[int, float]:
        """Losses by seed."""
        return {run.seed: run.loss for run in self.runs if (run.workload, run.variant) == (workload, variant)}

    def difference(self, workload: str, variant: str) -> Difference | None:
        """Variant minus float32 over the seeds that both have; None where that says nothing."""
        first, second = self.losses(workload, variant), self.losses(workload, BASELINE)
        seeds = sorted(first.keys() & second.keys())
        pairs = [first[seed] for seed in seeds], [second[seed] for seed in seeds]
        if len(seeds) < 2 or not all(map(math.isfinite, (*pairs[0], *pairs[1]))):
            return None
        return paired_difference(*pairs, relative=True)


def table(result: Parity) -> str:
    """Every variant of every workload beside float32, as Markdown."""
    lines = [
        line("workload", "variant", "seeds", "validation loss", "to float32", "95 % interval", "limit", "a run"),
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        row(result, workload, variant)
        for workload in result.recipes
        for variant in VARIANTS
        if result.losses(workload, variant)
    ]
    return "\n".join([*lines, "", *map(recipe, result.recipes.items()), "", made_with(result.runs)])


def row(result: Parity, workload: str, variant: str) -> str:
    """One variant of one workload."""
    losses = list(result.losses(workload, variant).values())
    diverged = losses.count(math.inf)
    mean, sd = (math.nan, math.nan) if diverged else mean_and_sd(losses)
    loss = f"{diverged} diverged" if diverged else f"{mean:.4f} ± {sd:.4f}" if len(losses) > 1 else f"{mean:.4f}"
    seconds = mean_and_sd([run.seconds for run in result.runs if (run.workload, run.variant) == (workload, variant)])[0]
    return line(workload, variant, str(len(losses)), loss, *compared(result, workload, variant), f"{seconds:.1f} s")


def compared(result: Parity, workload: str, variant: str) -> tuple[str, str, str]:
    """Difference, interval, and whether the limit is kept."""
    if variant == BASELINE:
        return "", "", ""
    limit = VARIANTS[variant].limit
    difference = result.difference(workload, variant)
    if difference is None:
        mean, interval, kept = "", "", "undecided"
    else:
        mean, interval = f"{difference.mean:+.2%}", f"{difference.low:+.2%} to {difference.high:+.2%}"
        kept = "within" if limit is not None and difference.high <= limit else "**over**"
    if math.inf in result.losses(workload, variant).values():
        kept = "**over**"
    return mean, interval, "" if limit is None else f"{limit:+.0%}: {kept}"


def recipe(entry: tuple[str, dict[str, Any]]) -> str:
    workload, used = entry
    return f"- {workload}: lr {used['lr']:g}, weight decay {used['weight_decay']:g}. {used['why']}"


def made_with(runs: Iterable[Run]) -> str:
    """All versions that took part."""
    found = sorted({f"{name} {number}" for run in runs for name, number in run.versions.items()})
    return f"Loss: mean ± sd over seeds. Made with {', '.join(found)}."
