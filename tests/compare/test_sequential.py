"""Looks at the finals: all of them together are wrong as often as planned."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from adamas.compare.verdict.sequential import ERROR, level, looks, spent

STUDIES = 40_000


def wrong(levels: dict[int, float]) -> float:
    """Return the share of null studies in which a t interval at any look leaves out the truth."""
    values = np.random.default_rng(0).standard_normal((STUDIES, max(levels)))
    found = np.zeros(STUDIES, dtype=bool)
    for pairs, error in levels.items():
        seen = values[:, :pairs]
        size = np.abs(seen.mean(axis=1)) / (seen.std(axis=1, ddof=1) / np.sqrt(pairs))
        found |= size > special.stdtrit(pairs - 1, 1 - error / 2)
    return float(found.mean())


@pytest.mark.parametrize(("pairs", "planned"), [(7, 7), (8, 8), (20, 20), (17, 8), (80, 20)])
def test_all_looks_together_spend_the_error_that_is_due(pairs: int, planned: int) -> None:
    """The levels are those of normal sums. With t intervals of few pairs they spend a little more: up to .004 here."""
    taken = looks(pairs, planned)
    found = wrong({look: level(look, planned) for look in taken})
    assert spent(pairs, planned) - 0.004 < found < spent(pairs, planned) + 0.004
    assert found < ERROR


def test_ordinary_intervals_at_each_look_would_be_wrong_more_often() -> None:
    """That the test above can fail."""
    assert wrong(dict.fromkeys(looks(20, 20), 0.05)) > 0.1


def test_one_look_spends_what_an_ordinary_interval_spends() -> None:
    assert level(3, 3) == pytest.approx(spent(3, 3))
    assert level(20, 20) < spent(20, 20)


def test_the_error_never_exceeds_five_per_cent_however_long_a_study_is_extended() -> None:
    errors = [spent(pairs, 8) for pairs in (4, 8, 9, 16, 100, 10**6)]
    assert errors == sorted(errors)
    assert errors[-1] < ERROR


def test_a_study_that_is_extended_keeps_the_looks_it_had() -> None:
    assert looks(17, 8)[:2] == looks(8, 8)
    assert looks(100, 20)[:4] == looks(20, 20)
    assert [level(pairs, 8) for pairs in looks(8, 8)] == [level(pairs, 8) for pairs in looks(17, 8)[:2]]
