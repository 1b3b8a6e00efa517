from __future__ import annotations

import math

import numpy as np
import pytest

from adamas.compare.study.margin import Margin
from adamas.compare.verdict.decision import Plan, Relation, Verdict, decide, further_seeds, relation
from adamas.compare.verdict.sequential import level, looks
from adamas.compare.verdict.statistics import Difference, paired_difference

MARGIN = Margin(0.02)


def difference(low: float, mean: float, high: float, sd: float = 0.03, pairs: int = 8) -> Difference:
    return Difference((mean + 1e-9,) * pairs, mean, low, high, sd, 0.0, True, "paired t", 0.1, 0.5)


SAME = difference(-0.005, 0.0, 0.005)


PLAN = Plan(8)


def verdict(
    adamw: Difference, l2_over_none: Difference = SAME, adamw_over_none: Difference = SAME, tuned: bool = True
) -> Verdict:
    over_none = {"adam_l2": l2_over_none, "adamw": adamw_over_none}
    return decide(adamw, over_none, "cross_entropy", MARGIN, Plan(8, tuned))


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
    assert "3.00%" in found.text
    assert verdict(better, worse, SAME, tuned=False).kind == "switch"  # one that keeps up is enough


def test_no_verdict_against_an_arm_whose_search_failed() -> None:
    """A tuned arm cannot lose to Adam without decay: its decay may go to zero."""
    worse, better = difference(0.01, 0.03, 0.05), difference(-0.05, -0.03, -0.01)
    found = verdict(better, worse, SAME)
    assert (found.kind, found.failed, found.settled) == ("undecided", "adam_l2", True)
    assert found.advice == "Undecided, the search of Adam with L2 failed"
    assert "+3.00% against Adam without decay" in found.text
    assert verdict(worse, SAME, worse).failed == "adamw"
    assert verdict(better, SAME, worse).kind == "switch"  # the one that lost to none won all the same
    assert not verdict(difference(-0.05, -0.03, 0.01), worse, SAME).settled  # more seeds may tell


def test_figures_that_are_identical_say_so() -> None:
    equal = Difference((0.0,) * 8, 0.0, 0.0, 0.0, 0.0, 0.3, True, "identical differences", 1.0, 0.5)
    found = verdict(equal, equal, equal)
    assert found.kind == "no_difference"
    assert found.text == ("No difference: AdamW and Adam with L2 gave identical figures on every one of 8 seeds.")
    assert found.note.startswith("Weight decay touches nothing here")


def test_notes_on_decay() -> None:
    better, unclear = difference(-0.05, -0.03, -0.01), difference(-0.05, -0.01, 0.03)
    assert verdict(SAME).note == "Weight decay changes the figure by less than your margin of 2%."
    harms = difference(0.001, 0.004, 0.007)
    assert verdict(SAME, harms, harms).note == (
        "Weight decay does not help this job: neither arm beats Adam without it."
    )
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
        (-0.155, 0.156, "too noisy to tell"),  # wider than fifteen margins
    ],
)
def test_undecided_leans(mean: float, half: float, leaning: str) -> None:
    found = verdict(difference(mean - half, mean, mean + half))
    assert found.kind == "undecided"
    assert found.advice == f"Undecided, {leaning}"
    assert not found.settled


def test_further_seeds_decide_as_often_as_they_say() -> None:
    """Against a simulation of the further pairs by other means: drawn one by one, judged by the real interval."""
    values = np.random.default_rng(3).normal(-0.025, 0.04, 8)
    seen = paired_difference((1 + values).tolist(), [1.0] * 8, True, level(8, 8))
    more, chance = further_seeds(seen, MARGIN, PLAN)
    assert more is not None
    rng, decided = np.random.default_rng(4), 0
    for _ in range(400):
        truth = seen.mean + seen.sd / math.sqrt(8) * rng.standard_t(7)
        every = np.append(values, rng.normal(truth, seen.sd, more))
        now = paired_difference((1 + every).tolist(), [1.0] * len(every), True, level(8 + more, 8))
        decided += relation(now, MARGIN) != "unclear"
    assert decided / 400 == pytest.approx(chance, abs=0.1)
    assert chance >= 0.5


def test_fewer_further_seeds_are_not_likely_to_decide() -> None:
    seen = difference(-0.06, -0.025, 0.01, sd=0.05)
    more, _ = further_seeds(seen, MARGIN, PLAN)
    assert more is not None
    assert 8 + more in looks(60, 8)
    wider = difference(-0.1, -0.025, 0.05, sd=0.1)
    later, _ = further_seeds(wider, MARGIN, PLAN)
    assert later is None or later > more


def test_hopeless_is_said() -> None:
    found = verdict(difference(-1.0, -0.0199, 1.0, sd=1.0))
    assert found.more_seeds is None
    assert "more seeds are not likely to settle this; use a wider margin" in found.text


def test_a_search_that_is_uncertain_makes_more_seeds_hopeless() -> None:
    """Seeds of the finals say nothing about settings that were not found."""
    seen = Difference((-0.025,) * 8, -0.025, -0.2, 0.15, 0.02, 0.1, True, "paired t", 0.1, 0.5)
    assert further_seeds(seen, MARGIN, PLAN)[0] is None


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
