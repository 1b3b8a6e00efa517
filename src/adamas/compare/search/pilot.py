"""The pilot: Adam without decay at a few learning rates, which shows every arm where to search.

If the best rate lies at an end of the range, the pilot continues beyond that end. Otherwise the arms' grids could end
before the rates that the job needs, and the verdict would depend on which arm came nearest to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adamas.compare.study.arms import Arm
from adamas.compare.study.budgets import Budget
from adamas.compare.study.errors import PilotError
from adamas.compare.study.run import Outcome, Run

SEED = 0  # the first seed of every config of the pilot and of the search
ROUNDS = 6  # how often the pilot continues beyond an end, at most
_BEYOND = 1  # how many learning rates it adds each time
_NEARLY = 0.1  # a figure that is worse than the best by less than this fraction may become better once decay acts
_LEARNED = 0.9  # a run has learned something once its loss is below this fraction of the untrained loss


@dataclass(frozen=True)
class Pilot:
    """The results of an arm's pilot.

    Attributes:
        step: The best learning rate, as a step of `ladder`.
        steps_per_epoch: The number of optimizer steps in an epoch of the job.
        epochs: The number of epochs of the job.
        gradient_scale: The 10th, 50th and 90th percentile of sqrt(v_hat) over weights and time, at the best rate.
        memorises: Whether validation was worse than untrained at every rate, so that the training loss chose the rate.
        learns_early: Whether the best run had learned something half-way. Only then may other runs be pruned.
        rates: The learning rates that were tried, ascending.
        basins: The steps of the lowest and the highest rate that are nearly as good as the best, where a rate between
            them is worse; empty where there is one range of good rates.
    """

    step: int
    steps_per_epoch: float
    epochs: int
    gradient_scale: tuple[float, float, float]
    memorises: bool = False
    learns_early: bool = False
    rates: tuple[float, ...] = ()
    basins: tuple[int, ...] = ()

    @property
    def lr(self) -> float:
        """The best learning rate of the pilot."""
        return ladder(self.step)


def ladder(step: int) -> float:
    """Return a learning rate of the ladder ..., 0.1, 0.3, 1, 3, ..., on which 1 is step 0.

    Example:
        >>> [ladder(step) for step in (-7, -6, -5)]
        [0.0003, 0.001, 0.003]
    """
    decade, half = divmod(step, 2)
    return float(f"{3 if half else 1}e{decade}")


def step_of(lr: float) -> int:
    """Return the step of the ladder that is nearest to a learning rate."""
    return round(2 * math.log10(lr))


def first_runs(arm: Arm, budget: Budget) -> list[Run]:
    """Return the runs that an arm's pilot begins with."""
    return [_run_at(arm, step) for step in (budget.pilot if arm.built_in else budget.foreign_pilot)]


def _run_at(arm: Arm, step: int) -> Run:
    """Return the run of an arm's pilot at a step of the ladder."""
    return Run("pilot", arm.pilot, ladder(step), 0.0, SEED)


def _tried(arm: Arm, outcomes: Mapping[Run, Outcome]) -> dict[int, Outcome]:
    """Return the outcomes of an arm's pilot by step of the ladder, ascending."""
    return dict(sorted((step_of(run.lr), outcome) for run, outcome in outcomes.items() if run.arm == arm.pilot))


def further(arm: Arm, outcomes: Mapping[Run, Outcome], metric: str) -> list[Run]:
    """Return the next runs beyond the end at which the best learning rate lies; none where it lies inside.

    There are none either if the neighbouring rate is as good, or if the training loss chose the rate: how fast a job
    memorises does not show how well it would learn. If every run diverged, the next runs are below.
    """
    found = _tried(arm, outcomes)
    upwards, downwards = list(found), list(reversed(found))
    if not any(outcome.ok for outcome in found.values()):
        return _beyond(arm, downwards)
    pilot = read(arm, outcomes, metric)
    steps = upwards if pilot.step == upwards[-1] else downwards
    if pilot.memorises or pilot.step != steps[-1]:
        return []
    end, neighbour = found[steps[-1]], found[steps[-2]]
    if neighbour.ok and neighbour.validation[metric] <= end.validation[metric]:
        return []
    return _beyond(arm, steps)


def _beyond(arm: Arm, steps: Sequence[int]) -> list[Run]:
    """Return the runs after the last of some steps, which lie as far apart as the last two."""
    return [_run_at(arm, steps[-1] + (steps[-1] - steps[-2]) * count) for count in range(1, _BEYOND + 1)]


def read(arm: Arm, outcomes: Mapping[Run, Outcome], metric: str) -> Pilot:
    """Choose the best learning rate of an arm's pilot, and keep the measurements made at that rate.

    Validation chooses. If every rate validates worse than the untrained weights, as in a job that memorises unless
    decay prevents it, validation would choose the rate that learns least; then the training loss chooses.

    Args:
        arm: The arm of the pilot.
        outcomes: The outcomes of all arms' pilots.
        metric: The validation metric that chooses.

    Raises:
        PilotError: every run diverged, or no weight received a gradient.
    """
    found = _tried(arm, outcomes)
    rates = tuple(map(ladder, found))
    ok = [(step, outcome) for step, outcome in found.items() if outcome.ok]
    if not ok:
        listed = ", ".join(f"{rate:g}" for rate in rates)
        raise PilotError(f"{arm.title} diverged without weight decay at every learning rate tried ({listed})")
    memorises = all(_learned_nothing(outcome, metric) for _, outcome in ok)
    by = (lambda outcome: outcome.training_loss) if memorises else (lambda outcome: outcome.validation[metric])
    step, best = min(ok, key=lambda entry: (by(entry[1]), entry[0]))
    scale = best.gradient_scale or (0.0, 0.0, 0.0)
    if arm.built_in and not scale[0] > 0:
        raise PilotError("no weight of the job ever received a gradient: there is nothing to compare")
    early = best.fit is not None and best.fit <= _LEARNED
    figures = {step: outcome.validation[metric] if outcome.ok else math.inf for step, outcome in found.items()}
    basins = () if memorises else _basins(figures)
    return Pilot(step, best.steps_per_epoch, best.epochs, scale, memorises, early, rates, basins)


def _basins(figures: Mapping[int, float]) -> tuple[int, ...]:
    """Return the lowest and the highest step that are nearly as good as the best, if a step between them is worse."""
    lowest = min(figures.values())
    good = [step for step, value in figures.items() if value <= lowest + _NEARLY * abs(lowest)]
    between = [step for step in figures if good[0] < step < good[-1]]
    return () if set(between) <= set(good) else (good[0], good[-1])


def _learned_nothing(outcome: Outcome, metric: str) -> bool:
    """Return whether a run is known to validate no better than the untrained weights."""
    if outcome.untrained is None or outcome.training_loss is None:
        return False
    return outcome.validation[metric] >= outcome.untrained[metric]
