"""An arm's runs after its grid: beyond an edge, closer around the best config, and more seeds for the best few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from adamas.compare.search.grids import Grid, round_to
from adamas.compare.search.pilot import SEED, ladder, step_of
from adamas.compare.search.selection import scores
from adamas.compare.study.budgets import SEARCH_SEEDS, Budget
from adamas.compare.study.run import Config, Outcome, Run

LOOKS = 2  # closer looks; the second is centred where the first predicts the best config
# Offsets of a look from its centre, in steps of learning rate and of decay, nearest first. A step of the first look is
# half a step of the grid's learning rates and a third of a step of its decays. Multiples of these are configs of the
# grid, and are left out. A step of the second look is half, or a third, of a step of the first.
_AROUND = sorted(
    ((rows, columns) for rows in range(-3, 4) for columns in range(-5, 6) if rows % 2 or columns % 3),
    key=lambda offset: (2 * offset[0] ** 2 + offset[1] ** 2, offset),
)
# The same for an arm without decay, as fractions of the grid's step of learning rates: halves, quarters, eighths and so
# on, divided by two in the second look. There are enough of them even if the second look repeats those of the first.
_BETWEEN = [sign * odd / parts for parts in (2, 4, 8, 16, 32) for odd in range(1, parts, 2) for sign in (-1, 1)]


def best_of(grid: Grid, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> Config | None:
    """Return the best of the configs that ran on all seeds of the grid; None if every one diverged.

    Of equal configs it is the one in the middle, because a search should not leave the grid at the edge of a plateau.
    """
    found = scores(runs, outcomes, metric, len(grid.seeds))
    lowest = min(found.values())
    equals = sorted(config for config in found if found[config] == lowest)
    return equals[len(equals) // 2] if math.isfinite(lowest) else None


def extend(grid: Grid, budget: Budget, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> list[Run]:
    """Return runs beyond the edge that the best config lies on: the next learning rate, the next decay, or both.

    If every run diverged, they have the next lower learning rate.
    """
    rates = sorted({run.lr for run in runs})
    best = best_of(grid, runs, outcomes, metric)
    rate = best.lr if best else rates[0]
    lr_side = _side(rate, rates)
    beyond = ladder(step_of(rate) + lr_side)
    if grid.decays == (0.0,):
        return [grid.run(beyond, 0.0, seed, "extend") for seed in grid.seeds] if lr_side else []
    columns = sorted({_column(grid, run.config) for run in runs})
    place = _column(grid, best) if best else columns[0]
    decay_side = _side(place, columns) if best else 0
    line: list[tuple[float, int]] = []
    if lr_side:
        count = budget.line - budget.line // 2 if decay_side else budget.line
        nearest = sorted(columns, key=lambda column: (abs(column - place), column))[:count]
        line += [(beyond, column) for column in nearest]
    if decay_side:
        distance = {each: abs(math.log(each) - math.log(rate)) for each in rates}
        nearest = sorted(rates, key=lambda each: (distance[each], each))[: budget.line - len(line)]
        line += [(each, place + decay_side) for each in nearest]
    wanted = [grid.run(lr, grid.decays[0] * grid.decay_step**column, SEED, "extend") for lr, column in line]
    return _new(wanted, runs)


def _side(value: float, values: Sequence[float]) -> int:
    """Return 1 where a value is the last of ascending ones, -1 where it is the first, and 0 between them."""
    return 1 if value == values[-1] else -(value == values[0])


def _column(grid: Grid, config: Config) -> int:
    """Return the column of the grid, or beyond it, that a config's decay lies in; 0 is the weakest decay."""
    return round(math.log(config.lr * config.weight_decay / grid.decays[0]) / math.log(grid.decay_step))


def refine(
    grid: Grid, look: int, count: int, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str
) -> list[Run]:
    """Return the runs of a closer look around the best config; none if every config diverged.

    Arms differ in their ranges of decay, and so in the steps of their grids; and the best configs of two equal arms may
    lie at different places between the configs of their grids. Without closer looks one arm would be tuned more
    coarsely than the other, and look worse for that reason alone.

    Args:
        grid: The grid of the arm.
        look: 1 for the first look, 2 for the second.
        count: The number of runs to return, at most.
        runs: The runs of the arm so far.
        outcomes: The outcomes of these runs.
        metric: The validation metric.
    """
    best = best_of(grid, runs, outcomes, metric)
    if best is None:
        return []
    if grid.decays == (0.0,):
        rates = [round_to(best.lr * grid.lr_step ** (offset / look), 3) for offset in _BETWEEN]
        wanted = [grid.run(rate, 0.0, seed, "refine") for rate in rates for seed in grid.seeds]
    elif look == 1:
        wanted = [_run_at(grid, best, offset, look) for offset in _AROUND]
    else:
        centre = predicted_best(grid, runs, outcomes, metric)
        wanted = [_run_at(grid, centre, offset, look) for offset in ((0, 0), *_AROUND)]
    return _new(wanted, runs)[:count]


def _run_at(grid: Grid, centre: Config, offset: tuple[float, float], look: int) -> Run:
    """Return the run at an offset from a config, in steps of a look."""
    rows, columns = offset
    rate = round_to(centre.lr * grid.lr_step ** (rows / 2**look), 2) if rows else centre.lr
    decay = centre.lr * centre.weight_decay * grid.decay_step ** (columns / 3**look)
    return grid.run(rate, decay, SEED, "refine")


def predicted_best(grid: Grid, runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> Config:
    """Return the config that the first look predicts to be best: along each axis, the minimum of a parabola.

    A parabola goes through the figures of the config that the look was centred on and of its two neighbours. The config
    with the lowest single figure would be less exact: it is one of five, and differs from the centre in one axis only.
    """
    centre = best_of(grid, [run for run in runs if run.stage != "refine"], outcomes, metric)
    assert centre is not None  # or there would have been no first look
    found = scores(runs, outcomes, metric)

    def figure(rows: int, columns: int) -> float:
        return found.get(_run_at(grid, centre, (rows, columns), 1).config, math.inf)

    rows, columns = (_vertex(figure(-a, -b), found[centre], figure(a, b)) for a, b in ((1, 0), (0, 1)))
    return _run_at(grid, centre, (rows, columns), 1).config


def _vertex(below: float, here: float, above: float) -> float:
    """Return where in -1 to 1 the parabola through figures at -1, 0 and 1 is lowest.

    If it has no minimum, return the place of the lowest figure.

    Example:
        >>> _vertex(3.0, 1.0, 1.0), _vertex(2.0, 1.0, float("inf")), _vertex(1.0, 1.5, 1.2)
        (0.5, 0.0, -1.0)
    """
    curvature = below - 2 * here + above
    if math.isfinite(curvature) and curvature > 0:
        return min(1.0, max(-1.0, (below - above) / (2 * curvature)))
    return min((0.0, here), (-1.0, below), (1.0, above), key=lambda place: place[1])[0]


def _new(wanted: Sequence[Run], runs: Sequence[Run]) -> list[Run]:
    """Return the wanted runs at configs that have no run yet, each once: rounding may make two configs equal."""
    known = {run.config for run in runs}
    return [run for run in dict.fromkeys(wanted) if run.config not in known]


def confirm(runs: Sequence[Run], budget: Budget, outcomes: Mapping[Run, Outcome], metric: str) -> list[Run]:
    """Return two more seeds for each of the best configs, because the best of many single runs is partly luck."""
    found = scores(runs, outcomes, metric)
    best = sorted((config for config in found if math.isfinite(found[config])), key=lambda config: found[config])
    run_of = {run.config: run for run in runs}
    return [
        replace(run_of[config], stage="confirm", seed=SEED + repeat)
        for config in best[: budget.confirmed]
        for repeat in range(1, SEARCH_SEEDS)
    ]
