"""What an arm tries after its grid: a closer look around the best cell, then more seeds for the best few."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from adamas.compare.budgets import SEARCH_SEEDS, Budget
from adamas.compare.cell import Cell, Outcome
from adamas.compare.grids import SEED, Grid, round_to
from adamas.compare.selection import scores


def refine(grid: Grid, budget: Budget, outcomes: Mapping[Cell, Outcome], metric: str) -> list[Cell]:
    """Runs around the best cell of a grid, beyond its edge where the best lies there; none if every cell diverged.

    The ranges of decay of the two arms differ in width, so their columns do in spacing. Without this step the arm with
    the wider range would be tuned more coarsely, and look worse for it.
    """
    found = scores(grid.cells(), outcomes, metric)
    lr, weight_decay = min(found, key=lambda point: found[point])
    if math.isinf(found[lr, weight_decay]):
        return []
    half = math.sqrt(grid.lr_step)
    lower, higher = round_to(lr / half, 2), round_to(lr * half, 2)
    if grid.decays == (0.0,):
        seeds = range(budget.follow_up // 2)
        return [grid.cell(rate, 0.0, seed, "refine") for rate in (lower, higher) for seed in seeds]
    if not budget.refined:
        return []
    decay, third = lr * weight_decay, grid.decay_step ** (1 / 3)
    powers = {lower: (-1, 1), lr: (-2, -1, 1, 2), higher: (-1, 1)}
    return [grid.cell(rate, decay * third**power, SEED, "refine") for rate in powers for power in powers[rate]]


def confirm(cells: list[Cell], budget: Budget, outcomes: Mapping[Cell, Outcome], metric: str) -> list[Cell]:
    """Two more seeds for the best cells: the best of many single runs is partly the luckiest."""
    found = scores(cells, outcomes, metric)
    best = sorted((point for point in found if math.isfinite(found[point])), key=lambda point: found[point])
    chosen = {(cell.lr, cell.weight_decay): cell for cell in cells}
    return [
        replace(chosen[point], stage="confirm", seed=SEED + repeat)
        for point in best[: budget.confirmed]
        for repeat in range(1, SEARCH_SEEDS)
    ]
