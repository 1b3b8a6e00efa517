"""A verdict tells how often its budget was right on simulated studies, by counts that a benchmark made."""

import json
from pathlib import Path
from typing import Any

import pytest

from adamas.compare.verdict import reliability as module
from adamas.compare.verdict.reliability import reliability
from adamas.compare.verdict.wording import texts
from benchmarks import verdict_errors


def counted(**changed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A table in which "quick" told equal arms apart in 2 of 10 at each of five noises, and found 9 gaps of 10."""
    rows: dict[str, dict[str, Any]] = {
        f"null, quick, noise {noise:.0%}": {"studies": 10, "switch": 1, "keep": 1, "undecided": 8}
        for noise in verdict_errors.NOISES
    }
    return rows | {"gap 10%, quick, noise 5%": {"studies": 10, "switch": 9, "undecided": 1}} | changed


def test_the_sums_are_those_of_the_rows() -> None:
    assert verdict_errors.packaged(counted()) == {
        "quick": {
            "equal": 50, "told_apart": 10, "least_noise": "2%", "most_noise": "60%",
            "apart": 10, "found": 9, "reversed": 0, "gap": "10%", "gap_noise": "5%",
        }
    }  # fmt: skip
    rows = counted()
    del rows["null, quick, noise 60%"]
    assert verdict_errors.packaged(rows) == {}  # a budget is told of when all of its rows are counted


def test_the_package_has_the_counts_of_the_benchmark() -> None:
    rows = json.loads(verdict_errors.RESULTS.read_text())["rows"]
    packaged = Path(module.__file__).with_suffix(".json")
    assert json.loads(packaged.read_text()) == verdict_errors.packaged(rows)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_counted_budget_is_told_of_and_another_is_not(lang: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_counts", lambda: verdict_errors.packaged(counted()))
    found = reliability("quick", texts(lang))
    assert all(number in found for number in ("quick", "10", "50", "2%", "60%", "10%", "5%", "9"))
    assert reliability("quick with 40 runs", texts(lang)) == ""
