"""The search finds the best configs in simulated studies of equal arms with a narrow window of good decay.

The range of decay of Adam with L2 is wider by the spread of sqrt(v), here a thousandfold. If that arm were tuned more
coarsely for this reason, the verdict would be about the search.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import ClassVar, Literal

import numpy as np
import pytest

from adamas.compare.search import refine
from adamas.compare.search.protocol import Protocol
from adamas.compare.study.arms import DEFAULT, JUDGED
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.run import Outcome, Run
from adamas.compare.study.settings import Settings
from adamas.compare.verdict.result import Summary, summarise
from tests.compare.test_calibration import WORKLOAD, World, no_permutations, study

__all__ = ["no_permutations"]  # a fixture of every test here

STUDIES = 40
GAIN = 0.15  # of the best decay
SCALE = (3e-5, 1e-3, 3e-2)  # sqrt(v): 10th, 50th and 90th percentile
WEAKEST, STRONGEST = 1e-4, 1e-1  # lr * weight_decay of AdamW's grid in these studies


@dataclass(frozen=True)
class Narrow(World):
    """The truth of studies with equal arms, each with its best config somewhere in its own range.

    Attributes:
        shape: The shape of the window: a "bowl" that slopes everywhere, or a "well"; outside it decay gains nothing.
        l2_decay: The best lr * weight_decay of Adam with L2; None draws it at random.
    """

    level: dict[str, float] = field(default_factory=lambda: {"none": 1 + GAIN, "adam_l2": 1.0, "adamw": 1.0})
    sd: float = 0.01
    window: float = 0.4  # of decay, in decades
    steep: float = 0.05  # what a learning rate costs that is a decade off
    shape: Literal["bowl", "well"] = "bowl"
    l2_decay: float | None = None
    gradient_scale: ClassVar[tuple[float, float, float]] = SCALE

    def best(self, arm: str) -> tuple[float, float]:
        """Return the best learning rate and lr * weight_decay, at least half a column inside the grid."""
        random = np.random.default_rng([self.study, DEFAULT.index(arm)])
        lr, decay, scale = random.uniform(0, 0.5), random.uniform(0.1, 0.9), random.uniform()
        decay = WEAKEST * (STRONGEST / WEAKEST) ** decay
        if arm == "adam_l2":
            decay = decay * SCALE[0] * (SCALE[2] / SCALE[0]) ** scale if self.l2_decay is None else self.l2_decay
        return 1e-3 * 10**lr, decay

    def bowl(self, run: Run) -> float:
        """Return how much worse the config of a run is than the best config of its arm."""
        lr, decay = self.best(run.arm)
        off = math.log10(run.lr / lr)
        if not run.weight_decay:
            return self.steep * off**2
        away = math.log10(run.weight_decay_paper / decay) / self.window
        if self.shape == "bowl":
            return self.steep * off**2 + 0.05 * away**2
        return self.steep * off**2 + GAIN * (1 - math.exp(-(away**2) / 2))


def studies(world: Narrow) -> list[Summary]:
    return [study(world, number) for number in range(STUDIES)]


def regrets(results: list[Summary], arm: str, **world: float) -> float:
    return fmean(Narrow(study=number, **world).regret(result, arm) for number, result in enumerate(results))  # type: ignore[arg-type]


def kinds(results: list[Summary]) -> Counter[str]:
    return Counter(result.verdict.kind for result in results)


@pytest.mark.parametrize("steep", [0.05, 2.0])
def test_equal_arms_are_tuned_equally_well(steep: float) -> None:
    """The windows of decay and of learning rate are narrower than the columns of L2 and the steps of the grid."""
    found = studies(Narrow(steep=steep))
    assert kinds(found)["switch"] + kinds(found)["keep"] == 0
    for arm in DEFAULT:
        assert regrets(found, arm, steep=steep) < 0.006


def test_one_look_would_be_too_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test above can fail: the same runs in one look."""
    monkeypatch.setattr(refine, "LOOKS", 1)
    found = studies(Narrow())
    assert kinds(found)["switch"] >= 3
    assert regrets(found, "adam_l2") > 0.008


def test_a_second_look_around_the_lowest_figure_would_be_too_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test above can fail: the second look centred without parabolas."""
    monkeypatch.setattr(refine, "predicted_best", lambda grid, *rest: refine.best_of(grid, *rest))
    found = studies(Narrow(steep=2.0))
    assert kinds(found)["switch"] + kinds(found)["keep"] >= 3
    assert max(regrets(found, arm, steep=2.0) for arm in JUDGED) > 0.006


def test_an_optimum_below_the_weakest_decay_is_found() -> None:
    """The optimum lies a decade below. If the weakest decay were no edge, all would be told `switch`; measured: 1."""
    below = 0.1 * WEAKEST * SCALE[0]
    found = studies(Narrow(l2_decay=below))
    assert kinds(found)["switch"] <= 2
    assert regrets(found, "adam_l2", l2_decay=below) < 0.01


def test_a_verdict_against_an_arm_that_was_laid_out_widely_says_so() -> None:
    """The columns of L2 lie a factor of 100 apart: no run of a small grid hits a narrow well between two columns."""
    found = studies(Narrow(shape="well"))
    assert 0 < kinds(found)["switch"] < STUDIES / 2
    for result in found:
        warned = any("100 times apart" in sentence for sentence in result.warnings)
        assert warned == (result.verdict.kind == "switch")


def test_a_verdict_against_an_arm_that_gained_nothing_says_so_whatever_its_columns() -> None:
    """The columns of AdamW lie a factor of 10 apart."""
    result = study(Narrow({"none": 1.0, "adam_l2": 0.9, "adamw": 1.0}), 0)
    assert result.verdict.kind == "keep"
    (warning,) = (sentence for sentence in result.warnings if "times apart" in sentence)
    assert "AdamW's grid lie 10 times apart, and none of them clearly helped" in warning
    gained = study(Narrow({"none": 1.2, "adam_l2": 0.9, "adamw": 1.0}), 0)
    assert gained.verdict.kind == "keep"
    assert not any("times apart" in sentence for sentence in gained.warnings)


def test_two_arms_that_do_without_decay_are_not_told_apart_without_a_word() -> None:
    """Both winners are Adam without decay: their difference cannot come from decay."""
    apart = Narrow({"none": 1.0, "adam_l2": 1.1, "adamw": 1.0})
    (said, other) = (
        summarise(replace(result.record, outcomes=weaker(result.record.outcomes, by)))
        for result in [study(apart, 0)]
        for by in (1e-9, 1.0)
    )
    assert (said.verdict.kind, other.verdict.kind) == ("switch", "switch")
    assert said.warnings[0].startswith("Both arms do best with almost no decay")
    assert not any("Both arms" in sentence for sentence in other.warnings)


def weaker(outcomes: dict[Run, Outcome], by: float) -> dict[Run, Outcome]:
    """Return the same outcomes with less total decay."""
    return {run: replace(outcome, total_decay=by * outcome.total_decay) for run, outcome in outcomes.items()}


@pytest.mark.parametrize("name", list(BUDGETS))
def test_every_learning_rate_without_decay_is_judged_by_the_same_seeds(name: str) -> None:
    """If the last runs are too few for all seeds, they do not take part in the choice."""
    budget = BUDGETS[name]
    settings = Settings(WORKLOAD, budget=budget, out=Path("unused"))
    for number in range(10):
        record = Protocol(settings, {}, Narrow(study=number).follow).go_through()
        runs = record.searched["none"]
        seeds = {lr: [run.seed for run in runs if run.lr == lr] for lr in dict.fromkeys(run.lr for run in runs)}
        *whole, last = seeds.values()
        assert all(each == list(range(budget.repeats)) for each in whole)
        assert last == list(range(len(last)))
        assert len(seeds[record.winners["none"].lr]) == budget.repeats
