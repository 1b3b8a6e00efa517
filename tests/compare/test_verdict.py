from __future__ import annotations

import math

import pytest
from scipy import stats

from adamas.compare.study.margin import Margin
from adamas.compare.verdict.decision import Relation, Verdict, decide, further_seeds, relation
from adamas.compare.verdict.statistics import Difference

MARGIN = Margin(0.02)


def difference(low: float, mean: float, high: float, sd: float = 0.03, pairs: int = 8) -> Difference:
    return Difference((mean,) * pairs, mean, low, high, sd, True, "paired t", 0.1, 0.5)


SAME = difference(-0.005, 0.0, 0.005)


def verdict(adamw: Difference, l2_over_none: Difference = SAME, adamw_over_none: Difference = SAME) -> Verdict:
    return decide(adamw, {"adam_l2": l2_over_none, "adamw": adamw_over_none}, "cross_entropy", MARGIN)


@pytest.mark.parametrize(
    ("low", "mean", "high", "expected"),
    [
        (-0.05, -0.03, -0.01, "lower"),
        (-0.021, -0.02, -0.019, "lower"),  # a mean at the margin is enough
        (-0.04, -0.0199, -0.001, "unclear"),  # excludes 0, but smaller than matters, and perhaps larger
        (-0.019, -0.01, -0.001, "same"),  # excludes 0, and yet does not matter
        (-0.05, -0.02, 0.01, "unclear"),
        (-0.02, 0.0, 0.019, "unclear"),  # the band is open
        (-0.0199, 0.0, 0.0199, "same"),
        (0.001, 0.03, 0.06, "higher"),
        (0.0, 0.03, 0.06, "unclear"),  # 0 is not excluded by touching it
        (-0.03, -0.03, -0.03, "lower"),  # identical differences
        (0.0, 0.0, 0.0, "same"),
    ],
)
def test_relation(low: float, mean: float, high: float, expected: Relation) -> None:
    assert relation(difference(low, mean, high), MARGIN) == expected
    mirrored = {"lower": "higher", "higher": "lower"}.get(expected, expected)
    assert relation(difference(-high, -mean, -low), MARGIN) == mirrored


def test_the_table() -> None:
    assert verdict(difference(-0.05, -0.03, -0.01)).kind == "switch"
    assert verdict(difference(0.01, 0.03, 0.05)).kind == "keep"
    assert verdict(SAME).kind == "no_difference"
    assert verdict(difference(-0.05, -0.03, 0.01)).kind == "undecided"


def test_no_decay_goes_before_everything() -> None:
    worse, better = difference(0.01, 0.03, 0.05), difference(-0.05, -0.03, -0.01)
    found = verdict(better, worse, difference(0.02, 0.04, 0.06))
    assert found.kind == "no_decay"
    assert "Adam with L2" in found.text  # the nearer of the two
    assert "3.00 %" in found.text
    assert verdict(better, worse, SAME).kind == "switch"  # one that keeps up is enough


def test_notes_on_decay() -> None:
    better, unclear = difference(-0.05, -0.03, -0.01), difference(-0.05, -0.01, 0.03)
    assert verdict(SAME).note == "Weight decay does not help this job: neither arm beats Adam without it."
    assert (
        verdict(SAME, unclear).note
        == "It is unclear whether weight decay helps this job: neither arm clearly beats Adam without it."
    )
    assert verdict(SAME, better, unclear).note == "Weight decay helps this job: Adam with L2 beats Adam without it."
    assert "Adam with L2 and AdamW beat " in verdict(SAME, better, better).note


@pytest.mark.parametrize(
    ("mean", "half", "leaning"),
    [
        (-0.03, 0.04, "leaning towards AdamW"),
        (0.03, 0.04, "leaning towards Adam with L2"),
        (-0.01, 0.02, "leaning towards no difference"),
        (0.01, 0.0299, "leaning towards no difference"),
        (0.01, 0.031, "too noisy to tell"),  # AdamW may be better by the margin, and worse by it
        (-0.10, 0.20, "too noisy to tell"),
    ],
)
def test_undecided_leans(mean: float, half: float, leaning: str) -> None:
    found = verdict(difference(mean - half, mean, mean + half))
    assert found.kind == "undecided"
    assert found.advice == f"Undecided, {leaning}"
    assert found.more_seeds is not None
    assert f"{found.more_seeds} more seed" in found.text


@pytest.mark.parametrize(("mean", "room"), [(-0.03, 0.03), (0.025, 0.025), (0.012, 0.008), (0.0, 0.02)])
def test_further_seeds_are_the_fewest_that_decide(mean: float, room: float) -> None:
    more = further_seeds(difference(mean - 1, mean, mean + 1, sd=0.05), MARGIN)
    assert more is not None

    def half(pairs: int) -> float:
        return float(stats.t.ppf(0.975, pairs - 1)) * 0.05 / math.sqrt(pairs)

    assert half(8 + more) < room
    assert more == 1 or half(8 + more - 1) >= room
    assert relation(difference(mean - half(8 + more), mean, mean + half(8 + more)), MARGIN) != "unclear"


def test_hopeless_is_said() -> None:
    found = verdict(difference(-1.0, -0.0199, 1.0, sd=1.0))
    assert found.more_seeds is None
    assert "widen the margin" in found.text


@pytest.mark.parametrize(
    ("text", "value", "relative"),
    [
        ("2%", 0.02, True),
        ("0.02", 0.02, True),
        (" 1.5 % ", 0.015, True),
        ("0.002abs", 0.002, False),
        ("1e-3abs", 0.001, False),
    ],
)
def test_margins(text: str, value: float, relative: bool) -> None:
    found = Margin.parse(text)
    assert (found.value, found.relative) == (pytest.approx(value), relative)
    assert Margin.parse(str(found)) == found


@pytest.mark.parametrize("text", ["", "two", "-1%", "0", "0%", "nan", "inf", "1.2.3", "2%abs", "5 apples"])
def test_margins_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"margin=.*must be"):
        Margin.parse(text)
