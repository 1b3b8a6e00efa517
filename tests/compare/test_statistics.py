from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from adamas.compare.verdict.statistics import paired_difference, sign_flip_p

A = [1.02, 0.97, 1.10, 0.93, 1.05, 0.99, 1.01, 0.96]
B = [1.05, 1.01, 1.09, 0.99, 1.11, 1.04, 1.00, 1.03]


def test_paired_t_by_hand() -> None:
    found = paired_difference(A, B, relative=False)
    differences = [a - b for a, b in zip(A, B, strict=True)]
    mean = sum(differences) / 8
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / 7)
    half = 2.364624251592785 * sd / math.sqrt(8)  # t(.975, 7), from a table
    assert found.method == "paired t"
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.sd == pytest.approx(sd, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), rel=1e-9)


def test_relative_is_a_fraction_of_the_second_mean() -> None:
    absolute, relative = paired_difference(A, B, relative=False), paired_difference(A, B, relative=True)
    scale = sum(B) / 8
    for field in ("mean", "low", "high", "sd"):
        assert getattr(relative, field) == pytest.approx(getattr(absolute, field) / scale, rel=1e-12)
    assert relative.p_better == absolute.p_better
    assert relative.p_sign_flip == absolute.p_sign_flip


def test_bootstrap_from_twenty_pairs_on() -> None:
    random = np.random.default_rng(3)
    first, second = random.normal(1.0, 0.1, 24), random.normal(1.1, 0.1, 24)
    assert paired_difference(first[:19], second[:19], relative=False).method == "paired t"
    found = paired_difference(first, second, relative=False)
    assert found.method == "BCa bootstrap"
    # For a roughly normal sample the two intervals agree to within a tenth of their width.
    half = stats.sem(first - second) * stats.t.ppf(0.975, 23)
    assert found.low == pytest.approx(found.mean - half, abs=0.2 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.2 * half)
    assert found == paired_difference(first, second, relative=False)  # its random numbers are fixed


@pytest.mark.parametrize("pairs", [8, 24])
def test_identical_differences_are_a_point(pairs: int) -> None:
    second = [0.1 * i + 0.3 for i in range(pairs)]
    found = paired_difference([value - 0.25 for value in second], second, relative=False)
    assert found.low == found.high == found.mean == pytest.approx(-0.25)
    assert found.method == "identical differences"


def test_equal_arms() -> None:
    found = paired_difference(A, A, relative=True)
    assert (found.low, found.mean, found.high) == (0.0, 0.0, 0.0)
    assert found.p_sign_flip == 1.0
    assert found.p_better == 0.5


def test_sign_flip_p_is_exact_and_bounded_below() -> None:
    # All differences point the same way: of 2^n sign patterns, only all-plus and all-minus are as extreme.
    lower = [value - 0.1 - 0.01 * i for i, value in enumerate(B)]
    assert paired_difference(lower, B, relative=False).p_sign_flip == pytest.approx(2 / 2**8)
    # The sums of +-1 +-2 +-4 are the odd numbers from -7 to 7: all are as far from 0 as 1 + 2 - 4.
    assert paired_difference([1.0, 2.0, -4.0], [0.0, 0.0, 0.0], relative=False).p_sign_flip == pytest.approx(1.0)
    # And -1 + 2 + 4 = 5 is reached or passed by 4 of the 8.
    assert paired_difference([-1.0, 2.0, 4.0], [0.0, 0.0, 0.0], relative=False).p_sign_flip == pytest.approx(0.5)


@pytest.mark.parametrize(("pairs", "tolerance"), [(3, 0.0), (8, 0.0), (13, 0.0), (20, 0.03)])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_sign_flip_p_is_that_of_scipy(pairs: int, tolerance: float, shift: float) -> None:
    """With 14 pairs or more, both draw 8,192 patterns: the difference of two estimates has an sd of at most .0078."""
    values = np.random.default_rng(pairs).normal(shift, 0.2, pairs)
    oracle = stats.permutation_test(
        (values, -values),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**13,
        rng=np.random.default_rng(1),
    )
    assert sign_flip_p(values) == pytest.approx(oracle.pvalue, rel=1e-12, abs=tolerance)


def test_share_of_pairs_won() -> None:
    assert paired_difference([1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 3.0, 3.0], relative=False).p_better == 2.5 / 4


@pytest.mark.parametrize(
    ("first", "second", "relative", "message"),
    [
        ([1.0], [1.0], False, "at least 2"),
        ([1.0, 2.0], [1.0], False, "same number of seeds"),
        ([1.0, math.inf], [1.0, 1.0], False, "finite"),
        ([1.0, 2.0], [-1.0, -2.0], True, "0.002abs"),
        ([0.0, 0.0], [0.0, 0.0], True, "0.002abs"),
    ],
)
def test_refused(first: list[float], second: list[float], relative: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(first, second, relative)
