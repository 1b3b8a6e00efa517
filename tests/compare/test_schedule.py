"""Schedules: searches that share passes wait for one another, others go on alone."""

from __future__ import annotations

from collections import Counter

import pytest

from adamas.compare.runner.tasks import STACKED, Schedule, tasks
from adamas.compare.search.protocol import Request, Requests
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.run import Outcome, Run, Stage
from adamas.compare.study.workload import Workload

TOGETHER = Workload("together", "nowhere:job", "loss", "", stackable=True, seeds_together=True)
APART = Workload("apart", "nowhere:job", "loss", "")
OUTCOME = Outcome("ok")


def run(arm: str, stage: Stage, seed: int = 0) -> Run:
    return Run(stage, arm, 1e-3, 0.1, seed)


def search(arm: str, *stages: Stage) -> Requests:
    for stage in stages:
        outcomes = yield Request((run(arm, stage),), may_prune=stage == "search")
        assert outcomes == {run(arm, stage): OUTCOME}


def requested(schedule: Schedule) -> list[tuple[str, str]]:
    return sorted((each.stage, each.arm) for task in schedule.tasks for each in task.runs)


def test_searches_go_on_with_the_earliest_stage_and_end_together() -> None:
    schedule = Schedule([search("none", "search", "final"), search("adamw", "search", "refine", "final")], TOGETHER, 2)
    done: dict[str, Outcome] = {}
    for stage, arms in (("search", ["adamw", "none"]), ("refine", ["adamw"]), ("final", ["adamw", "none"])):
        assert requested(schedule) == [(stage, arm) for arm in arms]
        assert [task.may_prune for task in schedule.tasks] == [stage == "search"] * len(schedule.tasks)
        for arm in arms[1:]:
            done[run(arm, stage).key] = OUTCOME  # type: ignore[arg-type]
            assert schedule.advance(done)  # which changes nothing: one run is missing
            assert requested(schedule) == [(stage, arm) for arm in arms]
        done[run(arms[0], stage).key] = OUTCOME  # type: ignore[arg-type]
        assert schedule.advance(done) is (stage != "final")


def test_a_single_search_waits_for_no_other() -> None:
    schedule = Schedule([search("none", "search", "final")], APART, 2)
    assert requested(schedule) == [("search", "none")]
    assert schedule.advance({run("none", "search").key: OUTCOME})
    assert requested(schedule) == [("final", "none")]


def test_finished_runs_are_not_waited_for() -> None:
    done = {run("none", stage).key: OUTCOME for stage in ("search", "refine", "final")}
    assert not Schedule([search("none", "search", "refine", "final")], APART, 2).advance(done)


@pytest.mark.parametrize(
    ("workload", "shares", "sizes"),
    [
        (TOGETHER, 2, [12, 12]),
        (TOGETHER, 4, 4 * [6]),
        (TOGETHER, 7, 6 * [4]),
        (TOGETHER, 64, 8 * [3]),
        (Workload("a", "b", "c", "", stackable=True), 2, 8 * [3]),
        (APART, 2, 24 * [1]),
    ],
)
def test_finals_of_a_seed_share_a_task(workload: Workload, shares: int, sizes: list[int]) -> None:
    """With eight seeds of three arms, each of two stacks makes the batches of four seeds, not of all."""
    runs = [run(arm, "final", seed) for arm in ("none", "adam_l2", "adamw") for seed in range(8)]
    found = tasks(runs, workload, may_prune=False, shares=shares)
    assert [len(task.runs) for task in found] == sizes
    if sizes == [12, 12]:
        assert [len(task.seeds) for task in found] == [4, 4]


@pytest.mark.parametrize("shares", [2, 64])
def test_whether_runs_are_stacked_does_not_depend_on_the_shares(shares: int) -> None:
    """A run that trains alone and one in a stack may differ in their last bits."""
    runs = [Run("search", "adamw", 1e-3, decay / 100, 0) for decay in range(5)]
    assert [len(task.runs) for task in tasks(runs, TOGETHER, False, shares)] == [3, 2]
    assert [len(task.runs) for task in tasks(runs[1:], TOGETHER, False, shares)] == [1, 1, 1, 1]


def test_no_stack_is_too_large() -> None:
    runs = [Run("search", "adamw", 1e-3, decay / 100, 0) for decay in range(3 * BUDGETS["thorough"].grid)]
    found = tasks(runs, TOGETHER, may_prune=True, shares=2)
    sizes = Counter(len(task.runs) for task in found)
    assert sum(size * count for size, count in sizes.items()) == len(runs)
    assert STACKED - 1 <= min(sizes) <= max(sizes) <= STACKED
