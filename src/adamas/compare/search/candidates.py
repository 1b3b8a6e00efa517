"""The settings of an arm on its surface: which run next, which is chosen, and how far a better one may lie below it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adamas.compare.search.grids import Grid, round_to
from adamas.compare.search.surface import Scale, Surface
from adamas.compare.study.run import Config, Outcome, Run
from adamas.decay import to_independent

_DRAWS = 400  # surfaces that are drawn to see where the lowest place may be
_APART = 0.12  # decades: runs lie at least so far apart, as long as there is room
_FINE, _FINEST = 0.25, 0.08  # decades between the places of the lattice; where columns are close, a third of that
_SAME = 0.02  # decades: rates and decays are rounded


@dataclass(frozen=True)
class Regret:
    """How much worse a chosen setting may be than the arm's best, as far as the runs can tell.

    Attributes:
        level: The figure expected of the chosen setting.
        mean: The expected distance to the best, in the unit of the figure.
        sd: Its standard deviation.
    """

    level: float = math.nan
    mean: float = 0.0
    sd: float = 0.0

    def unit(self, relative: bool) -> float:
        """Return what amounts of the figure are divided by: the figure itself where differences are relative."""
        return (abs(self.level) or 1.0) if relative and math.isfinite(self.level) else 1.0

    def of_metric(self, relative: bool) -> float:
        """Return the standard deviation, as a fraction of the figure where differences are relative."""
        return self.sd / self.unit(relative)


class Candidates:
    """The settings of an arm, with the surface through its runs.

    Args:
        grid: The grid of the arm.
        runs: The runs of the arm's search, and those of the pilot, which are without decay.
        outcomes: The outcomes of these runs.
        metric: The validation metric.

    Attributes:
        tried: The settings that were tried.
        without_figures: Those of them that have a run without a figure.
        any: Whether any run has a figure.
        own: Whether any run of the arm itself has one; the pilot's runs without decay are not an arm's own.
    """

    def __init__(self, grid: Grid, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> None:
        self._grid = grid
        values = [outcomes[run].validation[metric] if outcomes[run].ok else math.inf for run in runs]
        self.without_figures = {self._config(run) for run, value in zip(runs, values, strict=True) if math.isinf(value)}
        self.tried = list(dict.fromkeys(self._config(run) for run in runs))
        self.any = any(map(math.isfinite, values))
        self.own = any(outcomes[run].ok and (grid.bare or run.stage != "pilot") for run in runs)
        if self.any:
            self._scale = Scale(values)
            places = np.array([self._place(self._config(run)) for run in runs])
            heights = [self._scale.height(value) for value in values]
            centre = (_middle(grid.lrs), 0.0 if grid.bare else _middle(grid.decays))
            self._surface = Surface(places, [run.seed for run in runs], heights, centre)

    def _config(self, run: Run) -> Config:
        """Return the setting of a run; a run without decay stands for the arm's weakest decay, which hardly acts."""
        if run.weight_decay or self._grid.bare:
            return run.config
        return self._grid.run(run.lr, self._grid.inert).config

    def _place(self, config: Config) -> tuple[float, float]:
        """Return the place of a setting on the surface."""
        decay = to_independent(config.weight_decay, config.lr)
        return math.log10(config.lr), math.log10(max(decay, self._grid.inert)) if decay else 0.0

    def _places(self, configs: Sequence[Config]) -> NDArray[np.float64]:
        """Return the places of some settings."""
        return np.array([self._place(config) for config in configs])

    def best(self, among: Sequence[Config] | None = None) -> list[Config]:
        """Return the settings that were tried, or some of them, the lowest on the surface first.

        A setting with a run without a figure is left out, unless every one has such a run.
        """
        given = list(among or self.tried)
        configs = [config for config in given if config not in self.without_figures] or given
        mean = self._surface.predict(self._places(configs))
        order = sorted(range(len(configs)), key=lambda i: (round(mean[i], 9), configs[i].weight_decay, configs[i].lr))
        return [configs[i] for i in order]

    def figures_at(self, places: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
        """Return the figures that the surface expects at some places: logarithms of learning rate and paper's decay."""
        return self._scale.value(self._surface.predict(np.array(places)))

    def next(self, count: int) -> list[Config]:
        """Return settings to try next: where the lowest place of the surface may be, as far as the runs can tell.

        Of many surfaces that the runs leave possible, each has its lowest place. The settings are those that most of
        these places lie at; they lie a little apart, from one another and from what was tried, so that no run asks the
        same thing twice.
        """
        if not self.any:
            return []
        lattice = [config for config in self._lattice(beyond=True) if config not in self.tried]
        places = self._places(lattice)
        votes = np.bincount(self._surface.draws(places, _DRAWS).argmin(axis=1), minlength=len(lattice))
        order = np.argsort(-votes, kind="stable").tolist()
        tried = self._places(self.tried)
        chosen: list[int] = []
        for pick in order:
            near = np.vstack([tried, places[chosen]])
            if len(chosen) < count and np.all(np.abs(near - places[pick]).max(axis=1) >= _APART):
                chosen.append(pick)
        rest = [pick for pick in order if pick not in chosen]
        return [lattice[pick] for pick in [*chosen, *rest][:count]]

    def regret(self, chosen: Config) -> Regret:
        """Return how far another weight decay may lie below the chosen one, at the chosen learning rate.

        That another learning rate may be better concerns all arms alike; `gain_at` asks about that of another arm.
        """
        rate = self._place(chosen)[0]
        decays = sorted({place[1] for place in self._places(self._lattice(beyond=False)).round(6).tolist()})
        places = np.array([self._place(chosen), *((rate, decay) for decay in decays)])
        draws = self._surface.draws(places, _DRAWS)
        below = self._gaps(places, draws.min(axis=1) - draws[:, 0])
        return Regret(float(self.figures_at([self._place(chosen)])[0]), float(below.mean()), float(below.std()))

    def gain_at(self, chosen: Config, lr: float) -> float:
        """Return how far the chosen decay may lie lower at the learning rate of another arm, as a root mean square."""
        rate, decay = self._place(chosen)
        places = np.array([(rate, decay), (math.log10(lr), decay)])
        draws = self._surface.draws(places, _DRAWS)
        below = self._gaps(places, np.minimum(draws[:, 1] - draws[:, 0], 0.0))
        return float(np.sqrt(np.mean(below**2)))

    def _gaps(self, places: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what differences of height mean in the unit of the metric, at the first of some places."""
        expected = float(self._surface.predict(places[:1])[0])
        return self._scale.value(expected) - self._scale.value(expected + heights)

    def _lattice(self, beyond: bool) -> list[Config]:
        """Return settings all over the explored region; `beyond` adds a step past each edge that the best lies on.

        Below the weakest decay there is nothing to find: it stands for training without decay.
        """
        tried = self._places(self.tried)
        low, high = tried.min(axis=0), tried.max(axis=0)
        column = 0.0 if self._grid.bare else math.log10(self._grid.decay_step)
        if beyond:
            best = np.array(self._place(self.best()[0]))
            step = np.array([math.log10(self._grid.lr_step), column])
            low[0] -= step[0] * np.isclose(best[0], low[0], atol=_SAME)
            high += step * np.isclose(best, high, atol=_SAME)
        rates = [round_to(10**x, 2) for x in _evenly(low[0], high[0], _FINE)]
        if self._grid.bare:
            return list(dict.fromkeys(Config(rate, 0.0) for rate in rates))
        fine = [10**y for y in _evenly(low[1], high[1], min(_FINE, max(column / 3, _FINEST)))]
        return list(dict.fromkeys(self._grid.run(rate, decay).config for rate in rates for decay in fine))


def _middle(values: Sequence[float]) -> float:
    """Return the logarithm half-way between the ends of ascending numbers."""
    return math.log10(values[0] * values[-1]) / 2


def _evenly(low: float, high: float, step: float) -> list[float]:
    """Return evenly spaced numbers from `low` to `high`, about `step` apart."""
    return np.linspace(low, high, 1 + max(1, round((high - low) / step))).tolist() if high > low else [low]
