"""The maps of what each arm tried: validation figure over learning rate and weight decay, on one colour scale.

Figures are plain Plotly data. Colours are names of the page's CSS variables, which its script resolves, so that a
figure follows the page into dark mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.compare.report.cell_text import hover, power, short, text_rows
from adamas.compare.search.grids import Grid
from adamas.compare.search.selection import scores
from adamas.compare.study.run import Config, Run
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import TIMES
from adamas.decay import from_independent, to_independent

WORST_SHOWN = 0.5  # quantile of all cells from which on the scale tells them no further apart
SCALE = [[i / 4, f"var(--scale-{i})"] for i in range(5)]


@dataclass(frozen=True)
class Scale:
    """The figures at the ends of the common colour scale; beyond `worst` every cell has the last colour."""

    best: float
    worst: float


@dataclass(frozen=True)
class Map:
    """An arm's map: what the page needs around the figure, and the figure."""

    arm: str
    title: str
    caption: str
    lone: bool  # one column wide: without decay
    figure: dict[str, Any]
    rows: list[dict[str, str]]  # the same cells as text, for readers without the figure


def maps(result: Summary) -> tuple[Scale, list[Map]]:
    """The maps of all arms and their common scale."""
    record = result.record
    metric = record.settings.workload.metric
    found = {arm: scores(runs, record.outcomes, metric) for arm, runs in record.searched.items()}
    values = [value for points in found.values() for value in points.values() if math.isfinite(value)]
    scale = Scale(min(values), float(np.quantile(values, WORST_SHOWN)))
    return scale, [
        Map(
            arm,
            record.title[arm],
            "No decay" if arm == "none" else record.title[arm],
            record.grids[arm].decays == (0.0,),
            figure(result, arm, points, scale, rate_range(result, arm, found)),
            text_rows(result, arm, points),
        )
        for arm, points in found.items()
    ]


def rate_range(result: Summary, arm: str, found: dict[str, dict[Config, float]]) -> tuple[float, float]:
    """Limits of the axis of learning rates: the same for all arms whose grids have the same ones."""
    grids = result.record.grids
    lrs = [lr for other, points in found.items() if grids[other].lrs == grids[arm].lrs for lr, _ in points]
    pad = 0.5 * math.log10(grids[arm].lr_step)
    return math.log10(min(lrs)) - pad, math.log10(max(lrs)) + pad


def figure(
    result: Summary, arm: str, points: dict[Config, float], scale: Scale, rows: tuple[float, float]
) -> dict[str, Any]:
    """One arm's map: the grid as cells, later runs as smaller squares, the chosen cell ringed."""
    record = result.record
    grid, winner = record.grids[arm], record.winners[arm]
    first = {(run.lr, run.weight_decay) for run in grid.runs()}
    later = [point for point in points if point not in first]
    columns = [position(decay) for decay in grid.decays]
    chosen = (winner.lr, winner.weight_decay)
    traces: list[dict[str, Any]] = [
        grid_trace(result, arm, points, scale),
        written(result, arm, points, scale),
        squares(result, arm, {point: points[point] for point in later}, scale),
        crosses(result, arm, [point for point in later if math.isinf(points[point])]),
        {
            "type": "scatter",
            "mode": "markers",
            "x": [position(to_independent(chosen[1], chosen[0]))],
            "y": [math.log10(chosen[0])],
            "marker": {"symbol": "circle-open", "size": 18, "color": "var(--mark)", "line": {"width": 3}},
            "hoverinfo": "skip",
        },
        # Nothing to see: an axis is drawn only where a trace uses it.
        {
            "type": "scatter",
            "x": [columns[0]],
            "y": [math.log10(grid.lrs[0])],
            "xaxis": "x2",
            "opacity": 0,
            "hoverinfo": "skip",
        },
    ]
    shown = [position(to_independent(decay, lr)) for lr, decay in points]
    half = 0.5 if len(columns) == 1 else 0.5 * (columns[1] - columns[0])
    return {"data": traces, "layout": layout(grid, winner.lr, rows, (min(shown) - half, max(shown) + half))}


def position(decay: float) -> float:
    """Where a column lies: the logarithm of lr * weight_decay, 0 for no decay, which stands alone."""
    return math.log10(decay) if decay > 0 else 0.0


def grid_trace(result: Summary, arm: str, points: dict[Config, float], scale: Scale) -> dict[str, Any]:
    """The grid as a heat map."""
    grid = result.record.grids[arm]
    runs = [[grid.run(lr, decay) for decay in grid.decays] for lr in grid.lrs]
    values = [[points[run.config] for run in row] for row in runs]
    return {
        "type": "heatmap",
        "x": [position(decay) for decay in grid.decays],
        "y": [math.log10(lr) for lr in grid.lrs],
        "z": [[min(value, scale.worst) if math.isfinite(value) else None for value in row] for row in values],
        "customdata": [[hover(result, run, points[run.config]) for run in row] for row in runs],
        "hovertemplate": "%{customdata}<extra></extra>",
        "zmin": scale.best,
        "zmax": scale.worst,
        "colorscale": SCALE,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }


def written(result: Summary, arm: str, points: dict[Config, float], scale: Scale) -> dict[str, Any]:
    """The figures of the grid, in the upper part of their cells: the squares of later runs may need the middle."""
    grid = result.record.grids[arm]
    up = 0.26 * math.log10(grid.lr_step)
    runs = [grid.run(lr, decay) for lr in grid.lrs for decay in grid.decays]
    values = [points[run.config] for run in runs]
    half = 0.5 * (scale.best + scale.worst)
    return {
        "type": "scatter",
        "mode": "text",
        "x": [position(decay) for _ in grid.lrs for decay in grid.decays],
        "y": [math.log10(lr) + up for lr in grid.lrs for _ in grid.decays],
        "text": [short(result, arm, run.config, value) for run, value in zip(runs, values, strict=True)],
        "textfont": {"size": 11, "color": [f"var(--on-{'strong' if value < half else 'weak'})" for value in values]},
        "hoverinfo": "skip",
    }


def squares(result: Summary, arm: str, points: dict[Config, float], scale: Scale) -> dict[str, Any]:
    """The runs after the grid, on the same scale."""
    finite = {point: value for point, value in points.items() if math.isfinite(value)}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [position(to_independent(decay, lr)) for lr, decay in finite],
        "y": [math.log10(lr) for lr, _ in finite],
        "customdata": [hover(result, Run("refine", arm, *point, 0), value) for point, value in finite.items()],
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {
            "symbol": "square",
            "size": 9,
            "color": [min(value, scale.worst) for value in finite.values()],
            "cmin": scale.best,
            "cmax": scale.worst,
            "colorscale": SCALE,
            "line": {"width": 1.5, "color": "var(--square)"},
        },
    }


def crosses(result: Summary, arm: str, points: list[Config]) -> dict[str, Any]:
    """The runs after the grid that came to no figure, each with the sign of why."""
    return {
        "type": "scatter",
        "mode": "text",
        "x": [position(to_independent(decay, lr)) for lr, decay in points],
        "y": [math.log10(lr) for lr, _ in points],
        "text": [short(result, arm, point, math.inf) for point in points],
        "textfont": {"size": 11, "color": "var(--muted)"},
        "customdata": [hover(result, Run("refine", arm, *point, 0), math.inf) for point in points],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def layout(grid: Grid, lr: float, rows: tuple[float, float], across: tuple[float, float]) -> dict[str, Any]:
    """Axes: learning rate; decay in the paper's convention below, in torch's at the chosen learning rate above."""
    decays, lone = grid.decays, len(grid.decays) == 1
    x = {
        "range": list(across),
        "tickvals": [position(decay) for decay in decays],
        "tickangle": 0,
        "showgrid": False,
        "zeroline": False,
        "fixedrange": True,
    }
    below = ["0"] if lone else [power(decay) for decay in decays]
    above = [""] if lone else [power(from_independent(decay, lr)) for decay in decays]
    y = {
        "range": list(rows),
        "tickvals": [math.log10(rate) for rate in grid.lrs],
        "ticktext": [power(rate) for rate in grid.lrs],
        "showgrid": False,
    }
    return {
        "height": 380,
        "margin": {"l": 58, "r": 8, "t": 62, "b": 62},
        "showlegend": False,
        "xaxis": {
            **x,
            "ticktext": below,
            "title": {"text": "no decay" if lone else f"lr {TIMES} weight_decay (independent)"},
        },
        "xaxis2": {
            **x,
            "ticktext": above,
            "overlaying": "x",
            "side": "top",
            "title": {"text": "" if lone else f"weight_decay (torch) at lr {power(lr)}"},
        },
        "yaxis": {**y, "title": {"text": "learning rate"}, "zeroline": False, "fixedrange": True},
    }
