"""Warnings about a search: what it may have missed, and what its two best settings have in common."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from adamas.compare.study.run import Outcome, Run
from adamas.compare.verdict import statistics
from adamas.compare.verdict.result import summarise
from benchmarks.simulated_job import World, study


@pytest.fixture(autouse=True)
def no_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the sign-flip p, which decides nothing and takes most of the time of a simulated study."""
    monkeypatch.setattr(statistics, "sign_flip_p", lambda values: math.nan)


def test_a_verdict_against_an_arm_that_gained_nothing_says_how_wide_its_columns_are() -> None:
    gained = {"adam_l2": 0.8, "adamw": 1.0}
    result = study(World(0.01, best=gained, none=1.0, window=2.0), "quick")
    assert result.verdict.kind == "keep"
    (warning,) = (sentence for sentence in result.warnings if "times apart" in sentence)
    assert "AdamW's grid lie 3.16 times apart, and none of them clearly helped" in warning
    helped = study(World(0.01, best=gained, none=1.3, window=2.0), "quick")
    assert helped.verdict.kind == "keep"
    assert not any("AdamW's grid" in sentence for sentence in helped.warnings)


def test_two_arms_that_do_without_decay_are_not_told_apart_without_a_word() -> None:
    """Both winners are Adam without decay: their difference cannot come from decay."""
    result = study(World(0.01, best={"adam_l2": 1.0, "adamw": 0.8}, none=1.0), "quick")
    said, other = (summarise(replace(result.record, outcomes=weaker(result.record.outcomes, by))) for by in (1e-9, 1.0))
    assert (said.verdict.kind, other.verdict.kind) == ("switch", "switch")
    assert said.warnings[0].startswith("Both arms do best with almost no decay")
    assert not any("Both arms" in sentence for sentence in other.warnings)


def weaker(outcomes: dict[Run, Outcome], by: float) -> dict[Run, Outcome]:
    """Return the same outcomes with less total decay."""
    return {run: replace(outcome, total_decay=by * outcome.total_decay) for run, outcome in outcomes.items()}
