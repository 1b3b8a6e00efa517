"""What the runs of an arm say about every setting: a smooth surface over learning rate and weight decay, with noise.

A run's figure is the figure of its setting plus chance. The best of many single figures is partly the luckiest, so the
search does not ask which run was best, but where the surface through all runs is lowest. How far another setting may
lie below the chosen one, as far as the runs can tell, is the uncertainty of the search.

The surface is a Gaussian process over the logarithms of learning rate and decay: a part for each, and one for both
together. Its length scales and the share of noise are not chosen: every combination of a small grid counts as much as
it explains the runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_LENGTHS_LR = (0.5, 1.0, 2.5)  # decades of learning rate over which the figure changes
_LENGTHS_DECAY = (0.5, 1.2, 3.0)  # decades of weight decay over which it changes
_TOGETHER = (0.1, 1.0)  # variance of what depends on both together, beside 1 each for what depends on one of them
_NOISE = (1e-3, 1e-2, 0.1, 0.5, 2.0, 8.0, 30.0)  # variance of a run's chance, as a multiple of the surface's
_SEED = 1.0  # variance of what all runs of a seed share, as a multiple of the surface's
_USUAL, _SPREAD = 0.4, 0.8  # how far surfaces vary: e^-0.8 to e^0.8 times 0.4 of the figure for two jobs of three
_BOWL = (0.1, 0.02)  # how steep surfaces are, in the squares of decades of learning rate and of decay
_KEPT = 12  # choices of hyperparameters that are kept: the most likely
_TINY = 1e-10  # squared heights: figures that are all equal leave no chance at all
_PENALTY = 0.1  # how much worse a run without a figure counts at least: a tenth


class Scale:
    """How figures are put on the surface: as logarithms where all are above 0, and bad ones cut off.

    Far from the best setting, figures may be powers of ten worse, and say nothing about the shape near the best.

    Args:
        values: The figures of all runs; inf for a run without a figure.
    """

    def __init__(self, values: Sequence[float]) -> None:
        finite = [value for value in values if math.isfinite(value)]
        self.is_log = min(finite) > 0
        heights = np.log(finite) if self.is_log else np.asarray(finite)
        low, middle = float(heights.min()), float(np.median(heights))
        self._unit = 1.0 if self.is_log else max(abs(low), abs(middle)) or 1.0
        self._cut = max(2 * middle - low, low + _PENALTY * self._unit) / self._unit

    def height(self, value: float) -> float:
        """Return where a figure lies on the surface."""
        if not math.isfinite(value):
            return self._cut
        return min(math.log(value) if self.is_log else value / self._unit, self._cut)

    def value(self, height: _Array | float) -> _Array:
        """Return the figure at a height."""
        return np.exp(height) if self.is_log else np.asarray(height) * self._unit


@dataclass(frozen=True)
class _Fit:
    """The process with one choice of hyperparameters.

    Attributes:
        shape: The two length scales, and the variance of what depends on both coordinates together.
        weight: The weight of this choice among all choices.
        variance: The variance of the surface.
        mean: The level of the surface.
        solved: The inverse covariance of the runs times their heights above the level.
        inverse: The inverse covariance of the runs, as a multiple of the variance.
    """

    shape: tuple[float, float, float]
    weight: float
    variance: float
    mean: float
    solved: _Array
    inverse: _Array


class Surface:
    """The surface through the figures of some runs.

    Args:
        places: The logarithms (base 10) of learning rate and decay of each run, of shape (runs, 2).
        seeds: The seed of each run.
        heights: The figure of each run on the scale of the surface.
        centre: Where the lowest place is expected before any run.
    """

    def __init__(
        self, places: _Array, seeds: Sequence[int], heights: Sequence[float], centre: tuple[float, float]
    ) -> None:
        self._places = np.asarray(places, dtype=float).reshape(-1, 2)
        self._centre = np.asarray(centre)
        above = np.asarray(heights, dtype=float) - self._bowl(self._places)
        self._fits = self._fit_all(np.equal.outer(seeds, seeds).astype(float), above)

    def _bowl(self, places: _Array) -> _Array:
        """Return what is expected before any run: figures rise with the distance to the centre."""
        return ((places - self._centre) ** 2) @ np.asarray(_BOWL)

    def _fit_all(self, same: _Array, heights: _Array) -> list[_Fit]:
        """Fit the process with every choice of hyperparameters; keep the most likely ones.

        Args:
            same: Whether two runs have one seed, of shape (runs, runs).
            heights: The figures of the runs on the scale of the surface.
        """
        count = len(heights)
        shapes = list(itertools.product(_LENGTHS_LR, _LENGTHS_DECAY, _TOGETHER))
        runs = _Pairs(self._places, self._places)
        smooth = np.stack([runs.kernel(shape) for shape in shapes]) + _SEED * same
        noise = np.asarray(_NOISE)[None, :, None, None] * np.eye(count)
        inverse = np.asarray(
            np.linalg.inv(smooth[:, None] + noise), dtype=np.float64
        )  # of shape (shapes, noises, runs, runs)
        _, logdet = np.linalg.slogdet(inverse)
        ones = inverse.sum(axis=3)
        level = (ones @ heights) / ones.sum(axis=2)
        solved = inverse @ heights - level[..., None] * ones
        free = max(1, count - 1)
        variance = (np.maximum(solved @ heights, 0.0) + _TINY) / free
        fit = 0.5 * (logdet - np.log(ones.sum(axis=2)) - free * np.log(variance))
        fit -= 0.5 * (0.5 * np.log(variance / _USUAL**2) / _SPREAD) ** 2
        kept = np.argsort(-fit, axis=None, kind="stable")[:_KEPT]
        weights = np.exp(fit.flat[kept] - fit.flat[kept[0]])
        return [
            _Fit(shapes[i], float(weight), float(variance[i, j]), float(level[i, j]), solved[i, j], inverse[i, j])
            for i, j, weight in zip(*np.unravel_index(kept, fit.shape), weights / weights.sum(), strict=True)
        ]

    def predict(self, places: _Array) -> _Array:
        """Return the heights that are expected at some places."""
        cross = _Pairs(places, self._places)
        bowl = self._bowl(places)
        means = [self._mean(fit, bowl, cross.kernel(fit.shape)) for fit in self._fits]
        return np.sum(np.array([fit.weight for fit in self._fits])[:, None] * means, axis=0)

    def draws(self, places: _Array, count: int) -> _Array:
        """Return surfaces that the runs leave possible, at some places, of shape (about `count`, places)."""
        rng = np.random.default_rng(0)
        here, to_runs, bowl = _Pairs(places, places), _Pairs(places, self._places), self._bowl(places)
        parts: list[_Array] = []
        for fit in self._fits:
            share = round(count * fit.weight)
            if not share:
                continue
            cross = to_runs.kernel(fit.shape)
            mean, covariance = self._mean(fit, bowl, cross), self._covariance(fit, here.kernel(fit.shape), cross)
            jitter = 1e-8 * np.trace(covariance) / len(mean) + 1e-14
            spread = np.linalg.cholesky(covariance + jitter * np.eye(len(mean)))
            parts.append(mean + rng.standard_normal((share, len(mean))) @ spread.T)
        return np.concatenate(parts)

    def _mean(self, fit: _Fit, bowl: _Array, cross: _Array) -> _Array:
        """Return the heights that one choice of hyperparameters expects at some places.

        Args:
            fit: One choice of hyperparameters.
            bowl: What is expected at the places before any run.
            cross: How alike each place and each run are.
        """
        return bowl + fit.mean + cross @ fit.solved

    def _covariance(self, fit: _Fit, kernel: _Array, cross: _Array) -> _Array:
        """Return the covariance of the heights at some places, the unknown level of the surface included.

        Args:
            fit: One choice of hyperparameters.
            kernel: How alike the places are.
            cross: How alike each place and each run are.
        """
        ones = fit.inverse.sum(axis=1)
        rest = 1.0 - cross @ ones
        covariance = kernel - cross @ fit.inverse @ cross.T
        return fit.variance * (covariance + np.outer(rest, rest) / ones.sum())


class _Pairs:
    """The distances between two sets of places, of which many share a learning rate or a decay.

    Args:
        one: The logarithms of learning rate and decay of each place, of shape (places, 2).
        other: The same of the other places.
    """

    def __init__(self, one: _Array, other: _Array) -> None:
        self._axes: list[tuple[_Array, Any]] = []
        self._known: dict[tuple[int, float], _Array] = {}
        for axis in (0, 1):
            (rows, row), (columns, column) = (np.unique(x[:, axis], return_inverse=True) for x in (one, other))
            self._axes.append((np.subtract.outer(rows, columns), np.ix_(row, column)))

    def kernel(self, shape: tuple[float, float, float]) -> _Array:
        """Return how alike the surface is at two places: in learning rate, in decay, and in both together."""
        together = shape[2]
        rate, decay = (self._along(axis, shape[axis]) for axis in (0, 1))
        return (rate + decay + together * rate * decay) / (2.0 + together)

    def _along(self, axis: int, length: float) -> _Array:
        """Return how alike the surface is along one axis; many shapes have the same few lengths."""
        if (axis, length) not in self._known:
            apart, which = self._axes[axis]
            self._known[axis, length] = np.exp(-0.5 * (apart / length) ** 2)[which]
        return self._known[axis, length]
