"""The columns of an X-ray: for each figure its key, its title, its unit and its meaning."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

from adamas.understand.xray.figures import Figures, Reading


class Column(NamedTuple):
    """One figure of a layer."""

    key: str  # the attribute of `Figures`, and the key in dicts and files
    title: str  # the title in tables
    form: Literal["text", "count", "number", "share"]  # how a cell is written
    meaning: str  # what the figure says, in one sentence
    brief: bool = True  # whether the terminal's table shows it


COLUMNS = (
    Column("layer", "layer", "text", "The name of the parameter."),
    Column("elements", "weights", "count", "The number of weights."),
    Column("rule", "decay", "text", "The rule of weight decay: l2, lr, independent, corrected, or none.", False),
    Column("lr", "lr", "number", "The learning rate of the step.", False),
    Column("weight_decay", "weight_decay", "number", "The weight decay in the parameter group.", False),
    Column("rate_p10", "rate 10 %", "number", "Decay takes a smaller share of a tenth of the weights in this step."),
    Column("rate_p50", "rate 50 %", "number", "The median share of a weight that decay takes in this step."),
    Column("rate_p90", "rate 90 %", "number", "Decay takes a larger share of a tenth of the weights in this step."),
    Column("rate_norm", "rate of norm", "number", "The share by which decay shrinks the norm in this step.", False),
    Column(
        "correlation", "corr(rate, √v)", "number",
        "The correlation of log rate with log √v: -1 where large gradients weaken decay, none where all decay alike.",
    ),
    Column("rms", "RMS", "number", "The root mean square of the weights."),
    Column("rms_equilibrium", "RMS settles at", "number", "The RMS at which noise and decay balance."),
    Column("rotation", "turn a step", "number", "The angle in radians by which the layer's weights turn in this step."),
    Column("rotation_equilibrium", "turn settles at", "number", "The angle a step once the norm has settled."),
    Column(
        "decay_times_max", "wd·max|θ|", "number",
        "The equivalent weight decay times the largest weight: at most 1 where AdamW has converged.",
    ),
    Column("timescale", "timescale", "number", "The number of steps over which weights average their updates."),
    Column("timescale_epochs", "epochs", "number", "The same in epochs, where the steps of an epoch are given."),
    Column("lost", "lost", "share", "The share of weights that rounding kept where the step would have changed them."),
    Column("equivalent", "AdamW wd", "number", "The AdamW weight decay that decays the median weight alike (torch's)."),
    Column("equivalent_independent", "AdamW wd (paper)", "number", "The same in the paper's convention: lr times it."),
    Column("decay_part", "decay part", "text", "Whether the decay part is exact, or an approximation.", False),
)  # fmt: skip


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
