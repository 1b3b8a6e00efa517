from __future__ import annotations

import math
from dataclasses import replace

import pytest

from adamas.compare.arms import ARMS
from adamas.compare.budgets import BUDGETS, Budget
from adamas.compare.cell import Cell, Outcome
from adamas.compare.followup import confirm, refine
from adamas.compare.grids import Grid, grid, grids
from adamas.compare.pilot import Pilot, UnusableJobError, cells, read
from adamas.compare.selection import FIRST_FINAL_SEED, EveryRunDivergedError, winner
from adamas.decay import timescale_epochs

PILOT = Pilot(step=-6, steps_per_epoch=10, epochs=100, gradient_scale=(1e-4, 1e-3, 1e-2))
STANDARD = BUDGETS["standard"]


def outcome(value: float) -> Outcome:
    return Outcome(feasible=math.isfinite(value), validation={"loss": value})


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=str)
def test_every_arm_spends_the_same(budget: Budget) -> None:
    for found in grids(PILOT, budget).values():
        outcomes = {cell: outcome(1.0 + cell.lr + cell.weight_decay) for cell in found.cells()}
        searched = found.cells() + refine(found, budget, outcomes, "loss")
        outcomes |= {cell: outcome(2.0) for cell in searched if cell not in outcomes}
        if found.arm != "none":
            searched += confirm(searched, budget, outcomes, "loss")
        assert len(set(searched)) == len(searched) == budget.trials
        assert len({cell.key for cell in searched}) == len(searched)


def test_adamw_decay_follows_the_timescale() -> None:
    found = grid(ARMS["adamw"], PILOT, STANDARD)
    for lr in found.lrs:
        scales = [timescale_epochs(found.cell(lr, decay).weight_decay, lr, 10) for decay in found.decays]
        assert scales == pytest.approx([1000, 300, 100, 100 / 3, 10, 10 / 3, 1], rel=5e-3)  # three digits are kept


def test_l2_has_its_own_range() -> None:
    adamw, l2 = grid(ARMS["adamw"], PILOT, STANDARD), grid(ARMS["adam_l2"], PILOT, STANDARD)
    assert l2.decays[0] == pytest.approx(adamw.decays[0] * 1e-4)
    assert l2.decays[-1] == pytest.approx(adamw.decays[-1] * 1e-2)
    ratios = [high / low for low, high in zip(l2.decays, l2.decays[1:], strict=False)]
    assert ratios == pytest.approx([l2.decay_step] * 6)
    assert l2.lrs == adamw.lrs == grid(ARMS["none"], PILOT, STANDARD).lrs == (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def test_no_decay_repeats_learning_rates() -> None:
    found = grid(ARMS["none"], PILOT, STANDARD)
    assert {cell.weight_decay for cell in found.cells()} == {0.0}
    assert {cell.seed for cell in found.cells()} == set(range(7))


def test_refinement_is_finer_than_the_grid_and_may_leave_it() -> None:
    found = Grid("adamw", (1e-3, 1e-2), (1e-5, 1e-4, 1e-3))
    outcomes = {cell: outcome(1.0 if (cell.lr, cell.weight_decay) == (1e-2, 0.1) else 2.0) for cell in found.cells()}
    refined = refine(found, replace(STANDARD, refined=True), outcomes, "loss")
    assert max(cell.lr for cell in refined) > 1e-2  # the best lies on the edge
    decays = sorted({round(math.log10(cell.weight_decay_independent), 2) for cell in refined})
    assert decays == pytest.approx([-3 - 2 / 3, -3 - 1 / 3, -3 + 1 / 3, -3 + 2 / 3], abs=0.011)


def test_a_diverged_cell_is_never_chosen() -> None:
    found = Grid("adamw", (1e-3, 1e-2), (1e-5, 1e-4))
    values = iter([math.inf, 3.0, 2.0, math.nan])
    outcomes = {cell: outcome(next(values)) for cell in found.cells()}
    chosen = winner("adamw", found.cells(), outcomes, "loss", repeats=1)
    assert (chosen.lr, chosen.weight_decay) == (1e-2, 1e-3)
    with pytest.raises(EveryRunDivergedError, match="adamw"):
        winner("adamw", found.cells(), dict.fromkeys(found.cells(), outcome(math.inf)), "loss", repeats=1)


def test_only_confirmed_cells_are_chosen() -> None:
    lucky, solid = (Cell("search", "adamw", 1e-3, decay, 0) for decay in (0.1, 0.2))
    runs = {lucky: 1.0, solid: 1.1}
    runs |= {replace(solid, stage="confirm", seed=seed): 1.1 for seed in (1, 2)}
    outcomes = {cell: outcome(value) for cell, value in runs.items()}
    assert winner("adamw", list(runs), outcomes, "loss", repeats=3).weight_decay == 0.2
    assert winner("adamw", list(runs), outcomes, "loss", repeats=1).weight_decay == 0.1


def test_edges_are_told() -> None:
    cells = Grid("adamw", (1e-3, 1e-2, 1e-1), (1e-5, 1e-4, 1e-3)).cells()

    def edge(lr: float, decay: float) -> str | None:
        outcomes = {cell: outcome(0.0 if (cell.lr, cell.weight_decay) == (lr, decay) else 1.0) for cell in cells}
        return winner("adamw", cells, outcomes, "loss", repeats=1).at_edge

    assert edge(1e-2, 1e-2) is None
    assert edge(1e-2, 1e-3) is None  # the weakest decay borders on none at all
    assert "strongest decay" in str(edge(1e-2, 1e-1))
    assert "highest learning rate" in str(edge(1e-1, 1e-3))
    assert "lowest learning rate" in str(edge(1e-3, 1e-2))


def test_finals_are_paired_and_fresh() -> None:
    found = Grid("adamw", (1e-3, 1e-2), (1e-5, 1e-4))
    outcomes = dict.fromkeys(found.cells(), outcome(1.0))
    finals = winner("adamw", found.cells(), outcomes, "loss", repeats=1).finals(8)
    assert [cell.seed for cell in finals] == list(range(FIRST_FINAL_SEED, FIRST_FINAL_SEED + 8))
    assert all(
        cell.seed < FIRST_FINAL_SEED
        for budget in BUDGETS.values()
        for g in grids(PILOT, budget).values()
        for cell in g.cells()
    )


def test_the_pilot_ignores_what_diverged() -> None:
    runs = cells(STANDARD)
    good = Outcome(True, {"loss": 1.0}, steps_per_epoch=10, epochs=5, gradient_scale=(1e-4, 1e-3, 1e-2))
    outcomes: dict[Cell, Outcome] = dict.fromkeys(runs, Outcome(feasible=False))
    with pytest.raises(UnusableJobError, match="diverged"):
        read(STANDARD, outcomes, "loss")
    outcomes[runs[2]] = good
    assert read(STANDARD, outcomes, "loss") == Pilot(STANDARD.pilot[2], 10, 5, (1e-4, 1e-3, 1e-2))
