"""The rows as a drawing: a panel for each scenario, a bar for each implementation."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.table import sections

OURS, OTHERS, LIMIT = "#0b6e99", "#c3c8cf", "#b3472f"
STYLE = {"svg.hashsalt": "adamas", "svg.fonttype": "none", "font.size": 8, "font.family": "sans-serif"}


def draw(results: list[Result], path: Path) -> None:
    """Write the drawing; the same rows give the same bytes. The panels of a scenario stand side by side."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = {
        (heading, index): measured
        for index, result in enumerate(results)
        for heading, rows in sections(result.rows).items()
        if (measured := [row for row in rows if row.figures is not None])
    }
    order = list(dict.fromkeys(heading for heading, _ in found))
    panels = sorted(found, key=lambda key: (order.index(key[0]), key[1]))
    with rc_context(STYLE):
        lines = max(1, (len(panels) + 1) // 2)
        figure = Figure(figsize=(10, 0.4 + 2.2 * lines), layout="constrained")
        for place, (heading, index) in enumerate(panels):
            on = f", {results[index].machine['processor']}" if len(results) > 1 else ""
            panel(figure.add_subplot(lines, 2, place + 1), found[heading, index], heading + on)
        save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write an SVG on white, so that it can be read on a dark page; the same drawing gives the same bytes."""
    figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


def panel(axes: Any, rows: list[Row], title: str) -> None:
    """Draw nanoseconds a parameter on a logarithmic axis, with a line where memory sets the limit."""
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
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("ns a parameter; dashed: the same bytes moved")


def number(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(rows: list[Row]) -> tuple[dict[str, float], float]:
    """Return nanoseconds a parameter, fastest first, and those of the memory pass.

    Our time is the median of the rows, and each peer's is ours divided by its ratio: each row was measured at another
    minute, and so only the ratios compare.
    """
    ours = statistics.median(row.figures.ours.seconds for row in rows if row.figures) / rows[0].parameters * 1e9
    bars = {"adamas": ours} | {row.peer: ours / row.figures.ratio for row in rows if row.figures}
    limit = ours / statistics.median(row.figures.memory_ratio for row in rows if row.figures)
    return dict(sorted(bars.items(), key=lambda bar: bar[1])), limit
