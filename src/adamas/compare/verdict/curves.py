"""Curves: the finalists' time to a target and validation at equal training loss, and the progress of a search."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import NamedTuple

from adamas.compare.search.pilot import SEED
from adamas.compare.study.run import Moment, Outcome, Run
from adamas.compare.verdict.statistics import mean_and_sd

Curve = Sequence[Moment]
_PARTS = (0.25, 0.5, 1.0)  # of a budget


class TimeToTarget(NamedTuple):
    """The median step at which an arm's finalists first validated as well as the target.

    `steps` is None where half of the runs or more never did; `never` counts these runs, and `runs` counts all runs.
    """

    steps: float | None
    never: int
    runs: int


class Matched(NamedTuple):
    """An arm's validation figure when its training loss first reaches the level at which all arms are compared.

    `mean` and `sd` are over the runs that reached it; `never` counts the other runs, and `runs` counts all runs.
    """

    mean: float
    sd: float
    never: int
    runs: int


def target(curves: Mapping[str, Sequence[Curve]], judged: Sequence[str]) -> float | None:
    """Return the worse of the judged arms' mean final validation figures; None without curves."""
    ends = [[curve[-1].validation for curve in curves[arm] if curve] for arm in judged]
    return max(map(fmean, ends)) if all(ends) else None


def time_to_target(curves: Sequence[Curve], goal: float) -> TimeToTarget:
    """Return the median step at which validation first is at or below the goal, interpolated between moments."""
    times = [crossing(curve, [moment.validation for moment in curve], goal) for curve in curves]
    reached = [math.inf if found is None else found.step for found in times]
    middle = statistics.median(reached) if reached else math.inf
    return TimeToTarget(middle if math.isfinite(middle) else None, reached.count(math.inf), len(reached))


def matched_loss(curves: Mapping[str, Sequence[Curve]]) -> float | None:
    """Return the highest of the arms' mean final training losses: the level that every arm reaches on average."""
    ends = [[curve[-1].training_loss for curve in arm if curve] for arm in curves.values()]
    return max((fmean(losses) for losses in ends if losses), default=None)


def at_matched_loss(curves: Sequence[Curve], level: float) -> Matched:
    """Return validation where the training loss first is at or below the level, interpolated between moments."""
    found = [crossing(curve, [moment.training_loss for moment in curve], level) for curve in curves]
    values = [moment.validation for moment in found if moment is not None]
    return Matched(*mean_and_sd(values), len(found) - len(values), len(found))


def crossing(curve: Curve, heights: Sequence[float], level: float) -> Moment | None:
    """Return where the heights along a curve first are at or below a level; None where they never are.

    It is interpolated between two moments, except for the first moment and after a height of inf or NaN.
    """
    for place, height in enumerate(heights):
        if not height <= level:  # nor where it is NaN
            continue
        if place == 0 or not math.isfinite(heights[place - 1]):
            return curve[place]
        before, after = curve[place - 1], curve[place]
        part = (heights[place - 1] - level) / (heights[place - 1] - height)
        return Moment(*(start + part * (end - start) for start, end in zip(before, after, strict=True)))
    return None


def mean_curve(curves: Sequence[Curve]) -> list[Moment]:
    """Return the mean of curves, moment by moment, as far as all of them go."""
    return [Moment(*map(fmean, zip(*moments, strict=True))) for moments in zip(*curves, strict=False)]


def best_so_far(runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> list[float]:
    """Return the lowest validation figure of the first 1, 2, ... runs, in the order of the requests.

    It is inf until a run has a figure. A run on a second or later seed counts as spent, but its figure does not count:
    validation may be easier on another seed, and arms differ in the number of their seeds.
    """
    figures = (outcomes[run].validation[metric] if outcomes[run].ok and run.seed == SEED else math.inf for run in runs)
    return list(accumulate(figures, min))


def at_parts(best: Sequence[float]) -> list[float]:
    """Return the best figure after a quarter, half and all of the runs."""
    return [best[max(1, round(part * len(best))) - 1] for part in _PARTS] if best else []
