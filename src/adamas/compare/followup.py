"""What an arm tries after its grid: beyond an edge, closer around the best cell, and more seeds for the best few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from adamas.compare.budgets import SEARCH_SEEDS, Budget
from adamas.compare.cell import Cell, Outcome, Stage
from adamas.compare.grids import SEED, Grid, round_to
from adamas.compare.pilot import ladder, step_of
from adamas.compare.selection import Point, scores

LOOKS = 2  # closer looks: the second around the best that the first found
# Half steps of lr and thirds of a column around the best cell, the nearest first; cells of the grid are left out. The
# second look takes thirds of these thirds: arms differ in how far their columns lie apart, not in their learning rates.
AROUND = sorted(
    ((half, third) for half in range(-3, 4) for third in range(-5, 6) if half % 2 or third % 3),
    key=lambda offset: (2 * offset[0] ** 2 + offset[1] ** 2, offset),
)
# Where only the learning rate is left to choose: halves of its step, then quarters, eighths, sixteenths.
BETWEEN = [sign * odd / parts for parts in (2, 4, 8, 16) for odd in range(1, parts, 2) for sign in (-1, 1)]


def best_of(grid: Grid, cells: Sequence[Cell], outcomes: Mapping[Cell, Outcome], metric: str) -> Point | None:
    """The best so far of the points that ran on all seeds of the grid; None if every one diverged."""
    found = scores(cells, outcomes, metric, len(grid.seeds))
    best = min(found, key=lambda point: (found[point], point))
    return best if math.isfinite(found[best]) else None


def extend(
    grid: Grid, budget: Budget, cells: Sequence[Cell], outcomes: Mapping[Cell, Outcome], metric: str
) -> list[Cell]:
    """Runs beyond the edge of what was tried, if the best cell lies on one: the next learning rate, the next decay.

    Where everything diverged, the way leads to the next lower learning rate.
    """
    rates = sorted({cell.lr for cell in cells})
    best = best_of(grid, cells, outcomes, metric)
    rate = best[0] if best else rates[0]
    beyond = next_rate(rate, rates)
    if grid.decays == (0.0,):
        return [] if beyond is None else [grid.cell(beyond, 0.0, seed, "extend") for seed in grid.seeds]
    columns = sorted({column(grid, cell) for cell in cells})
    place = column(grid, Cell("search", grid.arm, *best, SEED)) if best else columns[0]
    further = next_column(place, columns) if best else None
    row = budget.line if further is None else budget.line - budget.line // 2
    line: list[tuple[float, int]] = []
    if beyond is not None:
        line += [(beyond, round(nearby)) for nearby in nearest(columns, place, row)]
    if further is not None:
        rows = nearest([math.log(each) for each in rates], math.log(rate), budget.line - len(line))
        line += [(round_to(math.exp(each), 2), further) for each in rows]
    return new([decayed(grid, each, nearby, "extend") for each, nearby in line], cells)


def next_rate(rate: float, rates: Sequence[float]) -> float | None:
    """The learning rate of the ladder beyond the end of those tried, if `rate` is at an end."""
    if rate == rates[-1]:
        return ladder(step_of(rate) + 1)
    return ladder(step_of(rate) - 1) if rate == rates[0] else None


def next_column(place: int, columns: Sequence[int]) -> int | None:
    """The column beyond the end of those tried, if `place` is at an end."""
    if place == columns[-1]:
        return place + 1
    return place - 1 if place == columns[0] else None


def column(grid: Grid, cell: Cell) -> int:
    """The column of the grid, or beyond it, that a cell's decay lies in; 0 is the weakest."""
    return round(math.log(cell.weight_decay_independent / grid.decays[0]) / math.log(grid.decay_step))


def decayed(grid: Grid, rate: float, place: int, stage: Stage) -> Cell:
    """The run at a learning rate and a column."""
    return grid.cell(rate, grid.decays[0] * grid.decay_step**place, SEED, stage)


def nearest(places: Sequence[float], around: float, count: int) -> list[float]:
    """The `count` places nearest to one of them."""
    return sorted(places, key=lambda place: (abs(place - around), place))[:count]


def refine(
    grid: Grid, look: int, runs: int, cells: Sequence[Cell], outcomes: Mapping[Cell, Outcome], metric: str
) -> list[Cell]:
    """A closer look: `runs` runs around the best cell; none if every one diverged.

    The ranges of decay of the two arms differ in width, so their columns do in spacing. Without this step the arm with
    the wider range would be tuned more coarsely, and look worse for it; with a single look it still would, where a job
    learns in a window narrower than what lies between two columns.

    Args:
        grid: the arm's.
        look: the how-manieth, from 1.
        runs: how many.
        cells: what was tried.
        outcomes: of these.
        metric: that validation is judged by.
    """
    best = best_of(grid, cells, outcomes, metric)
    if best is None:
        return []
    lr, weight_decay = best
    if grid.decays == (0.0,):
        rates = [round_to(lr * grid.lr_step ** (offset / look), 2) for offset in BETWEEN]
        wanted = [grid.cell(rate, 0.0, seed, "refine") for rate in dict.fromkeys(rates) for seed in grid.seeds]
        return new(wanted, cells)[:runs]
    decay, half, third = lr * weight_decay, math.sqrt(grid.lr_step), grid.decay_step ** (1 / 3**look)
    around = [
        grid.cell(lr if rows == 0 else round_to(lr * half**rows, 2), decay * third**thirds, SEED, "refine")
        for rows, thirds in AROUND
    ]
    return new(around, cells)[:runs]


def new(wanted: Sequence[Cell], cells: Sequence[Cell]) -> list[Cell]:
    """Those at points where nothing has run."""
    known = {(cell.lr, cell.weight_decay) for cell in cells}
    return [cell for cell in wanted if (cell.lr, cell.weight_decay) not in known]


def confirm(cells: Sequence[Cell], budget: Budget, outcomes: Mapping[Cell, Outcome], metric: str) -> list[Cell]:
    """Two more seeds for the best cells: the best of many single runs is partly the luckiest."""
    found = scores(cells, outcomes, metric)
    best = sorted((point for point in found if math.isfinite(found[point])), key=lambda point: found[point])
    chosen = {(cell.lr, cell.weight_decay): cell for cell in cells}
    return [
        replace(chosen[point], stage="confirm", seed=SEED + repeat)
        for point in best[: budget.confirmed]
        for repeat in range(1, SEARCH_SEEDS)
    ]
