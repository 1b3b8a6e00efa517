"""The figures of the finalists: the test figures of each seed, and the differences with their intervals."""

from __future__ import annotations

from typing import Any

from adamas.compare.report.text import wrapped
from adamas.compare.search.selection import FIRST_FINAL_SEED
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.statistics import Difference
from adamas.compare.verdict.wording import MINUS, figure, words

_LABELLED = 4  # most arms with their means as text; the texts of more arms would overlap
_ROW_HEIGHT = 64  # pixels: enough for a label of four lines


def seed_lines(result: Summary) -> dict[str, Any]:
    """Return a figure with a thin line for each seed across the arms, and a diamond for each mean."""
    metric = result.record.settings.workload.metric
    values = {name: arm.test[metric].values for name, arm in result.arms.items() if metric in arm.test}
    titles = [wrapped(result.record.title[name]) for name in values]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": titles,
            "y": list(row),
            "name": f"seed {FIRST_FINAL_SEED + seed}",
            "line": {"width": 1, "color": "var(--faint)"},
            "marker": {"size": 6, "color": "var(--muted)"},
            "hovertemplate": f"seed {FIRST_FINAL_SEED + seed}<br>%{{y:.4g}}<extra></extra>",
        }
        for seed, row in enumerate(zip(*values.values(), strict=True))
    ]
    means = [result.arms[name].test[metric].mean for name in values]
    below, right = (48, 0.25) if len(titles) <= 3 else (92, 0.05)  # Plotly slants four labels on a phone
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+text" if len(titles) <= _LABELLED else "markers",
            "x": titles,
            "y": means,
            "text": [f" {figure(mean)}" for mean in means],
            "textposition": "middle right",
            "marker": {"symbol": "diamond", "size": 12, "color": "var(--mark)"},
            "hovertemplate": "mean %{y:.4g}<extra></extra>",
        }
    )
    return {
        "data": traces,
        "layout": {
            "height": 360,
            "margin": {"l": 70, "r": 12, "t": 12, "b": below},
            "xaxis": {"range": [-0.35, len(titles) - right], "showgrid": False},
            "yaxis": {"title": {"text": f"test {words(metric)}"}},
        },
    }


def differences(result: Summary) -> dict[str, Any]:
    """Return a figure of the differences of all pairs, with means and 95% intervals, over the band of the margin."""
    title = result.record.title
    rows = [(f"{wrapped(title[arm])}<br>{MINUS} no decay", found) for arm, found in result.over_none.items()]
    if result.difference is not None:
        rows.append((f"<b>AdamW<br>{MINUS} Adam with L2</b>", result.difference))
    margin = result.record.settings.margin
    factor, unit = (100, "%") if margin.relative else (1, words(result.record.settings.workload.metric))
    band = margin.value * factor
    ends = [end * factor for _, found in rows for end in (found.low, found.high, *found.values)]
    reach = 1.08 * max(1.15 * band, *map(abs, ends))
    return {
        "data": [trace for row, (_, found) in enumerate(rows) for trace in _row_traces(found, row, factor)],
        "layout": {
            "height": max(360, 88 + _ROW_HEIGHT * len(rows)),
            "margin": {"l": 112, "r": 12, "t": 40, "b": 48},
            "xaxis": {"title": {"text": f"first {MINUS} second, {unit}"}, "range": [-reach, reach]},
            "yaxis": {
                "tickvals": list(range(len(rows))),
                "ticktext": [label for label, _ in rows],
                "range": [-0.6, len(rows) - 0.4],
                "showgrid": False,
            },
            "shapes": _margin_band(band),
            "annotations": [
                _side_note(0.0, "left", "← first<br>better"),
                _side_note(1.0, "right", "second →<br>better"),
            ],
        },
    }


def _margin_band(band: float) -> list[dict[str, Any]]:
    """Return a shaded band for the margin, and a vertical line at 0."""
    full_height = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    return [
        {**full_height, "type": "rect", "x0": -band, "x1": band, "fillcolor": "var(--band)", "line": {"width": 0}},
        {**full_height, "type": "line", "x0": 0, "x1": 0, "line": {"color": "var(--muted)", "width": 1.5}},
    ]


def _row_traces(found: Difference, row: int, factor: float) -> list[dict[str, Any]]:
    """Return small open circles for the pairs, and below them the mean with its interval."""
    pairs = [value * factor for value in found.values]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": pairs,
            "y": [row + 0.16] * len(pairs),
            "marker": {"symbol": "circle-open", "size": 8, "color": "var(--muted)"},
            "customdata": [FIRST_FINAL_SEED + seed for seed in range(len(pairs))],
            "hovertemplate": "seed %{customdata}<br>%{x:.3g}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [found.mean * factor],
            "y": [row - 0.12],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [(found.high - found.mean) * factor],
                "arrayminus": [(found.mean - found.low) * factor],
                "color": "var(--mark)",
                "thickness": 3,
                "width": 7,
            },
            "marker": {"symbol": "diamond", "size": 12, "color": "var(--mark)"},
            "hovertemplate": (
                f"mean {found.mean * factor:.3g}<br>95% interval {found.low * factor:.3g} to {found.high * factor:.3g}"
                "<extra></extra>"
            ),
        },
    ]


def _side_note(x: float, anchor: str, text: str) -> dict[str, Any]:
    """Return a note above one side of the figure."""
    return {
        "xref": "paper", "yref": "paper", "x": x, "y": 1.0, "xanchor": anchor, "yanchor": "bottom",
        "text": text, "showarrow": False, "font": {"size": 12, "color": "var(--muted)"},
    }  # fmt: skip
