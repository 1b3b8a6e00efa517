"""A run and its JSON: a contract with its readers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.tracking.experiment import Scenario

SCHEMA = 1  # raised whenever a key is added or renamed
DIGITS = 5
PATH = Path(__file__).parents[1] / "results" / "tracking.json"


@dataclass(frozen=True)
class Result:
    """A run.

    Attributes:
        scenario: what was fed.
        steps: at which was recorded.
        curves: of each scheme, of each measure, a value a step; None where it is infinite.
    """

    scenario: Scenario
    steps: list[int]
    curves: dict[str, dict[str, list[float | None]]]

    @classmethod
    def of(cls, scenario: Scenario, steps: list[int], records: dict[str, dict[str, list[float]]]) -> Result:
        """A run, its values rounded to what is worth keeping."""
        curves = {
            name: {key: [rounded(value) for value in values] for key, values in measures.items()}
            for name, measures in records.items()
        }
        return cls(scenario, steps, curves)

    def at(self, scheme: str, measure: str, step: int) -> float:
        """One value."""
        value = self.curves[scheme][measure][self.steps.index(step)]
        return math.inf if value is None else value

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all; a line a curve."""
        data: dict[str, Any] = {"schema": SCHEMA, "scenario": asdict(self.scenario), "steps": self.steps}
        head = json.dumps(data)[:-1]
        schemes = [
            f"{json.dumps(name)}: {{\n"
            + ",\n".join(f"  {json.dumps(key)}: {json.dumps(values)}" for key, values in measures.items())
            + "\n }"
            for name, measures in self.curves.items()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(f'{head},\n"curves": {{\n ' + ",\n ".join(schemes) + "\n}}\n")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what `write` wrote."""
        data = json.loads(path.read_text())
        scenario = data["scenario"] | {"betas": tuple(data["scenario"]["betas"])}
        return cls(Scenario(**scenario), data["steps"], data["curves"])


def rounded(value: float) -> float | None:
    """To a few digits; None for what JSON cannot say."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
