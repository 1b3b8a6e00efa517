"""What the finalists looked like on their way: time to a target, and validation at the same training loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from adamas.compare.study.run import Moment
from adamas.compare.verdict.statistics import mean_and_sd

Curve = Sequence[Moment]


class Place(NamedTuple):
    """A point of a curve, or of a mean of curves: unlike a look, it may lie between steps."""

    step: float
    training_loss: float
    validation: float


@dataclass(frozen=True)
class TimeToTarget:
    """When an arm's finalists first validated as well as the target.

    Attributes:
        steps: median number of steps; None where half the runs or more never got there.
        never: runs that did not get there before they ended.
        runs: all of them.
    """

    steps: float | None
    never: int
    runs: int


@dataclass(frozen=True)
class Matched:
    """An arm's validation where its training loss first is at the level that all arms are compared at.

    Attributes:
        mean: over the runs that got there; NaN where none did.
        sd: of these.
        never: runs that did not get there before they ended.
        runs: all of them.
    """

    mean: float
    sd: float
    never: int
    runs: int


def target(curves: Mapping[str, Sequence[Curve]], judged: Sequence[str]) -> float | None:
    """The worse of the judged arms' mean final validation, which both reach in the mean; None without curves."""
    ends = [[curve[-1].validation for curve in curves[arm] if curve] for arm in judged]
    return max(map(fmean, ends)) if all(ends) else None


def time_to_target(curves: Sequence[Curve], goal: float) -> TimeToTarget:
    """Median steps at which validation first is at or below the goal, interpolated between looks.

    Example:
        >>> curve = [Moment(10, 1.0, 0.9), Moment(20, 0.8, 0.5)]
        >>> time_to_target([curve], 0.7).steps
        15.0
    """
    times = [crossing(curve, [moment.validation for moment in curve], goal) for curve in curves]
    reached = [math.inf if found is None else found.step for found in times]
    middle = statistics.median(reached) if reached else math.inf
    return TimeToTarget(middle if math.isfinite(middle) else None, reached.count(math.inf), len(reached))


def matched_loss(curves: Mapping[str, Sequence[Curve]]) -> float | None:
    """The highest, over the arms, of the mean final training loss: the level that every arm reaches in the mean."""
    ends = [[curve[-1].training_loss for curve in arm if curve] for arm in curves.values()]
    return max((fmean(losses) for losses in ends if losses), default=None)


def at_matched_loss(curves: Sequence[Curve], level: float) -> Matched:
    """Validation where the training loss first is at or below the level, interpolated between looks."""
    found = [crossing(curve, [moment.training_loss for moment in curve], level) for curve in curves]
    values = [moment.validation for moment in found if moment is not None]
    return Matched(*mean_and_sd(values), len(found) - len(values), len(found))


def crossing(curve: Curve, heights: Sequence[float], level: float) -> Place | None:
    """Where a curve's heights first are at or below a level; the first look if they are so from the start."""
    for place, height in enumerate(heights):
        if not height <= level:  # nor where it is no number
            continue
        if place == 0 or not math.isfinite(heights[place - 1]):
            return Place(*curve[place])
        before, after = curve[place - 1], curve[place]
        part = (heights[place - 1] - level) / (heights[place - 1] - height)
        return Place(*(start + part * (end - start) for start, end in zip(before, after, strict=True)))
    return None


def mean_curve(curves: Sequence[Curve]) -> list[Place]:
    """Mean over runs, look by look, as far as all of them go."""
    return [Place(*map(fmean, zip(*looks, strict=True))) for looks in zip(*curves, strict=False)]
