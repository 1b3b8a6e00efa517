"""How lines are told apart: by colour, and without it by dashes and markers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from adamas.compare.verdict.result import finite

COLOURS = 5  # --line-0 to --line-4 of the page
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
LOGARITHMIC = 10.0  # ratio of the largest to the smallest figure from which on an axis is logarithmic


def line(number: int, name: str, x: Sequence[float], y: Sequence[float], unit: str) -> dict[str, Any]:
    """The trace of the `number`-th line; figures that are not finite leave a gap."""
    colour = f"var(--line-{number % COLOURS})"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": [finite(value) for value in y],
        "line": {"color": colour, "width": 2, "dash": DASHES[number % len(DASHES)]},
        "marker": {"color": colour, "size": 6, "symbol": SYMBOLS[number % len(SYMBOLS)]},
        "hovertemplate": f"{name}<br>{unit} %{{x:.3~g}}<br>%{{y:.4~g}}<extra></extra>",
    }


def level(name: str, ends: tuple[float, float], height: float) -> dict[str, Any]:
    """A thin horizontal line that other lines are held against."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(ends),
        "y": [height, height],
        "line": {"color": "var(--muted)", "width": 1, "dash": "dot"},
        "hovertemplate": f"{name} %{{y:.4~g}}<extra></extra>",
    }


def chart(
    traces: list[dict[str, Any]],
    across: str,
    up: str,
    logarithmic: bool = False,
    within: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """A figure of lines with its legend below.

    Args:
        traces: of `line` and `level`.
        across: title of the horizontal axis.
        up: title of the vertical axis.
        logarithmic: said of the horizontal axis.
        within: where the vertical axis ends; None shows everything.
    """
    heights = [value for trace in traces for value in trace["y"] if value is not None]
    low, high = within or (min(heights, default=0.0), max(heights, default=0.0))
    wide = low > 0 and high > LOGARITHMIC * low
    legend = 18 * len(traces)  # on a phone each name has a line of its own
    return {
        "data": traces,
        "layout": {
            "height": 300 + legend,
            "margin": {"l": 62, "r": 12, "t": 12, "b": 52 + legend},
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
            "xaxis": {
                "title": {"text": across, "standoff": 8},
                "type": "log" if logarithmic else "linear",
                "exponentformat": "power" if logarithmic else "none",
                "zeroline": False,
                "fixedrange": True,
            },
            "yaxis": {
                "title": {"text": up, "standoff": 6},
                "type": "log" if wide else "linear",
                **({"dtick": "D2"} if wide else {}),
                **({"range": frame(low, high, wide)} if within else {}),
                "zeroline": False,
                "fixedrange": True,
            },
        },
    }


def frame(low: float, high: float, logarithmic: bool) -> list[float]:
    """The ends of an axis a little beyond two figures, as Plotly wants them: logarithms on a logarithmic axis."""
    ends = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
    pad = 0.06 * (ends[1] - ends[0]) or 0.01 * abs(ends[1]) or 1.0
    return [ends[0] - pad, ends[1] + pad]
