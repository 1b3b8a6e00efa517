"""The rows as a drawing: a panel a scenario, a bar an implementation."""

from __future__ import annotations

import statistics
from itertools import groupby
from pathlib import Path
from typing import Any

from adamas.bench.result import Result
from adamas.bench.row import Row

OURS, OTHERS, LIMIT = "#0b6e99", "#c3c8cf", "#b3472f"
STYLE = {"svg.hashsalt": "adamas", "svg.fonttype": "none", "font.size": 8, "font.family": "sans-serif"}


def draw(result: Result, path: Path) -> None:
    """Write the drawing; the same rows give the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    groups = [list(rows) for _, rows in groupby(result.rows, lambda row: (row.scenario, row.dtype, row.work))]
    groups = [measured for rows in groups if (measured := [row for row in rows if row.figures is not None])]
    with rc_context(STYLE):
        lines = (len(groups) + 1) // 2
        figure = Figure(figsize=(10, 0.4 + 2.2 * max(1, lines)), layout="constrained")
        for index, rows in enumerate(groups):
            panel(figure.add_subplot(max(1, lines), 2, index + 1), rows)
        save(figure, path)


def save(figure: Any, path: Path) -> None:
    """As SVG on white, so that it can be read on a dark page; the same drawing gives the same bytes."""
    figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


def panel(axes: Any, rows: list[Row]) -> None:
    """One scenario: nanoseconds a parameter, on a logarithmic axis; a line where memory sets the limit."""
    bars, limit = times(rows)
    names = list(bars)
    ours = bars["adamas"]
    axes.barh(names, [bars[name] for name in names], color=[OURS if name == "adamas" else OTHERS for name in names])
    axes.axvline(limit, color=LIMIT, linewidth=1, linestyle="--")
    for place, name in enumerate(names):
        label = f" {number(bars[name])} ns" + ("" if name == "adamas" else f", {number(bars[name] / ours)} x ours")
        axes.text(bars[name], place, label, va="center")
    axes.set_xscale("log")
    axes.set_xlim(min(limit, *bars.values()) / 2, max(bars.values()) * 12)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    first = rows[0]
    axes.set_title(f"{first.scenario}: a {first.work} in {first.dtype}", loc="left", fontweight="bold")
    axes.set_xlabel("ns a parameter; dashed: the same bytes moved")


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(rows: list[Row]) -> tuple[dict[str, float], float]:
    """Nanoseconds a parameter, fastest first, and those of the memory pass.

    Ours is the median of the rows, and each peer's is ours by its ratio: bars of one panel stand to each other as
    the ratios do, though each row had its own minute.
    """
    ours = statistics.median(row.figures.ours.seconds for row in rows if row.figures) / rows[0].parameters * 1e9
    bars = {"adamas": ours} | {row.peer: ours / row.figures.ratio for row in rows if row.figures}
    limit = ours / statistics.median(row.figures.memory_ratio for row in rows if row.figures)
    return dict(sorted(bars.items(), key=lambda bar: bar[1])), limit
