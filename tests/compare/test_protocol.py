"""The protocol if all runs of an arm diverge: some arms are left out, others end the study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adamas.compare.api import go_through
from adamas.compare.report.page import render
from adamas.compare.search.protocol import Protocol
from adamas.compare.study.arms import choose
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.errors import EveryRunDivergedError, PilotError
from adamas.compare.study.run import Outcome, Run
from adamas.compare.study.settings import Settings
from adamas.compare.study.specification import specification
from adamas.compare.study.workload import Workload
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import Summary, summarise
from benchmarks.simulated_job import follow

SGD = "torch.optim:SGD"


def study(diverges: Callable[[Run], bool]) -> Summary:
    """Return a simulated study of four equal arms in which some runs diverge."""

    def outcome(run: Run) -> Outcome:
        if diverges(run):
            return Outcome(status="diverged")
        figures = {"loss": 1.0 + 0.001 * (run.seed % 7)}
        return Outcome(
            status="ok",
            validation=figures,
            test=figures if run.stage == "final" else None,
            total_decay=1.0,
            steps=1000,
            epochs=10,
            gradient_scale=None if run.arm == SGD else (1e-4, 1e-3, 1e-2),
        )

    arms = choose(f"none,adam_l2,adamw,{SGD}")
    workload = Workload("simulated", "nowhere:job", "loss", "")
    settings = Settings(workload, arms=arms, budget=BUDGETS["quick"], seeds=4, out=Path("unused"))
    protocol = Protocol(settings, specification(settings), lambda searches: follow(searches, outcome))
    return summarise(go_through(protocol))


@pytest.mark.parametrize("stage", ["pilot", "search"])
def test_another_optimizer_that_diverges_is_left_out(stage: str) -> None:
    result = study(lambda run: run.arm == SGD and (run.stage == stage or run.stage != "pilot"))
    assert list(result.arms) == ["none", "adam_l2", "adamw"]
    (sentence,) = (sentence for sentence in result.warnings if sentence.startswith("Left out"))
    assert "torch.optim.SGD" in sentence
    assert result.verdict.kind == "no_difference"
    assert result.over_none
    assert any(run.arm == SGD for run in result.record.outcomes)  # tried, counted, kept
    assert "Left out: " in render([result])
    assert list(to_json([result])["studies"][0]["arms"]) == list(result.arms)


def test_without_decay_a_job_may_diverge() -> None:
    result = study(lambda run: run.arm == "none" and run.stage != "pilot")
    assert list(result.arms) == ["none", "adam_l2", "adamw", SGD]  # the pilot gave it a setting
    assert not result.over_none
    assert result.verdict.kind == "no_difference"
    assert result.verdict.note == ""
    assert "Adam without decay: the best setting diverged on 4 of 4 fresh seeds" in " ".join(result.warnings)


@pytest.mark.parametrize("arm", ["adam_l2", "adamw"])
def test_neither_of_the_two_may_be_missing(arm: str) -> None:
    with pytest.raises(EveryRunDivergedError, match="no setting of Adam"):
        study(lambda run: run.arm == arm)


def test_nor_may_adams_pilot() -> None:
    with pytest.raises(PilotError, match="1e-07"):
        study(lambda run: run.stage == "pilot")
