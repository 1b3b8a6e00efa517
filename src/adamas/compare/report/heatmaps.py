"""The maps of the search: the surface through an arm's runs over learning rate and weight decay, and the runs on it.

All maps share one colour scale. Figures are plain Plotly data. Colours are names of the page's CSS variables; the
script of the page replaces them by the colours of light or dark mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.compare.report.text import Cells, short_number
from adamas.compare.search.selection import scores
from adamas.compare.study.run import Config
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import TIMES
from adamas.decay import from_independent, to_independent

_WORST_SHOWN = 0.5  # quantile of all figures; higher figures all have the last colour of the scale
_COLOURS = [[i / 4, f"var(--scale-{i})"] for i in range(5)]
_ROOM = (0.11, 0.06)  # of a label, as fractions of the map's width and height
_Ends = list[tuple[float, float]]  # of the axis of weight decay, and of that of learning rate
_PAD = 0.2  # decades beyond the outermost runs
_NONE_PLACE = 0.0  # of runs without decay on a map that has no decay


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
        rows: The settings as rows of text.
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
            record.grids[cells.arm].bare,
            _figure(cells, scale),
            cells.rows(),
        )
        for cells in found
    ]


def _figure(cells: Cells, scale: Scale) -> dict[str, Any]:
    """Return one arm's map: the surface, a marker for each setting that was tried, a ring around the chosen one."""
    record = cells.result.record
    winner = record.winners[cells.arm]
    chosen = Config(winner.lr, winner.weight_decay)
    ring = {"symbol": "circle-open", "size": 20, "color": "var(--mark)", "line": {"width": 3}}
    drawn = [config for config in cells.values if math.isfinite(cells.values[config])]
    signs = [config for config in cells.values if math.isinf(cells.values[config])]
    places = [_place(config) for config in (*cells.values, chosen)]
    ends = [(min(each) - _PAD, max(each) + _PAD) for each in zip(*places, strict=True)]
    return {
        "data": [
            _surface(cells, scale, ends),
            _runs(cells, scale, drawn, ends),
            _scatter(signs, mode="text", text=[cells.text(config) for config in signs], **_hover(cells, signs)),
            _scatter([chosen], mode="markers", marker=ring, hoverinfo="skip"),
            # Plotly draws an axis only if a trace uses it; this trace is invisible.
            _scatter([chosen], xaxis="x2", opacity=0, hoverinfo="skip"),
        ],
        "layout": _layout(record.grids[cells.arm].bare, winner.lr, ends),
    }


def _place(config: Config) -> tuple[float, float]:
    """Return the coordinates of a config on a map: the logarithms of the paper's weight decay and of the lr."""
    decay = to_independent(config.weight_decay, config.lr)
    return math.log10(decay) if decay > 0 else _NONE_PLACE, math.log10(config.lr)


def _scatter(configs: list[Config], **more: Any) -> dict[str, Any]:
    """Return a trace with a marker or a text at each config."""
    places = [_place(config) for config in configs]
    return {"type": "scatter", "x": [x for x, _ in places], "y": [y for _, y in places], **more}


def _hover(cells: Cells, configs: list[Config]) -> dict[str, Any]:
    """Return the texts that appear when the mouse is over a config."""
    texts = [cells.hover(config) for config in configs]
    return {"customdata": texts, "hovertemplate": "%{customdata}<extra></extra>"}


def _surface(cells: Cells, scale: Scale, ends: _Ends) -> dict[str, Any]:
    """Return the surface through the arm's runs as a heat map."""
    record = cells.result.record
    narrow = record.grids[cells.arm].bare
    decays = [_NONE_PLACE] if narrow else np.linspace(*ends[0], 48).tolist()
    rates = np.linspace(*ends[1], 32).tolist()
    values = record.candidates(cells.arm).figures_at([(rate, decay) for rate in rates for decay in decays])
    return {
        "type": "heatmap",
        "x": decays,
        "y": rates,
        "z": np.clip(values, scale.best, scale.worst).reshape(len(rates), len(decays)).tolist(),
        "zmin": scale.best,
        "zmax": scale.worst,
        "colorscale": _COLOURS,
        "showscale": False,
        "hoverinfo": "skip",
    }


def _runs(cells: Cells, scale: Scale, configs: list[Config], ends: _Ends) -> dict[str, Any]:
    """Return a marker for each setting: a circle for a mean over seeds, a square for one run."""
    labelled = _spaced(sorted(configs, key=lambda config: cells.values[config]), ends)
    half = 0.5 * (scale.best + scale.worst)
    ink = [f"var(--on-{'strong' if cells.values[config] < half else 'weak'})" for config in configs]
    return _scatter(
        configs,
        mode="markers+text",
        text=[cells.text(config) if config in labelled else "" for config in configs],
        textposition="top center",
        textfont={"size": 10, "color": ink},
        marker={
            "symbol": ["circle" if cells.seeds(config) > 1 else "square" for config in configs],
            "size": [11 if cells.seeds(config) > 1 else 8 for config in configs],
            "color": [min(cells.values[config], scale.worst) for config in configs],
            "cmin": scale.best,
            "cmax": scale.worst,
            "colorscale": _COLOURS,
            "line": {"width": 1.5, "color": "var(--square)"},
        },
        **_hover(cells, configs),
    )


def _spaced(configs: list[Config], ends: _Ends) -> list[Config]:
    """Return the configs whose labels do not cover the label of an earlier one."""
    sizes = [room * (high - low) for room, (low, high) in zip(_ROOM, ends, strict=True)]
    found: list[Config] = []
    for config in configs:
        x, y = _place(config)
        others = (_place(other) for other in found)
        if all(abs(x - one) > sizes[0] or abs(y - other) > sizes[1] for one, other in others):
            found.append(config)
    return found


def _layout(narrow: bool, lr: float, ends: _Ends) -> dict[str, Any]:
    """Return the axes: learning rate on the left, the paper's weight decay below, torch's weight decay above.

    Args:
        narrow: Whether the arm has no decay.
        lr: The chosen learning rate, at which the upper axis holds.
        ends: The ends of the axis of weight decay, and of that of learning rate.
    """
    decades, rates = (_ticks(*each) for each in ends)
    x = {"range": list(ends[0]), "tickvals": [_NONE_PLACE] if narrow else decades, "tickangle": 0, "showgrid": False}
    below = ["0"] if narrow else [short_number(10**decade) for decade in decades]
    above = [""] if narrow else [short_number(from_independent(10**decade, lr)) for decade in decades]
    return {
        "height": 380,
        "margin": {"l": 58, "r": 8, "t": 62, "b": 62},
        "xaxis": {
            **x,
            "ticktext": below,
            "title": {"text": "no decay" if narrow else f"lr {TIMES} weight_decay (paper)"},
        },
        "xaxis2": {
            **x,
            "ticktext": above,
            "title": {"text": "" if narrow else f"weight_decay (torch) at lr {short_number(lr)}"},
            "overlaying": "x",
            "side": "top",
        },
        "yaxis": {
            "range": list(ends[1]),
            "tickvals": rates,
            "ticktext": [short_number(10**rate) for rate in rates],
            "showgrid": False,
            "title": {"text": "learning rate"},
        },
    }


def _ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten between two logarithms, and 3 times them where there are few."""
    whole = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    if len(whole) > 2:
        return whole
    return sorted(each for power in range(math.floor(low), math.ceil(high) + 1)
                  for each in (float(power), power + math.log10(3)) if low <= each <= high)  # fmt: skip
