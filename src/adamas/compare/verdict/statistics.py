"""The difference of two arms over paired seeds: mean, 95 % interval, and two figures that decide nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

CONFIDENCE = 0.95
BOOTSTRAP_FROM = 20  # pairs; with 8 a BCa interval that says 95 % covers 87 %
EXACT_FLIPS = 2**13  # sign patterns enumerated rather than drawn: all of them up to 13 pairs


@dataclass(frozen=True)
class Difference:
    """First arm minus second, of a metric where lower is better; as fractions of the second's mean where relative.

    Attributes:
        values: of each pair.
        mean: of these.
        low: lower end of the 95 % interval.
        high: upper end.
        sd: standard deviation of the pairs' differences.
        relative: whether all of the above are fractions.
        method: what made the interval.
        p_sign_flip: two-sided sign-flip permutation p; 2/2^n is the smallest there is with n pairs.
        p_better: share of the pairs in which the first arm was lower, a tie counting half.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    sd: float
    relative: bool
    method: str
    p_sign_flip: float
    p_better: float


def paired_difference(first: Sequence[float], second: Sequence[float], relative: bool) -> Difference:
    """Compare two arms whose i-th values come from the same seed.

    The interval is Student's t below 20 pairs and a BCa bootstrap from there; where all differences are the same it is
    that point. A relative difference is divided by the second arm's mean, taken as known: its own error is of second
    order in a difference of a few per cent.

    Args:
        first: the metric of the arm in question, a value a seed.
        second: the same for the arm it is compared with.
        relative: express the difference as a fraction.

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
        raise ValueError("every value must be finite: an arm that diverged cannot be averaged")
    scale = float(b.mean()) if relative else 1.0
    if not scale > 0:
        raise ValueError(f"a relative difference needs a mean above 0, not {scale:g}; give the margin as 0.002abs")
    values = (a - b) / scale
    low, high, method = interval(values)
    return Difference(
        values=tuple(values.tolist()),
        mean=float(values.mean()),
        low=low,
        high=high,
        sd=float(values.std(ddof=1)),
        relative=relative,
        method=method,
        p_sign_flip=sign_flip_p(values),
        p_better=float(np.mean((a < b) + 0.5 * (a == b))),
    )


def interval(values: np.ndarray) -> tuple[float, float, str]:
    """95 % interval of the mean of `values`, and the method."""
    mean = float(values.mean())
    # Equal differences of rounded values differ in their last bits, which no interval should be made of.
    if np.ptp(values) <= 8 * np.finfo(float).eps * np.abs(values).max():
        return mean, mean, "identical differences"
    if len(values) < BOOTSTRAP_FROM:
        half = float(values.std(ddof=1) / math.sqrt(len(values)) * t_quantile(len(values)))
        return mean - half, mean + half, "paired t"
    from scipy import stats  # most of a second to import, and few studies have that many pairs

    found = stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, method="BCa", n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high), "BCa bootstrap"


def t_quantile(pairs: int | np.ndarray) -> np.ndarray:
    """Student's t for the 95 % interval of that many pairs, elementwise."""
    return special.stdtrit(pairs - 1, 0.5 + CONFIDENCE / 2)


def sign_flip_p(values: np.ndarray) -> float:
    """Two-sided p of the mean under random signs of the differences: how often another choice of signs is as extreme.

    Where the patterns of signs are too many to try all of them, as many are drawn, and the one at hand counts as drawn.
    """
    pairs = len(values)
    if 2**pairs <= EXACT_FLIPS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=pairs)))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(EXACT_FLIPS, pairs))
        signs = np.vstack([np.ones(pairs), drawn])
    sums = np.abs(signs @ values)
    ties = 1e-12 * np.abs(values).sum()  # equal sums differ by rounding, in whatever order they were added
    return float(np.mean(sums >= sums[0] - ties))


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where there are too few."""
    mean = math.fsum(values) / len(values) if values else math.nan
    if len(values) < 2:
        return mean, math.nan
    return mean, float(np.std(np.asarray(values), ddof=1))
