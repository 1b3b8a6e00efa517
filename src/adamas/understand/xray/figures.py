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
NO_SPREAD = 1e-9**2  # a variance of logarithms below this comes from rounding
MOST_TOGETHER = 2**16  # how many elements of all layers together give their percentiles


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


def read(sample: Sample) -> Reading:
    """Compute the figures of every layer, and of all together."""
    rates, roots = sample.rates(), sample.root_hat()
    equivalents = _equivalents(sample)
    sums = _sums(sample, rates, roots)
    ends = np.cumsum(sample.counts).tolist()
    layers: list[Figures] = []
    for index, layer in enumerate(sample.layers):
        where = slice(ends[index] - int(sample.counts[index]), ends[index])
        points = _percentiles(np.sort(rates[where]))
        equal = float(np.median(equivalents[where]))
        own = {key: float(value[index]) for key, value in sums.items()}
        layers.append(_of_layer(layer, points, equal, own, int(sample.counts[index])))
    every = -(-len(rates) // MOST_TOGETHER)
    weights = sample.spread([layer.elements for layer in sample.layers]) / sample.spread(sample.counts.tolist())
    some, weights = slice(None, None, every), weights[::every]
    pooled = quantiles(roots[some], np.linspace(0, 1, 101), weights)
    points = quantiles(rates[some], np.array(PERCENTILES) / 100, weights).tolist()
    equal = float(quantiles(equivalents[some], np.array([0.5]), weights)[0])
    scale = np.array([layer.elements for layer in sample.layers]) / sample.counts
    total = _of_all(sample.layers, layers, points, equal, {key: float(scale @ value) for key, value in sums.items()})
    return Reading(max(layer.step for layer in sample.layers), layers, total, pooled)


def _equivalents(sample: Sample) -> Array:
    """Return for each element the weight decay of AdamW, in torch's convention, that decays it alike."""
    lam = sample.spread([layer.scalars.l2 for layer in sample.layers])
    decoupled = [layer.scalars.decay / layer.hyper.lr if layer.hyper.lr else 0.0 for layer in sample.layers]
    with np.errstate(invalid="ignore"):
        return np.where(lam > 0, lam * sample.gain(), sample.spread(decoupled))


def _sums(sample: Sample, rates: Array, roots: Array) -> dict[str, Array]:
    """Return for each layer the sums over its sampled elements from which figures follow.

    The correlation counts each weight by its square, as the norm does: a weight near 0 has hardly a rate, because it
    changes by more than itself while the first moment averages. Without weights, all elements count alike.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = np.log(np.where(rates > 0, rates, np.nan)), np.log(roots)
    share = np.ones(x.shape) if sample.before is None else sample.before**2
    known = np.isfinite(x) & np.isfinite(y)
    x, y = (np.where(known, z - (np.mean(z[known]) if known.any() else 0.0), 0.0) for z in (x, y))
    counted = np.where(known, share, 0.0)
    terms = {
        "known": known, "w": counted, "wx": counted * x, "wy": counted * y, "wxx": counted * x * x,
        "wyy": counted * y * y, "wxy": counted * x * y,
    }  # fmt: skip
    if sample.before is not None:
        terms |= {"squares": share, "decay": share * np.nan_to_num(rates, posinf=0.0)}
        change = sum(sample.parts())
        if sample.unchanged is not None:
            terms["lost"] = sample.unchanged & (change != 0)
        if sample.after is not None:
            terms |= {"after": sample.after**2, "product": (sample.after - sample.before) * sample.before}
            terms |= {"moved": (sample.after - sample.before) ** 2}
    starts = np.concatenate([[0], np.cumsum(sample.counts)[:-1]])
    return {key: np.add.reduceat(term.astype(np.float64), starts) for key, term in terms.items()}


def _of_layer(layer: Layer, points: list[float], equal: float, sums: dict[str, float], count: int) -> Figures:
    """Return the figures of one layer.

    Args:
        layer: the layer.
        points: the percentiles of its rates.
        equal: the median weight decay under AdamW that decays alike.
        sums: the sums over its sampled elements.
        count: how many there are.
    """
    low, median, high = (_finite(value) for value in points)
    norm = _ratio(sums, "decay", "squares")
    lr = layer.hyper.lr
    equivalent = _finite(norm / lr if layer.hyper.cautious_decay and norm is not None and lr else equal)
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
        rate_norm=norm,
        correlation=_correlation(sums),
        rms=layer.rms,
        rms_equilibrium=adamw_equilibrium_rms(lr, equivalent) if equivalent else None,
        rotation=_rotation(sums),
        rotation_equilibrium=equilibrium_rotation(lr, equivalent, layer.hyper.beta1) if equivalent else None,
        decay_times_max=None if layer.largest is None or equivalent is None else equivalent * layer.largest,
        timescale=1 / median if median and median > 0 else None,
        lost=sums["lost"] / count if "lost" in sums else None,
        equivalent=equivalent,
        equivalent_independent=None if equivalent is None else to_independent(equivalent, layer.base_lr),
        decay_part=_certainty(layer),
    )


def _of_all(
    layers: list[Layer], rows: list[Figures], points: list[float], equal: float, sums: dict[str, float]
) -> Figures:
    """Return the figures of all layers together, each layer with the weight of its number of elements."""
    low, median, high = (_finite(value) for value in points)
    cautious = any(layer.hyper.cautious_decay for layer in layers)
    norm, lr, base_lr = (
        _ratio(sums, "decay", "squares"),
        _same([r.lr for r in rows]),
        _same([x.base_lr for x in layers]),
    )
    equivalent = _finite(norm / lr if cautious and norm is not None and lr else equal)
    elements = sum(row.elements for row in rows)
    return Figures(
        layer=ALL,
        step=max(row.step for row in rows),
        elements=elements,
        rule=str(_same([row.rule for row in rows]) or "mixed"),
        lr=lr,
        weight_decay=_same([row.weight_decay for row in rows]),
        rate_p10=low,
        rate_p50=median,
        rate_p90=high,
        rate_norm=norm,
        correlation=_correlation(sums),
        rms=_root_mean_square([row.rms for row in rows], rows),
        rms_equilibrium=_root_mean_square([row.rms_equilibrium for row in rows], rows),
        rotation=_rotation(sums),
        rotation_equilibrium=_same([row.rotation_equilibrium for row in rows]),
        decay_times_max=max((row.decay_times_max for row in rows if row.decay_times_max is not None), default=None),
        timescale=1 / median if median and median > 0 else None,
        lost=sums["lost"] / elements if "lost" in sums else None,
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


def _correlation(sums: dict[str, float]) -> float | None:
    """Return the correlation of log rate with log sqrt(v_hat); None where one of them has no spread."""
    if sums["known"] < LEAST or not sums["w"] > 0:
        return None
    x, y = sums["wx"] / sums["w"], sums["wy"] / sums["w"]
    spreads = [sums["wxx"] / sums["w"] - x * x, sums["wyy"] / sums["w"] - y * y]
    if min(spreads) < NO_SPREAD:
        return None
    return (sums["wxy"] / sums["w"] - x * y) / math.sqrt(spreads[0] * spreads[1])


def _rotation(sums: dict[str, float]) -> float | None:
    """Return the angle in radians between the weights before and after a step, exact for small angles too."""
    if "moved" not in sums or not sums["squares"] > 0 or not math.isfinite(sums["moved"]):
        return None
    along = sums["product"] / math.sqrt(sums["squares"])  # what the step moves along the weights
    across = math.sqrt(max(0.0, sums["moved"] - along * along))
    return math.atan2(across, math.sqrt(sums["squares"]) + along)


def _ratio(sums: dict[str, float], part: str, whole: str) -> float | None:
    return sums[part] / sums[whole] if sums.get(whole) else None


def _percentiles(ordered: Array) -> list[float]:
    """Return the percentiles of ascending numbers, NaN at their end left out; the nearest number of each."""
    count = len(ordered) - int(np.count_nonzero(np.isnan(ordered)))
    return [float(ordered[round(p / 100 * (count - 1))]) if count else math.nan for p in PERCENTILES]


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
