"""The heat maps of the search: each arm's validation figures over learning rate and weight decay.

All maps share one colour scale. Figures are plain Plotly data. Colours are names of the page's CSS variables; the
script of the page replaces them by the colours of light or dark mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.compare.report.text import Cells, short_number
from adamas.compare.search.grids import Grid
from adamas.compare.search.selection import scores
from adamas.compare.study.run import Config
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import TIMES
from adamas.decay import from_independent, to_independent

_WORST_SHOWN = 0.5  # quantile of all figures; higher figures all have the last colour of the scale
_COLOURS = [[i / 4, f"var(--scale-{i})"] for i in range(5)]
_Trace = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """The figures at the two ends of the common colour scale; figures above `worst` have the last colour."""

    best: float
    worst: float


@dataclass(frozen=True)
class Map:
    """An arm's map with its titles and its table.

    Attributes:
        arm: The name of the arm.
        title: The title of the arm in sentences.
        caption: The text above the figure.
        narrow: Whether the map has one column, because the arm has no decay.
        figure: The figure as Plotly data.
        rows: The cells as rows of text.
    """

    arm: str
    title: str
    caption: str
    narrow: bool
    figure: dict[str, Any]
    rows: list[dict[str, str]]


def maps(result: Summary) -> tuple[Scale, list[Map]]:
    """Return the common colour scale and the maps of all arms."""
    record = result.record
    metric = record.settings.workload.metric
    found = [Cells(result, arm, scores(runs, record.outcomes, metric)) for arm, runs in record.searched.items()]
    finite = [value for cells in found for value in cells.values.values() if math.isfinite(value)]
    scale = Scale(min(finite), float(np.quantile(finite, _WORST_SHOWN)))
    return scale, [
        Map(
            cells.arm,
            record.title[cells.arm],
            "No decay" if cells.arm == "none" else record.title[cells.arm],
            record.grids[cells.arm].decays == (0.0,),
            _figure(cells, scale, _rate_range(cells, found)),
            cells.rows(),
        )
        for cells in found
    ]


def _grid(cells: Cells) -> Grid:
    """Return the first runs of an arm."""
    return cells.result.record.grids[cells.arm]


def _rate_range(cells: Cells, found: list[Cells]) -> tuple[float, float]:
    """Return the ends of the axis of learning rates, which arms with equal learning rates in their grids share."""
    grid = _grid(cells)
    lrs = [config.lr for other in found if _grid(other).lrs == grid.lrs for config in other.values]
    pad = 0.5 * math.log10(grid.lr_step)
    return math.log10(min(lrs)) - pad, math.log10(max(lrs)) + pad


def _figure(cells: Cells, scale: Scale, rates: tuple[float, float]) -> dict[str, Any]:
    """Return one arm's map: the grid as cells, later runs as small squares, a ring around the chosen config."""
    grid, winner = _grid(cells), cells.result.record.winners[cells.arm]
    first = {run.config for run in grid.runs()}
    later = [config for config in cells.values if config not in first]
    ring = {"symbol": "circle-open", "size": 18, "color": "var(--mark)", "line": {"width": 3}}
    chosen = Config(winner.lr, winner.weight_decay)
    columns = [_column(decay) for decay in grid.decays]
    shown = [_place(config)[0] for config in cells.values]
    half = 0.5 if len(columns) == 1 else 0.5 * (columns[1] - columns[0])
    return {
        "data": [
            _grid_trace(cells, scale),
            _grid_text(cells, scale),
            _squares(cells, scale, [config for config in later if math.isfinite(cells.values[config])]),
            _signs(cells, [config for config in later if math.isinf(cells.values[config])]),
            _scatter([chosen], mode="markers", marker=ring, hoverinfo="skip"),
            # Plotly draws an axis only if a trace uses it; this trace is invisible.
            _scatter([chosen], xaxis="x2", opacity=0, hoverinfo="skip"),
        ],
        "layout": _layout(grid, winner.lr, rates, (min(shown) - half, max(shown) + half)),
    }


def _column(decay: float) -> float:
    """Return the place of a weight decay of the paper's convention: its logarithm, or 0 where there is no decay."""
    return math.log10(decay) if decay > 0 else 0.0


def _place(config: Config) -> tuple[float, float]:
    """Return the coordinates of a config on a map."""
    return _column(to_independent(config.weight_decay, config.lr)), math.log10(config.lr)


def _scatter(configs: list[Config], **more: Any) -> _Trace:
    """Return a trace with a marker or a text at each config."""
    places = [_place(config) for config in configs]
    return {"type": "scatter", "x": [x for x, _ in places], "y": [y for _, y in places], **more}


def _grid_trace(cells: Cells, scale: Scale) -> _Trace:
    """Return the grid as a heat map."""
    grid = _grid(cells)
    configs = [[grid.run(lr, decay).config for decay in grid.decays] for lr in grid.lrs]
    values = [[cells.values[config] for config in row] for row in configs]
    return {
        "type": "heatmap",
        "x": [_column(decay) for decay in grid.decays],
        "y": [math.log10(lr) for lr in grid.lrs],
        "z": [[min(value, scale.worst) if math.isfinite(value) else None for value in row] for row in values],
        "customdata": [[cells.hover(config) for config in row] for row in configs],
        "hovertemplate": "%{customdata}<extra></extra>",
        "zmin": scale.best,
        "zmax": scale.worst,
        "colorscale": _COLOURS,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }


def _grid_text(cells: Cells, scale: Scale) -> _Trace:
    """Return the figures of the grid, in the upper part of their cells; squares of later runs may cover the middle."""
    grid = _grid(cells)
    up = 0.26 * math.log10(grid.lr_step)
    configs = [grid.run(lr, decay).config for lr in grid.lrs for decay in grid.decays]
    half = 0.5 * (scale.best + scale.worst)
    colours = [f"var(--on-{'strong' if cells.values[config] < half else 'weak'})" for config in configs]
    return {
        "type": "scatter",
        "mode": "text",
        "x": [_column(decay) for _ in grid.lrs for decay in grid.decays],
        "y": [math.log10(lr) + up for lr in grid.lrs for _ in grid.decays],
        "text": [cells.text(config) for config in configs],
        "textfont": {"size": 11, "color": colours},
        "hoverinfo": "skip",
    }


def _squares(cells: Cells, scale: Scale, configs: list[Config]) -> _Trace:
    """Return small squares for the runs after the grid, on the same colour scale."""
    return _scatter(
        configs,
        mode="markers",
        customdata=[cells.hover(config) for config in configs],
        hovertemplate="%{customdata}<extra></extra>",
        marker={
            "symbol": "square",
            "size": 9,
            "color": [min(cells.values[config], scale.worst) for config in configs],
            "cmin": scale.best,
            "cmax": scale.worst,
            "colorscale": _COLOURS,
            "line": {"width": 1.5, "color": "var(--square)"},
        },
    )


def _signs(cells: Cells, configs: list[Config]) -> _Trace:
    """Return signs for the runs after the grid that have no figure; each sign says why."""
    return _scatter(
        configs,
        mode="text",
        text=[cells.text(config) for config in configs],
        textfont={"size": 11, "color": "var(--muted)"},
        customdata=[cells.hover(config) for config in configs],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _layout(grid: Grid, lr: float, rates: tuple[float, float], columns: tuple[float, float]) -> dict[str, Any]:
    """Return the axes: learning rate on the left, the paper's weight decay below, torch's weight decay above.

    Args:
        grid: The first runs of the arm.
        lr: The chosen learning rate, at which the upper axis holds.
        rates: The ends of the axis of learning rates.
        columns: The ends of the axes of weight decay.
    """
    decays, narrow = grid.decays, len(grid.decays) == 1
    x = {"range": list(columns), "tickvals": [_column(decay) for decay in decays], "tickangle": 0, "showgrid": False}
    below = ["0"] if narrow else [short_number(decay) for decay in decays]
    above = [""] if narrow else [short_number(from_independent(decay, lr)) for decay in decays]
    below_title = "no decay" if narrow else f"lr {TIMES} weight_decay (paper)"
    above_title = "" if narrow else f"weight_decay (torch) at lr {short_number(lr)}"
    return {
        "height": 380,
        "margin": {"l": 58, "r": 8, "t": 62, "b": 62},
        "xaxis": {**x, "ticktext": below, "title": {"text": below_title}},
        "xaxis2": {**x, "ticktext": above, "title": {"text": above_title}, "overlaying": "x", "side": "top"},
        "yaxis": {
            "range": list(rates),
            "tickvals": [math.log10(rate) for rate in grid.lrs],
            "ticktext": [short_number(rate) for rate in grid.lrs],
            "showgrid": False,
            "title": {"text": "learning rate"},
        },
    }
