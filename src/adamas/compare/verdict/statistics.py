"""The difference of two arms over paired seeds: its mean, an interval, and two figures that decide nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

_BOOTSTRAP_FROM = 20  # pairs; with 8 pairs a 95% interval by BCa covers 87%
_SEARCH = 2.0  # standard deviations of the search's chance, which comes once and not again at each look
_EXACT_FLIPS = 2**13  # up to so many patterns of signs, those of 13 pairs, all are tried; of more, so many are drawn


@dataclass(frozen=True)
class Difference:
    """The first arm minus the second, for a metric where lower is better.

    Attributes:
        values: The difference of each pair.
        mean: The mean of the differences.
        low: The lower end of the interval.
        high: The upper end of the interval.
        sd: The standard deviation of the differences.
        search: The standard deviation that the searches of the two arms add: how far their settings may be off.
        relative: Whether all of the above are fractions of the second arm's mean.
        method: The method that made the interval.
        p_sign_flip: The two-sided p of the sign-flip permutation test; with n pairs it is never below 2/2^n.
        p_better: The share of the pairs in which the first arm was lower; a tie counts half.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    sd: float
    search: float
    relative: bool
    method: str
    p_sign_flip: float
    p_better: float

    @property
    def identical(self) -> bool:
        """Whether the two arms gave the same figure on every seed."""
        return not any(self.values)


def paired_difference(
    first: Sequence[float], second: Sequence[float], relative: bool, level: float = 0.05, search: float = 0.0
) -> Difference:
    """Return the difference of two arms; their i-th values come from the same seed.

    The interval is Student's t below 20 pairs and a BCa bootstrap from 20 on, widened by the chance of the search. If
    the two arms gave the same figures, it is the point 0. A relative difference is divided by the second arm's mean as
    if that were exact: the error of the mean is of second order in a difference of a few per cent.

    Args:
        first: The metric of the first arm, one value for each seed.
        second: The metric of the second arm, for the same seeds.
        relative: Whether to return fractions of the second arm's mean.
        level: The two-sided error of the interval.
        search: The standard deviation that the searches of the two arms add, in the same unit.

    Raises:
        ValueError: fewer than two pairs, values that are not finite, or a relative difference from a mean <= 0.

    Example:
        >>> d = paired_difference([0.9, 1.0, 1.1], [1.0, 1.1, 1.2], relative=False)
        >>> round(d.mean, 12), d.method
        (-0.1, 'paired t')
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"{a.size} and {b.size} values must be the same number of seeds, at least 2")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("every value must be finite: an arm that diverged has no mean")
    scale = float(b.mean()) if relative else 1.0
    if not scale > 0:
        raise ValueError(f"a relative difference needs a mean above 0, not {scale:g}; give the margin as 0.002abs")
    values = (a - b) / scale
    low, high, method = _interval(values, level)
    mean = float(values.mean())
    if values.any():  # equal figures show that decay did nothing, and no other setting of it would
        width = _SEARCH * search
        low, high = mean - math.hypot(mean - low, width), mean + math.hypot(high - mean, width)
    return Difference(
        values=tuple(values.tolist()),
        mean=mean,
        low=low,
        high=high,
        sd=float(values.std(ddof=1)),
        search=search,
        relative=relative,
        method=method,
        p_sign_flip=sign_flip_p(values),
        p_better=float(np.mean((a < b) + 0.5 * (a == b))),
    )


def _interval(values: np.ndarray, level: float) -> tuple[float, float, str]:
    """Return the interval of the mean of `values`, and the method that made it."""
    mean = float(values.mean())
    # Equal differences may differ in their last bits by rounding, from which no interval should be made.
    if np.ptp(values) <= 8 * np.finfo(float).eps * np.abs(values).max():
        return mean, mean, "identical differences"
    if len(values) < _BOOTSTRAP_FROM:
        half = float(values.std(ddof=1) / math.sqrt(len(values)) * t_quantile(len(values), level))
        return mean - half, mean + half, "paired t"
    from scipy import stats  # the import takes most of a second, and few studies have that many pairs

    found = stats.bootstrap(
        (values,), np.mean, confidence_level=1 - level, method="BCa", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high), "BCa bootstrap"


def t_quantile(pairs: int | np.ndarray, level: float) -> np.ndarray:
    """Return Student's t of an interval with a two-sided error, for each number of pairs."""
    return special.stdtrit(pairs - 1, 1 - level / 2)


def sign_flip_p(values: np.ndarray) -> float:
    """Return the two-sided p of the mean: the share of patterns of signs with a sum as far from 0 as the observed sum.

    If there are too many patterns to try all, some are drawn, and the observed one is added to them.
    """
    pairs = len(values)
    if 2**pairs <= _EXACT_FLIPS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=pairs)))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(_EXACT_FLIPS, pairs))
        signs = np.vstack([np.ones(pairs), drawn])
    sums = np.abs(signs @ values)
    ties = 1e-12 * np.abs(values).sum()  # equal sums may differ by rounding
    return float(np.mean(sums >= sums[0] - ties))


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation; NaN where there are too few values."""
    mean = math.fsum(values) / len(values) if values else math.nan
    return mean, float(np.std(np.asarray(values), ddof=1)) if len(values) > 1 else math.nan
