"""Line charts as Plotly data. Lines differ in colour, dashes and markers: colour alone never tells them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from adamas.page.text import plain

_COLOURS = 5  # --line-0 to --line-4 of the page
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
_LOGARITHMIC = 10.0  # the vertical axis is logarithmic if its largest figure is more than this times its smallest


def line(number: int, name: str, x: Sequence[float], y: Sequence[float], unit: str) -> dict[str, Any]:
    """Return the trace of the `number`-th line; figures that are inf or NaN leave a gap."""
    colour = f"var(--line-{number % _COLOURS})"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(name),
        "x": list(x),
        "y": [value if math.isfinite(value) else None for value in y],
        "line": {"color": colour, "width": 2, "dash": _DASHES[number % len(_DASHES)]},
        "marker": {"color": colour, "size": 6, "symbol": _SYMBOLS[number % len(_SYMBOLS)]},
        "hovertemplate": f"{plain(name)}<br>{plain(unit)} %{{x:.3~g}}<br>%{{y:.4~g}}<extra></extra>",
    }


def level(name: str, ends: tuple[float, float], height: float) -> dict[str, Any]:
    """Return the trace of a thin horizontal line that marks a level."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        "x": list(ends),
        "y": [height, height],
        "line": {"color": "var(--muted)", "width": 1, "dash": "dot"},
        "hovertemplate": f"{plain(name)} %{{y:.4~g}}<extra></extra>",
    }


def chart(
    traces: list[dict[str, Any]],
    x_title: str,
    y_title: str,
    logarithmic: bool = False,
    within: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Return a figure of lines with its legend below.

    Args:
        traces: Traces of `line` and `level`.
        x_title: The title of the horizontal axis.
        y_title: The title of the vertical axis.
        logarithmic: Whether the horizontal axis is logarithmic.
        within: The ends of the vertical axis; None shows all figures.
    """
    heights = [value for trace in traces for value in trace["y"] if value is not None]
    low, high = within or (min(heights, default=0.0), max(heights, default=0.0))
    wide = low > 0 and high > _LOGARITHMIC * low
    legend = 18 * len(traces)  # on a phone each name has a line of its own
    return {
        "data": traces,
        "layout": {
            "height": 300 + legend,
            "margin": {"l": 62, "r": 12, "t": 12, "b": 52 + legend},
            "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
            "xaxis": {
                "title": {"text": plain(x_title), "standoff": 8},
                "type": "log" if logarithmic else "linear",
                "exponentformat": "power" if logarithmic else "none",
            },
            "yaxis": {
                "title": {"text": plain(y_title), "standoff": 6},
                "type": "log" if wide else "linear",
                **({"dtick": "D2"} if wide else {}),
                **({"range": _axis_range(low, high, wide)} if within else {}),
            },
        },
    }


def _axis_range(low: float, high: float, logarithmic: bool) -> list[float]:
    """Return the ends of an axis a little beyond two figures; Plotly expects logarithms on a logarithmic axis."""
    ends = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
    pad = 0.06 * (ends[1] - ends[0]) or 0.01 * abs(ends[1]) or 1.0
    return [ends[0] - pad, ends[1] + pad]
