"""Who waits for whom: arms whose runs can share passes wait for company, others go on alone."""

from __future__ import annotations

from collections import Counter

import pytest

from adamas.compare.runner.schedule import Company
from adamas.compare.runner.tasks import STACKED, tasks
from adamas.compare.search.protocol import Asked, Course
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.run import Cell, Outcome, Stage
from adamas.compare.study.workload import Workload

TOGETHER = Workload("together", "nowhere:job", "loss", "", stackable=True, seeds_together=True)
APART = Workload("apart", "nowhere:job", "loss", "")
OUTCOME = Outcome(True)


def cell(arm: str, stage: Stage, seed: int = 0) -> Cell:
    return Cell(stage, arm, 1e-3, 0.1, seed)


def course(arm: str, *stages: Stage) -> Course:
    for stage in stages:
        outcomes = yield Asked((cell(arm, stage),), may_give_up=stage == "search")
        assert outcomes == {cell(arm, stage): OUTCOME}


def asked(company: Company) -> list[tuple[str, str]]:
    return sorted((each.stage, each.arm) for task in company.tasks for each in task.cells)


def test_company_goes_on_with_the_earliest_stage_and_ends_together() -> None:
    company = Company([course("none", "search", "final"), course("adamw", "search", "refine", "final")], TOGETHER, 2)
    done: dict[str, Outcome] = {}
    for stage, arms in (("search", ["adamw", "none"]), ("refine", ["adamw"]), ("final", ["adamw", "none"])):
        assert asked(company) == [(stage, arm) for arm in arms]
        assert [task.may_give_up for task in company.tasks] == [stage == "search"] * len(company.tasks)
        for arm in arms[1:]:
            done[cell(arm, stage).key] = OUTCOME  # type: ignore[arg-type]
            assert company.go_on(done)  # which leaves it where it is
            assert asked(company) == [(stage, arm) for arm in arms]
        done[cell(arms[0], stage).key] = OUTCOME  # type: ignore[arg-type]
        assert company.go_on(done) is (stage != "final")


def test_one_alone_waits_for_nobody() -> None:
    company = Company([course("none", "search", "final")], APART, 2)
    assert asked(company) == [("search", "none")]
    assert company.go_on({cell("none", "search").key: OUTCOME})
    assert asked(company) == [("final", "none")]


def test_what_was_done_before_is_passed_at_once() -> None:
    done = {cell("none", stage).key: OUTCOME for stage in ("search", "refine", "final")}
    assert not Company([course("none", "search", "refine", "final")], APART, 2).go_on(done)


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
def test_finals_of_a_seed_are_laid_out_together(workload: Workload, shares: int, sizes: list[int]) -> None:
    """Eight seeds of three arms: of two stacks each makes the batches of four seeds, not of all."""
    cells = [cell(arm, "final", seed) for arm in ("none", "adam_l2", "adamw") for seed in range(8)]
    found = tasks(cells, workload, may_give_up=False, shares=shares)
    assert [len(task.cells) for task in found] == sizes
    if sizes == [12, 12]:
        assert [len(task.seeds) for task in found] == [4, 4]


@pytest.mark.parametrize("shares", [2, 64])
def test_whether_cells_are_stacked_does_not_depend_on_the_shares(shares: int) -> None:
    """A run alone and one in a stack may differ in their last bits."""
    cells = [Cell("search", "adamw", 1e-3, decay / 100, 0) for decay in range(5)]
    assert [len(task.cells) for task in tasks(cells, TOGETHER, False, shares)] == [3, 2]
    assert [len(task.cells) for task in tasks(cells[1:], TOGETHER, False, shares)] == [1, 1, 1, 1]


def test_no_stack_is_too_large() -> None:
    cells = [Cell("search", "adamw", 1e-3, decay / 100, 0) for decay in range(3 * BUDGETS["thorough"].grid)]
    found = tasks(cells, TOGETHER, may_give_up=True, shares=2)
    sizes = Counter(len(task.cells) for task in found)
    assert sum(size * count for size, count in sizes.items()) == len(cells)
    assert STACKED - 1 <= min(sizes) <= max(sizes) <= STACKED
