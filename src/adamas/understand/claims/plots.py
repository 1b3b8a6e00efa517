"""Intervals as Plotly data: one row a comparison, with the band of differences that do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adamas.page.text import plain
from adamas.understand.claims.claim import Estimate

_ROW = 56  # pixels of a row


def intervals(rows: Mapping[str, Estimate], x_title: str, margin: float) -> dict[str, Any]:
    """Return a figure of means with their intervals, in percent, over a band of the margin.

    Args:
        rows: The estimates by label, from top to bottom.
        x_title: The title of the horizontal axis.
        margin: Half the width of the band, as a fraction.
    """
    labels = [plain(label) for label in list(rows)[::-1]]
    found = list(rows.values())[::-1]
    line = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [100 * each.value for each in found],
        "y": list(range(len(found))),
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [100 * (each.high - each.value) for each in found],
            "arrayminus": [100 * (each.value - each.low) for each in found],
            "color": "var(--mark)",
            "thickness": 3,
            "width": 7,
        },
        "marker": {"symbol": "diamond", "size": 12, "color": "var(--mark)"},
        "hovertemplate": "%{x:.2f}%<extra></extra>",
    }
    return {
        "data": [trace],
        "layout": {
            "height": 120 + _ROW * len(found),
            "margin": {"l": 150, "r": 12, "t": 12, "b": 48},
            "showlegend": False,
            "xaxis": {"title": {"text": f"{plain(x_title)}, %", "standoff": 8}},
            "yaxis": {
                "tickvals": list(range(len(found))),
                "ticktext": labels,
                "range": [-0.6, len(found) - 0.4],
                "showgrid": False,
            },
            "shapes": [
                {**line, "type": "rect", "x0": -100 * margin, "x1": 100 * margin, "fillcolor": "var(--band)",
                 "line": {"width": 0}},
                {**line, "type": "line", "x0": 0, "x1": 0, "line": {"color": "var(--muted)", "width": 1.5}},
            ],
        },
    }  # fmt: skip
