"""All rows of a run, what they were measured on, and their JSON: a contract with its readers."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import adamas
from adamas.bench.measure import Effort
from adamas.bench.row import Row
from adamas.kernels import native

SCHEMA = 1  # raised whenever a key is added or renamed


@dataclass(frozen=True)
class Result:
    """A run.

    Attributes:
        versions: of everything measured.
        machine: processor, threads and instruction sets, best first.
        rounds: turns a row.
        complete: whether it was not stopped early.
        rows: one a scenario and peer.
    """

    versions: dict[str, str]
    machine: dict[str, Any]
    rounds: int
    complete: bool
    rows: list[Row]

    @classmethod
    def of(cls, rows: list[Row], effort: Effort, complete: bool) -> Result:
        """A run on this machine."""
        versions = {"adamas": adamas.__version__, "torch": torch.__version__, "python": platform.python_version()}
        for row in rows:
            versions |= row.versions
        machine = {"processor": processor(), "threads": effort.threads, "instruction_sets": native.isas()}
        return cls(versions, machine, effort.rounds, complete, rows)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "schema": SCHEMA,
            "versions": self.versions,
            "machine": self.machine,
            "rounds": self.rounds,
            "complete": self.complete,
            "rows": [row.to_json() for row in self.rows],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """From plain data."""
        fields = {key: value for key, value in data.items() if key != "schema"}
        fields["rows"] = [Row.from_json(row) for row in data["rows"]]
        return cls(**fields)

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_json(), indent=1) + "\n")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what `write` wrote."""
        return cls.from_json(json.loads(path.read_text()))


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
