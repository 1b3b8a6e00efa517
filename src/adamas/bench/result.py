"""The result of a run: its rows, the machine, the versions, and their JSON, which is a contract with its readers."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import adamas
from adamas.bench.clock import Effort
from adamas.bench.device import Device
from adamas.bench.row import Row
from adamas.whole_file import write_whole

SCHEMA = 1  # raised whenever a key is renamed or removed


@dataclass
class Result:
    """All rows of one run on one machine.

    Attributes:
        versions: versions of everything that was measured.
        machine: what the device says of itself, see `adamas.bench.device`; "dry" is True for a dry run.
        rounds: number of rounds of each row.
        complete: whether every row was reached.
        rows: one row for each scenario and peer.
        seconds: seconds that the run took; None where there was no deadline.
    """

    versions: dict[str, str]
    machine: dict[str, Any]
    rounds: int
    complete: bool = False
    rows: list[Row] = field(default_factory=list[Row])
    seconds: float | None = None

    @classmethod
    def of(cls, device: Device, effort: Effort) -> Result:
        """Return the result of a run that begins now, without rows."""
        versions = {"adamas": adamas.__version__, "torch": torch.__version__, "python": platform.python_version()}
        versions |= {package: version(package) for package in device.packages if find_spec(package) is not None}
        return cls(versions, device.describe(effort.threads), effort.rounds)

    def add(self, row: Row) -> None:
        """Append a row and the versions that it names."""
        self.rows.append(row)
        self.versions |= row.versions

    @property
    def verdicts(self) -> list[tuple[str, bool]]:
        """Each measured limit in words, and whether it is kept."""
        return [(f"{row}: {name}", held) for row in self.rows for name, held in row.verdicts.items()]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        fields = {"schema": SCHEMA, **vars(self), "rows": [row.to_json() for row in self.rows]}
        return {key: value for key, value in fields.items() if value is not None}

    def write(self, path: Path) -> None:
        """Write the JSON to a file."""
        write_whole(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Return the result that `write` wrote."""
        fields: dict[str, Any] = json.loads(path.read_text())
        del fields["schema"]
        fields["rows"] = [Row.from_json(row) for row in fields["rows"]]
        return cls(**fields)
