"""Looks: at how many pairs the finals are judged, and how wide the interval of each look is.

Whoever looks at 4, 8, 12 and 20 pairs with an ordinary 95% interval each time is wrong in more than 5% of studies.
So the 5% are spent bit by bit (Lan and DeMets 1983): seven tenths of them up to the planned number of pairs, as the
square of the share of these pairs (Kim and DeMets' power function with exponent 2), and the rest on pairs that
are added later, however many.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
from scipy import optimize, special

ERROR = 0.05  # of all looks together, however many there are
_PLANNED = 0.7  # of the error is spent by the planned number of pairs
_FIRST = (4, 8, 12, 20)  # pairs at which the finals are judged; then each time 1.6 times as many
_GROWTH = 1.6
_POINTS = 301  # of the grid on which the sum of the pairs is followed from one look to the next


def looks(pairs: int, planned: int) -> tuple[int, ...]:
    """Return the numbers of pairs at which finals of `pairs` pairs are judged, the planned number among them.

    Example:
        >>> looks(8, 8), looks(17, 8), looks(40, 20), looks(5, 20)
        ((4, 8), (4, 8, 12, 17), (4, 8, 12, 20, 32, 40), (4, 5))
    """
    found: list[int] = [*_FIRST]
    while found[-1] < pairs:
        found.append(round(found[-1] * _GROWTH))
    return tuple(sorted({look for look in (*found, planned) if look < pairs} | {pairs}))


def spent(pairs: int, planned: int) -> float:
    """Return the share of false verdicts that is spent after a number of pairs.

    Example:
        >>> [round(spent(pairs, 8), 5) for pairs in (4, 8, 16)]
        [0.00875, 0.035, 0.0425]
    """
    if pairs <= planned:
        return _PLANNED * ERROR * (pairs / planned) ** 2
    return ERROR * (_PLANNED + (1 - _PLANNED) * (1 - planned / pairs))


@lru_cache(maxsize=256)
def level(pairs: int, planned: int) -> float:
    """Return the two-sided error of the interval after `pairs` pairs, so that all looks together spend what is planned.

    The sum of the differences is followed from look to look as a sum of normal numbers; what lies outside the interval
    of a look ends there (Armitage, McPherson and Rowe 1969).

    Example:
        >>> round(level(4, 8), 4), round(level(8, 8), 3), round(level(20, 20), 3)
        (0.0088, 0.03, 0.028)
    """
    taken = looks(pairs, planned)
    bound = float(special.ndtri(1 - spent(taken[0], planned) / 2))
    where = np.linspace(-bound, bound, _POINTS) * math.sqrt(taken[0])
    density = np.exp(-(where**2) / (2 * taken[0])) / math.sqrt(2 * math.pi * taken[0])
    for before, now in pairwise(taken):
        weights, step, end = density * _trapezoid(where), math.sqrt(now - before), math.sqrt(now)
        due = spent(now, planned) - spent(before, planned)
        excess = partial(_excess, where / step, weights, end / step, due)
        bound = float(cast(Any, optimize.brentq)(excess, 0.5, 8.0))
        new = np.linspace(-bound, bound, _POINTS) * end
        apart = (new[:, None] - where[None, :]) / step
        density = np.exp(-0.5 * apart**2) @ weights / (step * math.sqrt(2 * math.pi))
        where = new
    return float(2 * special.ndtr(-bound))


def _excess(where: np.ndarray, weights: np.ndarray, end: float, due: float, bound: float) -> float:
    """Return the share of sums that the next look finds outside of a bound, less the share that is due."""
    outside = special.ndtr(where - bound * end) + special.ndtr(-where - bound * end)
    return float(weights @ outside) - due


def _trapezoid(points: np.ndarray) -> np.ndarray:
    """Return the weights of the trapezoidal rule on evenly spaced points."""
    weights = np.full(len(points), points[1] - points[0])
    weights[[0, -1]] /= 2
    return weights
