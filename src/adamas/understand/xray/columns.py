"""The columns of an X-ray: the figures of a layer, and how each is written."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from adamas.language import Language, Texts
from adamas.understand.xray.figures import Figures, Reading


class Column(NamedTuple):
    """One figure of a layer. Its title and its meaning are in the texts of each language."""

    key: str  # the attribute of `Figures`, and the key in dicts, files and texts
    form: Literal["text", "count", "number", "share"]  # how a cell is written
    brief: bool = True  # whether the terminal's table shows it

    def title(self, say: Texts) -> str:
        """Return the title in tables."""
        return say(f"column.{self.key}")

    def meaning(self, say: Texts) -> str:
        """Return what the figure says, in one sentence."""
        return say(f"meaning.{self.key}")


def texts(lang: Language) -> Texts:
    """Return the texts of an X-ray in a language."""
    return Texts(lang, Path(__file__).parent / "texts")


COLUMNS = (
    Column("layer", "text"),
    Column("elements", "count"),
    Column("rule", "text", False),
    Column("lr", "number", False),
    Column("weight_decay", "number", False),
    Column("rate_p10", "number"),
    Column("rate_p50", "number"),
    Column("rate_p90", "number"),
    Column("rate_norm", "number", False),
    Column("correlation", "number"),
    Column("rms", "number"),
    Column("rms_equilibrium", "number"),
    Column("rotation", "number"),
    Column("rotation_equilibrium", "number"),
    Column("decay_times_max", "number"),
    Column("timescale", "number"),
    Column("timescale_epochs", "number"),
    Column("lost", "share"),
    Column("equivalent", "number"),
    Column("equivalent_independent", "number"),
    Column("decay_part", "text", False),
)


def as_dict(figures: Figures, step: int, steps_per_epoch: float | None) -> dict[str, Any]:
    """Return the figures of one layer by key, with the timescale in epochs too."""
    found = asdict(figures)
    epochs = None if steps_per_epoch is None or found["timescale"] is None else found["timescale"] / steps_per_epoch
    return {"step": step, **{column.key: found.get(column.key, epochs) for column in COLUMNS}}


def dicts(reading: Reading, steps_per_epoch: float | None) -> list[dict[str, Any]]:
    """Return the figures of one step as dicts: first all layers together, then each layer."""
    return [as_dict(row, reading.step, steps_per_epoch) for row in reading.rows]


def cell(column: Column, value: Any) -> str:
    """Return a figure as text for a table; an unknown one is empty.

    Example:
        >>> cell(COLUMNS[1], 12345), cell(COLUMNS[5], 0.00012345), cell(COLUMNS[5], None)
        ('12,345', '0.000123', '')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if column.form == "text":
        return str(value)
    if column.form == "share":
        return f"{100 * value:.3g} %"
    return f"{value:,}" if column.form == "count" else f"{value:.3g}"


def shown(rows: list[dict[str, Any]], brief: bool) -> list[Column]:
    """Return the columns in which at least one row has a figure; for the terminal only the brief ones."""
    return [c for c in COLUMNS if (c.brief or not brief) and any(row[c.key] is not None for row in rows)]
