"""Can weight decay be tuned without the learning rate? Four figures of an arm's search, on two axes of decay.

The paper's axis is y = log(lr * weight_decay), torch's is y' = log(weight_decay) = y - x with x = log(lr): the same
cells, sheared. Where the axis suits the optimizer, the validation metric is nearly a sum of a part that depends on x
and one that depends on y, and the best decay is the same at every learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adamas.compare.study.run import Config

Array = NDArray[np.float64]
DEGREE = 3  # of the polynomials of an additive fit, at most
SAME = 0.02  # decades between values of a coordinate that count as one: decays are rounded to three digits
QUADRATIC = 6  # terms of a full quadratic in two coordinates


@dataclass(frozen=True)
class OnAxis:
    """One axis of decay; None where a figure cannot be computed.

    Attributes:
        interaction: share of the variation that no sum of a part in lr and a part in decay explains: 0 is separable.
        tilt: H12 / sqrt(H11 H22) of the quadratic around the best cells: 0 is separable, +-1 a diagonal valley.
        regret: what tuning decay one step off the best learning rate costs at the best one, in the metric's unit.
    """

    interaction: float | None
    tilt: float | None
    regret: float | None


@dataclass(frozen=True)
class Separability:
    """An arm's figures.

    Attributes:
        paper: with decay as lr * weight_decay.
        torch: with decay as weight_decay.
        near_best: share of the cells within one standard deviation over seeds of the best; the same on both axes.
    """

    paper: OnAxis
    torch: OnAxis
    near_best: float | None


def separability(runs: Mapping[Config, float], worst: float, sd: float, rates: Sequence[float]) -> Separability | None:
    """Measure an arm's search; None for an arm without decay.

    Args:
        runs: validation metric by (lr, torch's weight decay); those that are not finite are left out.
        worst: values above it count as it, so that cells far off the optimum do not drown what is near it.
        sd: of the finalists' validation metric over seeds.
        rates: learning rates of the grid, its extensions included: the rows whose neighbours are compared.

    Example:
        >>> cells = {(lr, wd): (i - 1) ** 2 + (i + j - 3) ** 2 for i, lr in enumerate((0.1, 1, 10, 100))
        ...          for j, wd in enumerate((0.1, 1, 10, 100))}
        >>> found = separability(cells, worst=99, sd=0.5, rates=(0.1, 1, 10, 100))
        >>> f"{abs(found.paper.interaction):.2f} {abs(found.paper.tilt):.2f} {found.torch.tilt:.2f}"
        '0.00 0.00 0.71'
    """
    kept = {point: value for point, value in runs.items() if math.isfinite(value) and point[1] > 0}
    if not kept:
        return None
    x, torch_y = (np.log10([point[axis] for point in kept]) for axis in (0, 1))
    z = np.minimum(list(kept.values()), worst)
    tilts = tilt(x, x + torch_y, z, worst)
    paper, torch = (
        OnAxis(interaction(x, y, z), tilt_here, regret(kept, worst, rates, per_rate))
        for y, tilt_here, per_rate in ((x + torch_y, tilts[0], True), (torch_y, tilts[1], False))
    )
    return Separability(paper, torch, near_best(list(kept.values()), sd))


def interaction(x: Array, y: Array, z: Array) -> float | None:
    """What an additive model leaves unexplained, over all there is to explain.

    The model is a cubic polynomial in each coordinate, of lower degree where a coordinate has fewer distinct values.
    None where there are no more cells than terms, or nothing varies.
    """
    columns = [np.ones_like(x)]
    for coordinate in (x, y):
        scaled = unit(coordinate)
        columns += [scaled**power for power in range(1, min(DEGREE, distinct(coordinate) - 1) + 1)]
    total = float(np.sum((z - z.mean()) ** 2))
    if len(z) <= len(columns) or total <= 1e-24 * float(np.sum(z**2)):
        return None
    design = np.stack(columns, axis=1)
    coefficients, *_ = np.linalg.lstsq(design, z, rcond=None)
    return float(np.sum((z - design @ coefficients) ** 2)) / total


def tilt(x: Array, y: Array, z: Array, worst: float) -> tuple[float | None, float | None]:
    """H12 / sqrt(H11 H22) on the paper's axis y and on torch's, y - x, of a quadratic fitted to the better half.

    The change of axis is linear: with y = y' + x the Hessian becomes H11 + 2 H12 + H22, H12 + H22, H22. None where a
    diagonal entry is not positive: there is then no valley along that coordinate. Cells at `worst` or beyond are none
    of the better half: they say nothing of the shape.
    """
    order = np.argsort(z, kind="stable")[: math.ceil(len(z) / 2)]
    order = order[z[order] < worst]
    x, y, z = x[order], y[order], z[order]
    if len(z) <= QUADRATIC:
        return None, None
    x, y = x - x.mean(), y - y.mean()
    design = np.stack([np.ones_like(x), x, y, x * x / 2, x * y, y * y / 2], axis=1)
    coefficients, _, rank, _ = np.linalg.lstsq(design, z, rcond=None)
    if rank < QUADRATIC:
        return None, None
    xx, xy, yy = coefficients[3:]
    return normalised(xx, xy, yy), normalised(xx + 2 * xy + yy, xy + yy, yy)


def normalised(xx: float, xy: float, yy: float) -> float | None:
    """The mixed entry of a Hessian in units of its diagonal."""
    return float(xy / math.sqrt(xx * yy)) if xx > 0 and yy > 0 else None


def regret(runs: Mapping[Config, float], worst: float, rates: Sequence[float], per_rate: bool) -> float | None:
    """What tuning decay at a neighbouring learning rate costs, the worse of the two neighbours.

    Take the neighbouring row's best column on this axis, go back to the best row with the same value on it, and see
    what is found there, by linear interpolation in the logarithm of decay; beyond the ends, the value at the end.

    Args:
        runs: finite metrics by (lr, torch's weight decay).
        worst: values above it count as it.
        rates: the rows.
        per_rate: whether the axis is lr * weight_decay rather than weight_decay.
    """
    rows = {rate: row_of(runs, rate, per_rate) for rate in sorted(rates)}
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


def row_of(runs: Mapping[Config, float], rate: float, per_rate: bool) -> list[tuple[float, float]]:
    """The cells of a learning rate as (logarithm of decay on an axis, metric), ascending."""
    shift = math.log10(rate) if per_rate else 0.0
    return sorted((math.log10(decay) + shift, value) for (lr, decay), value in runs.items() if lr == rate)


def near_best(values: Sequence[float], sd: float) -> float | None:
    """Share of the cells within one standard deviation of the best."""
    if not math.isfinite(sd):
        return None
    return sum(value <= min(values) + sd for value in values) / len(values)


def distinct(coordinate: Array) -> int:
    """How many different values a coordinate takes, those that rounding tells apart counted once."""
    return 1 + int(np.sum(np.diff(np.sort(coordinate)) > SAME))


def unit(coordinate: Array) -> Array:
    """A coordinate on [-1, 1], where its powers are well told apart."""
    low, high = float(coordinate.min()), float(coordinate.max())
    return np.zeros_like(coordinate) if high == low else 2 * (coordinate - low) / (high - low) - 1
