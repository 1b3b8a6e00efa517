"""Can weight decay be tuned without the learning rate? Four figures of an arm's search, on two axes of decay.

The paper's axis is y = log(lr * weight_decay). Torch's is y' = log(weight_decay) = y - x with x = log(lr): the same
configs, sheared. On the axis that suits the optimizer, the validation metric is nearly the sum of a part that depends
on x and a part that depends on y, and the best decay is the same at every learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adamas.compare.study.run import Config

_Array = NDArray[np.float64]
_DEGREE = 3  # of the polynomials of an additive fit, at most
_SAME = 0.02  # values of a coordinate that differ by fewer decades count as one: decays are rounded to three digits
_QUADRATIC = 6  # terms of a full quadratic in two coordinates


@dataclass(frozen=True)
class OnAxis:
    """The figures on one axis of decay; None where a figure cannot be computed.

    Attributes:
        interaction: The share of the variation that no sum of a part in lr and one in decay explains; 0 is separable.
        tilt: H12 / sqrt(H11 H22) of the quadratic around the best configs; 0 is separable, +-1 a diagonal valley.
        regret: The cost of a decay that was tuned one step off the best learning rate, in the metric's unit.
    """

    interaction: float | None
    tilt: float | None
    regret: float | None


@dataclass(frozen=True)
class Separability:
    """The figures of an arm with decay as lr * weight_decay (`paper`) and as weight_decay (`torch`).

    `near_best` is the share of configs within one standard deviation over seeds of the best.
    """

    paper: OnAxis
    torch: OnAxis
    near_best: float | None


def separability(
    configs: Mapping[Config, float], worst: float, sd: float, rates: Sequence[float]
) -> Separability | None:
    """Return the separability of an arm's search; None for an arm without decay.

    Args:
        configs: The validation metric by lr and torch's weight decay; inf and NaN are left out.
        worst: The largest value that counts; configs far from the best would otherwise hide the shape near the best.
        sd: The standard deviation of the finalists' validation metric over seeds.
        rates: The learning rates of the grid and its extensions; the regret compares neighbours among them.

    Example:
        >>> configs = {(lr, wd): (i - 1) ** 2 + (i + j - 3) ** 2 for i, lr in enumerate((0.1, 1, 10, 100))
        ...            for j, wd in enumerate((0.1, 1, 10, 100))}
        >>> found = separability(configs, worst=99, sd=0.5, rates=(0.1, 1, 10, 100))
        >>> f"{abs(found.paper.interaction):.2f} {abs(found.paper.tilt):.2f} {found.torch.tilt:.2f}"
        '0.00 0.00 0.71'
    """
    kept = {config: value for config, value in configs.items() if math.isfinite(value) and config[1] > 0}
    if not kept:
        return None
    x, y_torch = (np.log10([config[axis] for config in kept]) for axis in (0, 1))
    y_paper = x + y_torch
    z = np.minimum(list(kept.values()), worst)
    tilt_paper, tilt_torch = tilt(x, y_paper, z, worst)
    return Separability(
        paper=OnAxis(interaction(x, y_paper, z), tilt_paper, regret(kept, worst, rates, per_rate=True)),
        torch=OnAxis(interaction(x, y_torch, z), tilt_torch, regret(kept, worst, rates, per_rate=False)),
        near_best=near_best(list(kept.values()), sd),
    )


def interaction(x: _Array, y: _Array, z: _Array) -> float | None:
    """Return the share of the variation that an additive model does not explain.

    The model is a cubic polynomial in each coordinate, of lower degree where a coordinate has fewer distinct values.
    Return None if there are no more configs than terms, or if nothing varies.
    """
    columns = [np.ones_like(x)]
    for coordinate in (x, y):
        scaled = _unit(coordinate)
        columns += [scaled**power for power in range(1, min(_DEGREE, _distinct(coordinate) - 1) + 1)]
    total = float(np.sum((z - z.mean()) ** 2))
    if len(z) <= len(columns) or total <= 1e-24 * float(np.sum(z**2)):
        return None
    design = np.stack(columns, axis=1)
    coefficients, *_ = np.linalg.lstsq(design, z, rcond=None)
    return float(np.sum((z - design @ coefficients) ** 2)) / total


def tilt(x: _Array, y: _Array, z: _Array, worst: float) -> tuple[float | None, float | None]:
    """Return H12 / sqrt(H11 H22) on the paper's axis y and on torch's, y - x, of a quadratic fit to the better half.

    The change of axis is linear: with y = y' + x the Hessian becomes H11 + 2 H12 + H22, H12 + H22, H22. It is None if a
    diagonal entry is not positive, because there is no valley along that coordinate. Configs at `worst` or above it
    are left out of the better half, because they do not show the shape.
    """
    order = np.argsort(z, kind="stable")[: math.ceil(len(z) / 2)]
    order = order[z[order] < worst]
    x, y, z = x[order], y[order], z[order]
    if len(z) <= _QUADRATIC:
        return None, None
    x, y = x - x.mean(), y - y.mean()
    design = np.stack([np.ones_like(x), x, y, x * x / 2, x * y, y * y / 2], axis=1)
    coefficients, _, rank, _ = np.linalg.lstsq(design, z, rcond=None)
    if rank < _QUADRATIC:
        return None, None
    xx, xy, yy = coefficients[3:]
    return _normalised(xx, xy, yy), _normalised(xx + 2 * xy + yy, xy + yy, yy)


def _normalised(xx: float, xy: float, yy: float) -> float | None:
    """Return the mixed entry of a Hessian in units of its diagonal."""
    return float(xy / math.sqrt(xx * yy)) if xx > 0 and yy > 0 else None


def regret(configs: Mapping[Config, float], worst: float, rates: Sequence[float], per_rate: bool) -> float | None:
    """Return the cost of tuning decay at a neighbour of the best learning rate, for the worse of its two neighbours.

    The best decay at the neighbour, on this axis, is used at the best rate. Its figure there is interpolated linearly
    in the logarithm of decay; beyond the ends, it is the figure at the end.

    Args:
        configs: The metric by lr and torch's weight decay; all values are finite.
        worst: The largest value that counts.
        rates: The learning rates among which neighbours are found.
        per_rate: Whether the axis is lr * weight_decay rather than weight_decay.
    """
    shift = {rate: math.log10(rate) if per_rate else 0.0 for rate in sorted(rates)}
    rows = {
        rate: sorted((math.log10(decay) + shift[rate], value) for (lr, decay), value in configs.items() if lr == rate)
        for rate in shift
    }
    rows = {rate: row for rate, row in rows.items() if len(row) > 1}
    if len(rows) < 2:
        return None
    order = list(rows)
    best = min(order, key=lambda rate: min(value for _, value in rows[rate]))
    places, values = zip(*rows[best], strict=True)
    capped = np.minimum(values, worst)
    at = order.index(best)
    found = [
        float(np.interp(min(rows[rate], key=lambda entry: entry[1])[0], places, capped) - capped.min())
        for rate in order[max(0, at - 1) : at + 2]
        if rate != best
    ]
    return max(found)


def near_best(values: Sequence[float], sd: float) -> float | None:
    """Return the share of the configs within one standard deviation of the best."""
    if not math.isfinite(sd):
        return None
    return sum(value <= min(values) + sd for value in values) / len(values)


def _distinct(coordinate: _Array) -> int:
    """Return the number of different values of a coordinate; values that differ by rounding count once."""
    return 1 + int(np.sum(np.diff(np.sort(coordinate)) > _SAME))


def _unit(coordinate: _Array) -> _Array:
    """Return a coordinate scaled to [-1, 1], where its powers are far from parallel."""
    low, high = float(coordinate.min()), float(coordinate.max())
    return np.zeros_like(coordinate) if high == low else 2 * (coordinate - low) / (high - low) - 1
