"""The figures of an X-ray: what one sample says about each layer, and about all layers together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adamas.decay import adamw_equilibrium_rms, equilibrium_rotation, to_independent
from adamas.understand.xray.sample import Array, Layer, Sample

ALL = "all layers"
PERCENTILES = (10, 50, 90)
LEAST = 8  # a correlation of fewer elements says nothing


@dataclass(frozen=True)
class Figures:
    """The figures of one layer at one step; `columns.py` explains each. None stands for "unknown" or "has no meaning".

    Attributes:
        layer: The name of the parameter, or `ALL`.
    """

    layer: str
    step: int
    elements: int
    rule: str
    lr: float | None
    weight_decay: float | None
    rate_p10: float | None
    rate_p50: float | None
    rate_p90: float | None
    rate_norm: float | None
    correlation: float | None
    rms: float | None
    rms_equilibrium: float | None
    rotation: float | None
    rotation_equilibrium: float | None
    decay_times_max: float | None
    timescale: float | None
    lost: float | None
    equivalent: float | None
    equivalent_independent: float | None
    decay_part: str


@dataclass(frozen=True)
class Reading:
    """The figures of one step.

    Attributes:
        step: The number of the step.
        layers: The figures of each layer.
        total: The figures of all layers together.
        roots: The percentiles 0, 1, ..., 100 of sqrt(v_hat) over all weights, from which windows are predicted.
    """

    step: int
    layers: list[Figures]
    total: Figures
    roots: Array = field(repr=False)

    @property
    def rows(self) -> list[Figures]:
        """The figures of all layers together, then of each."""
        return [self.total, *self.layers]


@dataclass(frozen=True)
class _Elements:
    """What is known of every sampled element."""

    rates: Array
    logs: Array  # of the rates; NaN where a rate is not positive
    root_logs: Array  # of sqrt(v_hat)
    equivalents: Array  # the weight decay that would decay this element alike under AdamW
    change: Array | None  # the whole step
    lost: Array | None  # whether the step was lost to rounding
    before: Array | None
    after: Array | None


def read(sample: Sample) -> Reading:
    """Compute the figures of every layer, and of all together."""
    elements = _elements(sample)
    ends = np.cumsum(sample.counts)
    slices = [slice(end - count, end) for end, count in zip(ends, sample.counts, strict=True)]
    layers = [_of_layer(layer, elements, where) for layer, where in zip(sample.layers, slices, strict=True)]
    weights = sample.spread([layer.elements for layer in sample.layers]) / sample.spread(sample.counts.tolist())
    roots = quantiles(sample.root_hat(), np.linspace(0, 1, 101), weights)
    step = max(layer.step for layer in sample.layers)
    return Reading(step, layers, _of_all(sample.layers, layers, elements, weights), roots)


def _elements(sample: Sample) -> _Elements:
    rates, gain = sample.rates(), sample.gain()
    lam = sample.spread([layer.scalars.l2 for layer in sample.layers])
    share = sample.spread([layer.scalars.decay for layer in sample.layers])
    lr = sample.spread([layer.hyper.lr for layer in sample.layers])
    change = None if sample.before is None else sum(sample.parts())
    lost = None
    if sample.unchanged is not None and change is not None:
        lost = sample.unchanged & (change != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(rates > 0, rates, np.nan))
        roots = np.log(sample.root_hat())
        equivalents = np.where(lam > 0, lam * gain, np.where(share > 0, share / lr, 0.0))
    return _Elements(rates, logs, roots, equivalents, change, lost, sample.before, sample.after)


def _of_layer(layer: Layer, elements: _Elements, where: slice) -> Figures:
    """Return the figures of one layer, whose elements lie in a slice of the arrays."""
    rates = elements.rates[where]
    low, median, high = (_finite(value) for value in _percentiles(rates))
    equivalent = _finite(float(np.median(elements.equivalents[where])))
    lr, decays = layer.hyper.lr, bool(equivalent)
    before = None if elements.before is None else elements.before[where]
    after = None if elements.after is None else elements.after[where]
    beta1 = layer.hyper.beta1
    return Figures(
        layer=layer.name,
        step=layer.step,
        elements=layer.elements,
        rule=_rule(layer),
        lr=lr,
        weight_decay=layer.hyper.weight_decay,
        rate_p10=low,
        rate_p50=median,
        rate_p90=high,
        rate_norm=_finite(_norm_rate(rates, before)),
        correlation=correlation(elements.logs[where], elements.root_logs[where], None if before is None else before**2),
        rms=layer.rms,
        rms_equilibrium=adamw_equilibrium_rms(lr, equivalent) if decays and equivalent else None,
        rotation=None if before is None or after is None else _finite(rotation(before, after)),
        rotation_equilibrium=equilibrium_rotation(lr, equivalent, beta1) if decays and equivalent else None,
        decay_times_max=None if layer.largest is None or equivalent is None else equivalent * layer.largest,
        timescale=1 / median if median and median > 0 else None,
        lost=None if elements.lost is None else float(np.mean(elements.lost[where])),
        equivalent=equivalent,
        equivalent_independent=None if equivalent is None else to_independent(equivalent, layer.base_lr),
        decay_part=_certainty(layer),
    )


def _of_all(layers: list[Layer], rows: list[Figures], elements: _Elements, weights: Array) -> Figures:
    """Return the figures of all layers together, each layer with the weight of its number of elements."""
    low, median, high = (
        _finite(x) for x in quantiles(elements.rates, np.array(PERCENTILES) / 100, weights).tolist()
    )
    equivalent = _finite(float(quantiles(elements.equivalents, np.array([0.5]), weights)[0]))
    known = elements.before is not None and elements.after is not None
    squares = weights if elements.before is None else weights * elements.before**2
    base_lr = _same([layer.base_lr for layer in layers])
    return Figures(
        layer=ALL,
        step=max(row.step for row in rows),
        elements=sum(row.elements for row in rows),
        rule=str(_same([row.rule for row in rows]) or "mixed"),
        lr=_same([row.lr for row in rows]),
        weight_decay=_same([row.weight_decay for row in rows]),
        rate_p10=low,
        rate_p50=median,
        rate_p90=high,
        rate_norm=_finite(_norm_rate(elements.rates, elements.before, weights)),
        correlation=correlation(elements.logs, elements.root_logs, squares),
        rms=_root_mean_square([row.rms for row in rows], rows),
        rms_equilibrium=_root_mean_square([row.rms_equilibrium for row in rows], rows),
        rotation=_finite(rotation(elements.before, elements.after, weights)) if known else None,
        rotation_equilibrium=_same([row.rotation_equilibrium for row in rows]),
        decay_times_max=max((row.decay_times_max for row in rows if row.decay_times_max is not None), default=None),
        timescale=1 / median if median and median > 0 else None,
        lost=None if elements.lost is None else float(np.average(elements.lost, weights=weights)),
        equivalent=equivalent,
        equivalent_independent=None if equivalent is None or base_lr is None else to_independent(equivalent, base_lr),
        decay_part=str(_same([row.decay_part for row in rows]) or "mixed"),
    )


def quantiles(values: Array, shares: Array, weights: Array) -> Array:
    """Return weighted quantiles: the smallest values below which at least these shares of the weight lie.

    Values that are NaN do not count; without any other the quantiles are NaN.

    Example:
        >>> quantiles(np.array([1.0, 2.0, 3.0]), np.array([0.5]), np.array([1.0, 1.0, 6.0])).tolist()
        [3.0]
    """
    known = ~np.isnan(values)
    values, weights = values[known], weights[known]
    if not values.size:
        return np.full(shares.shape, np.nan)
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    places = np.searchsorted(total, shares * total[-1] * (1 - 1e-12))
    return values[order][np.minimum(places, values.size - 1)]


def correlation(first: Array, second: Array, weights: Array | None = None) -> float | None:
    """Return the correlation of two arrays where both are finite; None where one of them has no spread.

    Example:
        >>> correlation(np.arange(9.0), -np.arange(9.0))
        -1.0
    """
    known = np.isfinite(first) & np.isfinite(second)
    if np.count_nonzero(known) < LEAST:
        return None
    x, y = first[known], second[known]
    share = np.ones(x.shape) if weights is None else weights[known]
    x, y = x - np.average(x, weights=share), y - np.average(y, weights=share)
    spreads = [math.sqrt(float(np.average(z * z, weights=share))) for z in (x, y)]
    if min(spreads) < 1e-9:  # of logarithms: the values differ by rounding only
        return None
    return round(float(np.average(x * y, weights=share)) / (spreads[0] * spreads[1]), 12)


def rotation(before: Any, after: Any, weights: Array | None = None) -> float:
    """Return the angle between two vectors in radians, exact for small angles too.

    Example:
        >>> round(rotation(np.array([1.0, 0.0]), np.array([1.0, 1e-6])), 12)
        1e-06
    """
    share = np.ones(before.shape) if weights is None else weights
    lengths = [math.sqrt(float(np.sum(share * x * x))) for x in (before, after)]
    if not all(0 < length < math.inf for length in lengths):
        return math.nan
    gap = before / lengths[0] - after / lengths[1]
    return 2 * math.asin(min(1.0, math.sqrt(float(np.sum(share * gap * gap))) / 2))


def _norm_rate(rates: Array, before: Array | None, weights: Array | None = None) -> float:
    """Return the rate at which decay shrinks the norm: the mean of the rates, weighted by the squared weights."""
    if before is None:
        return math.nan
    share = before * before * (1 if weights is None else weights)
    total = float(np.sum(share))
    return float(np.nansum(share * rates)) / total if total > 0 else math.nan


def _percentiles(rates: Array) -> list[float]:
    known = rates[~np.isnan(rates)]
    return np.percentile(known, PERCENTILES).tolist() if known.size else [math.nan] * len(PERCENTILES)


def _root_mean_square(values: list[float | None], rows: list[Figures]) -> float | None:
    squares = [row.elements * value * value for value, row in zip(values, rows, strict=True) if value is not None]
    return math.sqrt(sum(squares) / sum(row.elements for row in rows)) if len(squares) == len(rows) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _same(values: list[Any]) -> Any:
    """Return the value that all have, or None where they differ."""
    return values[0] if len(set(values)) == 1 else None


def _rule(layer: Layer) -> str:
    """Return the decay mode of a layer; "none" without weight decay."""
    if not layer.hyper.weight_decay:
        return "none"
    return layer.hyper.decay + (", cautious" if layer.hyper.cautious_decay else "")


def _certainty(layer: Layer) -> str:
    """Return how the decay part of a step is known."""
    if not layer.hyper.weight_decay or layer.hyper.decay != "l2":
        return "exact"
    return "exact" if layer.exact else "approximate"
