"""Intervals around 0 as Plotly data: a row for each, over the band of what is too small to matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_ROW_HEIGHT = 64  # pixels: enough for a label of four lines


@dataclass(frozen=True)
class Interval:
    """A mean with its interval.

    Attributes:
        label: The label of the row, for Plotly.
        mean: The mean.
        low: The lower end of the interval.
        high: The upper end of the interval.
        hover: The hover text of the mean, for Plotly.
        values: The single values that the mean is of.
        names: The hover text of each value, for Plotly.
    """

    label: str
    mean: float
    low: float
    high: float
    hover: str
    values: tuple[float, ...] = ()
    names: tuple[str, ...] = ()


def intervals(
    rows: list[Interval], band: float, title: str, sides: tuple[str, str], least_height: int = 0
) -> dict[str, Any]:
    """Return a figure of intervals around 0.

    Args:
        rows: The intervals, the lowest row first.
        band: Half the width of the shaded band.
        title: The title of the horizontal axis, for Plotly.
        sides: Notes above the left and the right side, for Plotly.
        least_height: The least height of the figure in pixels.
    """
    reach = 1.08 * max(1.15 * band, *(abs(end) for row in rows for end in (row.low, row.high, *row.values)))
    ends = {"x0": -band, "x1": band}
    full_height = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    return {
        "data": [trace for number, row in enumerate(rows) for trace in _row(row, number)],
        "layout": {
            "height": max(least_height, 98 + _ROW_HEIGHT * len(rows)),
            "margin": {"l": 112, "r": 12, "t": 40, "b": 48},
            "xaxis": {"title": {"text": title}, "range": [-reach, reach]},
            "yaxis": {
                "tickvals": list(range(len(rows))),
                "ticktext": [row.label for row in rows],
                "range": [-0.6, len(rows) - 0.4],
                "showgrid": False,
            },
            "shapes": [
                {**full_height, "type": "rect", **ends, "fillcolor": "var(--band)", "line": {"width": 0}},
                {**full_height, "type": "line", "x0": 0, "x1": 0, "line": {"color": "var(--muted)", "width": 1.5}},
            ],
            "annotations": [_note(0.0, "left", sides[0]), _note(1.0, "right", sides[1])],
        },
    }  # fmt: skip


def _row(row: Interval, number: int) -> list[dict[str, Any]]:
    """Return small open circles for the values, and below them the mean with its interval."""
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": list(row.values),
            "y": [number + 0.16] * len(row.values),
            "marker": {"symbol": "circle-open", "size": 8, "color": "var(--muted)"},
            "customdata": list(row.names),
            "hovertemplate": "%{customdata}<br>%{x:.3g}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [row.mean],
            "y": [number - 0.12],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [row.high - row.mean],
                "arrayminus": [row.mean - row.low],
                "color": "var(--mark)",
                "thickness": 3,
                "width": 7,
            },
            "marker": {"symbol": "diamond", "size": 12, "color": "var(--mark)"},
            "hovertemplate": f"{row.hover}<extra></extra>",
        },
    ]


def _note(x: float, anchor: str, text: str) -> dict[str, Any]:
    """Return a note above one side of the figure."""
    return {
        "xref": "paper", "yref": "paper", "x": x, "y": 1.0, "xanchor": anchor, "yanchor": "bottom",
        "text": text, "showarrow": False, "font": {"size": 12, "color": "var(--muted)"},
    }  # fmt: skip
