"""What an arm tries after its grid: beyond an edge, closer around the best cell, and more seeds for the best few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from adamas.compare.search.grids import SEED, Grid, round_to
from adamas.compare.search.pilot import ladder, step_of
from adamas.compare.search.selection import scores
from adamas.compare.study.budgets import SEARCH_SEEDS, Budget
from adamas.compare.study.run import Config, Outcome, Run, Stage

LOOKS = 2  # closer looks: the second at where the first says that the best lies
# Steps of a look around its centre, of learning rate and of decay, the nearest first: its four neighbours, then others.
# A step of the first is half a step of the grid's learning rates and a third of a column of decay, so that multiples of
# these are cells of the grid, and are left out; one of the second is half and a third of the first's.
AROUND = sorted(
    ((rows, columns) for rows in range(-3, 4) for columns in range(-5, 6) if rows % 2 or columns % 3),
    key=lambda offset: (2 * offset[0] ** 2 + offset[1] ** 2, offset),
)
# Where only the learning rate is left to choose: halves of its step, then quarters, eighths and so on; for the second
# look half as far. So many that there are new ones whatever a second look has in common with the first.
BETWEEN = [sign * odd / parts for parts in (2, 4, 8, 16, 32) for odd in range(1, parts, 2) for sign in (-1, 1)]


def best_of(grid: Grid, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> Config | None:
    """The best so far of the points that ran on all seeds of the grid; None if every one diverged.

    Of equals the one in the middle: a plateau has no edge that a search should follow beyond what was tried.
    """
    found = scores(runs, outcomes, metric, len(grid.seeds))
    lowest = min(found.values())
    equals = sorted(point for point in found if found[point] == lowest)
    return equals[len(equals) // 2] if math.isfinite(lowest) else None


def extend(grid: Grid, budget: Budget, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> list[Run]:
    """Runs beyond the edge of what was tried, if the best cell lies on one: the next learning rate, the next decay.

    Where everything diverged, the way leads to the next lower learning rate.
    """
    rates = sorted({run.lr for run in runs})
    best = best_of(grid, runs, outcomes, metric)
    rate = best[0] if best else rates[0]
    beyond = next_rate(rate, rates)
    if grid.decays == (0.0,):
        return [] if beyond is None else [grid.run(beyond, 0.0, seed, "extend") for seed in grid.seeds]
    columns = sorted({column(grid, run) for run in runs})
    place = column(grid, Run("search", grid.arm, *best, SEED)) if best else columns[0]
    further = next_column(place, columns) if best else None
    row = budget.line if further is None else budget.line - budget.line // 2
    line: list[tuple[float, int]] = []
    if beyond is not None:
        line += [(beyond, round(nearby)) for nearby in nearest(columns, place, row)]
    if further is not None:
        rows = nearest([math.log(each) for each in rates], math.log(rate), budget.line - len(line))
        line += [(round_to(math.exp(each), 2), further) for each in rows]
    return new([decayed(grid, each, nearby, "extend") for each, nearby in line], runs)


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


def column(grid: Grid, run: Run) -> int:
    """The column of the grid, or beyond it, that a cell's decay lies in; 0 is the weakest."""
    return round(math.log(run.weight_decay_paper / grid.decays[0]) / math.log(grid.decay_step))


def decayed(grid: Grid, rate: float, place: int, stage: Stage) -> Run:
    """The run at a learning rate and a column."""
    return grid.run(rate, grid.decays[0] * grid.decay_step**place, SEED, stage)


def nearest(places: Sequence[float], around: float, count: int) -> list[float]:
    """The `count` places nearest to one of them."""
    return sorted(places, key=lambda place: (abs(place - around), place))[:count]


def refine(
    grid: Grid, look: int, count: int, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str
) -> list[Run]:
    """A closer look: `count` runs around the best cell; none if every one diverged.

    The ranges of decay of the two arms differ in width, so their columns do in spacing, and the best learning rates of
    two equal arms may lie differently between those of the grid. Without this step an arm would be tuned more coarsely
    than another by chance or by its wider range, and look worse for it.

    Args:
        grid: the arm's.
        look: the first or the second.
        count: how many runs.
        runs: The runs that were tried.
        outcomes: of these.
        metric: that validation is judged by.
    """
    best = best_of(grid, runs, outcomes, metric)
    if best is None:
        return []
    if grid.decays == (0.0,):
        rates = [round_to(best[0] * grid.lr_step ** (offset / look), 3) for offset in BETWEEN]
        return new([grid.run(rate, 0.0, seed, "refine") for rate in rates for seed in grid.seeds], runs)[:count]
    if look == 1:
        wanted = [beside(grid, best, offset, look) for offset in AROUND]
    else:
        centre = bottom(grid, runs, outcomes, metric)
        wanted = [beside(grid, centre, offset, look) for offset in ((0, 0), *AROUND)]
    return new(wanted, runs)[:count]


def beside(grid: Grid, point: Config, offset: tuple[float, float], look: int) -> Run:
    """The run at some steps of a look from a point, of learning rate and of lr * weight_decay."""
    rows, columns = offset
    lr, decay = point[0], point[0] * point[1]
    rate = round_to(lr * grid.lr_step ** (rows / 2**look), 2) if rows else lr
    return grid.run(rate, decay * grid.decay_step ** (columns / 3**look), SEED, "refine")


def bottom(grid: Grid, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> Config:
    """Where the best lies by what the first look found: along each axis, at the bottom of the parabola through three.

    These are the cell that it looked around and the two beside it. The lowest single figure would be one of five
    places, and along one axis alone.
    """
    centre = best_of(grid, [run for run in runs if run.stage != "refine"], outcomes, metric)
    assert centre is not None  # or nothing would have been looked at
    found = scores(runs, outcomes, metric)

    def figure(rows: int, columns: int) -> float:
        run = beside(grid, centre, (rows, columns), 1)
        return found.get(run.config, math.inf)

    rows, columns = (vertex(figure(-a, -b), found[centre], figure(a, b)) for a, b in ((1, 0), (0, 1)))
    return beside(grid, centre, (rows, columns), 1).config


def vertex(below: float, here: float, above: float) -> float:
    """Where in -1 to 1 the parabola through figures at -1, 0 and 1 is lowest; without a bottom, at the lowest figure.

    Example:
        >>> vertex(3.0, 1.0, 1.0), vertex(2.0, 1.0, float("inf")), vertex(1.0, 1.5, 1.2)
        (0.5, 0.0, -1.0)
    """
    curvature = below - 2 * here + above
    if math.isfinite(curvature) and curvature > 0:
        return min(1.0, max(-1.0, (below - above) / (2 * curvature)))
    return min((0.0, here), (-1.0, below), (1.0, above), key=lambda place: place[1])[0]


def new(wanted: Sequence[Run], runs: Sequence[Run]) -> list[Run]:
    """Those at points where nothing has run, each once: of very many columns, two may be one when rounded."""
    known = {run.config for run in runs}
    return [run for run in dict.fromkeys(wanted) if run.config not in known]


def confirm(runs: Sequence[Run], budget: Budget, outcomes: Mapping[Run, Outcome], metric: str) -> list[Run]:
    """Two more seeds for the best cells: the best of many single runs is partly the luckiest."""
    found = scores(runs, outcomes, metric)
    best = sorted((point for point in found if math.isfinite(found[point])), key=lambda point: found[point])
    chosen = {run.config: run for run in runs}
    return [
        replace(chosen[point], stage="confirm", seed=SEED + repeat)
        for point in best[: budget.confirmed]
        for repeat in range(1, SEARCH_SEEDS)
    ]
