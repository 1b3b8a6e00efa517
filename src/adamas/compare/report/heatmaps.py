"""The maps of the search: the surface through an arm's runs over learning rate and weight decay, and the runs on it.

All maps share one colour scale. Figures are plain Plotly data. Colours are names of the page's CSS variables; the
script of the page replaces them by the colours of light or dark mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.compare.report.text import Cells
from adamas.compare.search.selection import scores
from adamas.compare.study.run import Config
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import TIMES
from adamas.decay import from_independent, to_independent
from adamas.language import Texts
from adamas.page import Figure
from adamas.page.text import anchors, short_number

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
        figure: The figure, with a view for each axis of weight decay.
        narrow: Whether the map has one column, because the arm has no decay.
        rows: The settings as rows of text.
    """

    figure: Figure
    narrow: bool
    rows: list[dict[str, str]]


def maps(result: Summary) -> tuple[Scale, list[Map]]:
    """Return the common colour scale and the maps of all arms."""
    record = result.record
    metric = record.settings.workload.metric
    found = [Cells(result, arm, scores(runs, record.outcomes, metric)) for arm, runs in record.searched.items()]
    finite = [value for cells in found for value in cells.values.values() if math.isfinite(value)]
    scale = Scale(min(finite), float(np.quantile(finite, _WORST_SHOWN)))
    ids = anchors(record.searched)
    return scale, [
        Map(_figure(cells, scale, f"map-{ids[cells.arm]}"), record.grids[cells.arm].bare, cells.rows())
        for cells in found
    ]


@dataclass(frozen=True)
class _Axis:
    """The horizontal axis of a map: weight decay in one of the two conventions.

    Attributes:
        torch: Whether the axis is torch's weight decay, and not the paper's.
    """

    torch: bool

    def place(self, config: Config) -> tuple[float, float]:
        """Return the coordinates of a config: the logarithms of its weight decay and of its learning rate."""
        decay = config.weight_decay if self.torch else to_independent(config.weight_decay, config.lr)
        return math.log10(decay) if decay > 0 else _NONE_PLACE, math.log10(config.lr)

    def paper(self, decay: float, rate: float) -> float:
        """Return the paper's weight decay at a place of the map; all are logarithms."""
        return decay + rate if self.torch else decay

    def other(self, decay: float, lr: float) -> float:
        """Return a weight decay in the other convention."""
        return to_independent(decay, lr) if self.torch else from_independent(decay, lr)

    def titles(self, say: Texts) -> tuple[str, str]:
        """Return the names of this axis and of the other one."""
        names = say("report.paper_axis"), say("report.torch_axis")
        return (names[1], names[0]) if self.torch else names


_PAPER, _TORCH = _Axis(torch=False), _Axis(torch=True)


def _figure(cells: Cells, scale: Scale, name: str) -> Figure:
    """Return one arm's map, with a view for each axis of weight decay."""
    result, say = cells.result, cells.result.say
    bare, winner = result.record.grids[cells.arm].bare, result.record.winners[cells.arm]
    plot = _view(cells, scale, _PAPER)
    if not bare:
        plot |= {
            "label": f"lr {TIMES} weight_decay",
            "others": [{"label": "weight_decay", **_view(cells, scale, _TORCH)}],
        }
    answer = say(
        "answer.map_bare" if bare else "answer.map",
        lr=f"{winner.lr:.3g}",
        decay=f"{winner.weight_decay:.3g}",
        paper=f"{to_independent(winner.weight_decay, winner.lr):.3g}",
        settings=len(cells.values),
    )
    return Figure(name, say("question.map", arm=result.title[cells.arm]), answer, plot)


def _view(cells: Cells, scale: Scale, axis: _Axis) -> dict[str, Any]:
    """Return one arm's map: the surface, a marker for each setting that was tried, a ring around the chosen one."""
    winner = cells.result.record.winners[cells.arm]
    chosen = Config(winner.lr, winner.weight_decay)
    ring = {"symbol": "circle-open", "size": 20, "color": "var(--mark)", "line": {"width": 3}}
    drawn = [config for config in cells.values if math.isfinite(cells.values[config])]
    signs = [config for config in cells.values if math.isinf(cells.values[config])]
    places = [axis.place(config) for config in (*cells.values, chosen)]
    ends = [(min(each) - _PAD, max(each) + _PAD) for each in zip(*places, strict=True)]
    texts = [cells.text(config) for config in signs]
    return {
        "data": [
            _surface(cells, scale, ends, axis),
            _runs(cells, scale, drawn, ends, axis),
            _scatter(signs, axis, mode="text", text=texts, **_hover(cells, signs)),
            _scatter([chosen], axis, mode="markers", marker=ring, hoverinfo="skip"),
            # Plotly draws an axis only if a trace uses it; this trace is invisible.
            _scatter([chosen], axis, xaxis="x2", opacity=0, hoverinfo="skip"),
        ],
        "layout": _layout(cells, winner.lr, ends, axis),
    }


def _scatter(configs: list[Config], axis: _Axis, **more: Any) -> dict[str, Any]:
    """Return a trace with a marker or a text at each config."""
    places = [axis.place(config) for config in configs]
    return {"type": "scatter", "x": [x for x, _ in places], "y": [y for _, y in places], **more}


def _hover(cells: Cells, configs: list[Config]) -> dict[str, Any]:
    """Return the texts that appear when the mouse is over a config."""
    texts = [cells.hover(config) for config in configs]
    return {"customdata": texts, "hovertemplate": "%{customdata}<extra></extra>"}


def _surface(cells: Cells, scale: Scale, ends: _Ends, axis: _Axis) -> dict[str, Any]:
    """Return the surface through the arm's runs as a heat map, without the places beyond all runs."""
    record = cells.result.record
    narrow = record.grids[cells.arm].bare
    decays = [_NONE_PLACE] if narrow else np.linspace(*ends[0], 48).tolist()
    rates = np.linspace(*ends[1], 32).tolist()
    places = [(rate, axis.paper(decay, rate)) for rate in rates for decay in decays]
    tried = [_PAPER.place(config)[0] for config in cells.values]
    low, high = min(tried) - _PAD, max(tried) + _PAD
    values = np.clip(record.candidates(cells.arm).figures_at(places), scale.best, scale.worst)
    shown = [float(value) if low <= decay <= high else None for value, (_, decay) in zip(values, places, strict=True)]
    return {
        "type": "heatmap",
        "x": decays,
        "y": rates,
        "z": [shown[row : row + len(decays)] for row in range(0, len(shown), len(decays))],
        "zmin": scale.best,
        "zmax": scale.worst,
        "colorscale": _COLOURS,
        "showscale": False,
        "hoverinfo": "skip",
    }


def _runs(cells: Cells, scale: Scale, configs: list[Config], ends: _Ends, axis: _Axis) -> dict[str, Any]:
    """Return a marker for each setting: a circle for a mean over seeds, a square for one run."""
    labelled = _spaced(sorted(configs, key=lambda config: cells.values[config]), ends, axis)
    half, above = 0.5 * (scale.best + scale.worst), _ROOM[1] * (ends[1][1] - ends[1][0])
    places = [(rate + above, axis.paper(decay, rate)) for decay, rate in map(axis.place, configs)]
    behind = cells.result.record.candidates(cells.arm).figures_at(places) if places else []
    ink = [f"var(--on-{'strong' if value < half else 'weak'})" for value in behind]
    return _scatter(
        configs,
        axis,
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


def _spaced(configs: list[Config], ends: _Ends, axis: _Axis) -> list[Config]:
    """Return the configs whose labels do not cover the label of an earlier one."""
    sizes = [room * (high - low) for room, (low, high) in zip(_ROOM, ends, strict=True)]
    found: list[Config] = []
    for config in configs:
        x, y = axis.place(config)
        others = (axis.place(other) for other in found)
        if all(abs(x - one) > sizes[0] or abs(y - other) > sizes[1] for one, other in others):
            found.append(config)
    return found


def _layout(cells: Cells, lr: float, ends: _Ends, axis: _Axis) -> dict[str, Any]:
    """Return the axes: learning rate on the left, weight decay below, and above in the other convention.

    Args:
        cells: The cells of the map.
        lr: The chosen learning rate, at which the upper axis holds.
        ends: The ends of the axis of weight decay, and of that of learning rate.
        axis: The lower axis.
    """
    say, narrow = cells.result.say, cells.result.record.grids[cells.arm].bare
    decades, rates = (_ticks(*each) for each in ends)
    lower, upper = axis.titles(say)
    x = {"range": list(ends[0]), "tickvals": [_NONE_PLACE] if narrow else decades, "tickangle": 0, "showgrid": False}
    below = ["0"] if narrow else [short_number(10**decade) for decade in decades]
    above = [""] if narrow else [short_number(axis.other(10**decade, lr)) for decade in decades]
    return {
        "height": 380,
        "margin": {"l": 58, "r": 8, "t": 62, "b": 62},
        "xaxis": {
            **x,
            "ticktext": below,
            "title": {"text": say("report.no_decay") if narrow else lower},
        },
        "xaxis2": {
            **x,
            "ticktext": above,
            "title": {"text": "" if narrow else say("report.at_lr", axis=upper, lr=short_number(lr))},
            "overlaying": "x",
            "side": "top",
        },
        "yaxis": {
            "range": list(ends[1]),
            "tickvals": rates,
            "ticktext": [short_number(10**rate) for rate in rates],
            "showgrid": False,
            "title": {"text": say("report.learning_rate")},
        },
    }


def _ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten between two logarithms, and 3 times them where there are few."""
    whole = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    if len(whole) > 2:
        return whole
    return sorted(each for power in range(math.floor(low), math.ceil(high) + 1)
                  for each in (float(power), power + math.log10(3)) if low <= each <= high)  # fmt: skip
