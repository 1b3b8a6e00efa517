"""All rows of a run on a GPU, what they were measured on, and their JSON: a contract with its readers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.row import PeakRow, Row

SCHEMA = 1  # raised whenever a key is added or renamed


@dataclass
class Result:
    """A run.

    Attributes:
        dry: whether it ran on a CPU, on next to nothing: then no figure means anything.
        complete: whether every row was reached.
        seconds: that it took.
        rounds: turns a row.
        versions: of everything measured.
        device: name, memory and what nvidia-smi says.
        ceilings: "copy_bandwidth" in bytes a second, read and written, at the start and, as "copy_bandwidth_after", at
            the end; "matrix_rate" in operations a second, of bfloat16.
        rows: of time.
        peaks: of memory.
    """

    dry: bool
    complete: bool
    seconds: float
    rounds: int
    versions: dict[str, str]
    device: dict[str, Any]
    ceilings: dict[str, float]
    rows: list[Row] = field(default_factory=list[Row])
    peaks: list[PeakRow] = field(default_factory=list[PeakRow])

    @property
    def verdicts(self) -> list[tuple[str, bool]]:
        """Each limit that was measured, in words, and whether it holds."""
        found: list[tuple[str, bool]] = []
        for row in self.rows:
            what = f"{row.scenario}, {row.work}, {row.format} beside {row.peer} ({row.peer_dtype})"
            found += [(f"{what}: {name}", held) for name, held in row.verdicts.items()]
        for row in self.peaks:
            what = f"{row.scenario}, {row.format}{', gradients released' if row.released else ''}"
            found += [(f"{what}: {name}", held) for name, held in row.verdicts.items()]
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "schema": SCHEMA,
            **{key: value for key, value in vars(self).items() if key not in ("rows", "peaks")},
            "rows": [row.to_json() for row in self.rows],
            "peaks": [row.to_json() for row in self.peaks],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """From plain data."""
        fields = {key: value for key, value in data.items() if key != "schema"}
        fields["rows"] = [Row.from_json(row) for row in data["rows"]]
        fields["peaks"] = [PeakRow.from_json(row) for row in data["peaks"]]
        return cls(**fields)

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what `write` wrote."""
        return cls.from_json(json.loads(path.read_text()))
