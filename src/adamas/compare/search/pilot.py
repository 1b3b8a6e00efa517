"""The pilot: Adam without decay at a few learning rates, which tells every arm where to look.

It goes on beyond its range where the best rate lies at an end of it. Were it to stop there, the arms' grids could end
before the rates that the job wants, and the verdict would be about who got nearest to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adamas.compare.study.arms import Arm
from adamas.compare.study.budgets import Budget
from adamas.compare.study.errors import PilotError
from adamas.compare.study.run import Outcome, Run

SEED = 0
BEYOND = 2  # learning rates at a time beyond an end
ROUNDS = 3  # of those, at most
NEARLY = 0.1  # of the best figure: a rate that is worse by less may be better once decay acts
LEARNED = 0.9  # of the untrained loss: below that a run has learned something


@dataclass(frozen=True)
class Pilot:
    """What the pilot found.

    Attributes:
        step: its best learning rate, as a step of the ladder.
        steps_per_epoch: M of the job.
        epochs: T of the job.
        gradient_scale: 10th, 50th and 90th percentile of sqrt(v_hat) over the weights and over the run at that rate.
        memorises: whether validation was worse than untrained at every rate, so that the training loss chose the rate.
        learns_early: whether the best run had left the untrained weights' loss well behind half-way: only then may a
            run that has not be given up.
        rates: the learning rates tried, ascending.
        basins: steps of the lowest and the highest learning rate that are nearly as good as the best, with worse ones
            between them; empty where there is one range of good rates.
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
        """The best learning rate."""
        return ladder(self.step)


def ladder(step: int) -> float:
    """Learning rates people write: two a decade, 1e-3 at -6.

    Example:
        >>> [ladder(step) for step in (-7, -6, -5)]
        [0.0003, 0.001, 0.003]
    """
    decade, half = divmod(step, 2)
    return float(f"{3 if half else 1}e{decade}")


def step_of(lr: float) -> int:
    """Inverse of `ladder`."""
    return round(2 * math.log10(lr))


def first_runs(arm: Arm, budget: Budget) -> list[Run]:
    """The first runs of an arm's pilot."""
    return [run_at(arm, step) for step in (budget.pilot if arm.built_in else budget.foreign_pilot)]


def run_at(arm: Arm, step: int) -> Run:
    """A run of an arm's pilot: without decay; Adamas' own arms share one, Adam's."""
    return Run("pilot", "none" if arm.built_in else arm.name, ladder(step), 0.0, SEED)


def tried(arm: Arm, outcomes: Mapping[Run, Outcome]) -> dict[int, Outcome]:
    """An arm's pilot by step of the ladder, ascending."""
    own = run_at(arm, 0).arm
    return dict(sorted((step_of(run.lr), outcome) for run, outcome in outcomes.items() if run.arm == own))


def further(arm: Arm, outcomes: Mapping[Run, Outcome], metric: str) -> list[Run]:
    """The next runs beyond the end at which the best learning rate lies; none where it lies inside.

    None either where its neighbour is as good, or where the training loss chose: how fast a job memorises does not say
    how well it would learn. Where every run diverged, the next are below.
    """
    at = tried(arm, outcomes)
    upwards, downwards = list(at), list(reversed(at))
    if not any(outcome.ok for outcome in at.values()):
        return beyond(arm, downwards)
    found = read(arm, outcomes, metric)
    steps = upwards if found.step == upwards[-1] else downwards
    if found.memorises or found.step != steps[-1]:
        return []
    end, neighbour = at[steps[-1]], at[steps[-2]]
    if neighbour.ok and neighbour.validation[metric] <= end.validation[metric]:
        return []
    return beyond(arm, steps)


def beyond(arm: Arm, steps: Sequence[int]) -> list[Run]:
    """The next runs of a row of steps, as far apart as its last two."""
    return [run_at(arm, steps[-1] + (steps[-1] - steps[-2]) * count) for count in range(1, BEYOND + 1)]


def read(arm: Arm, outcomes: Mapping[Run, Outcome], metric: str) -> Pilot:
    """Choose the best learning rate and keep what was measured there.

    Validation chooses. Where it only ever gets worse than that of the untrained weights, as in a job that memorises
    unless decay keeps it from that, it would choose the rate that learns least; there the training loss chooses.

    Args:
        arm: whose pilot.
        outcomes: of all arms' pilots.
        metric: that validation is judged by.
    """
    found = tried(arm, outcomes)
    rates = tuple(map(ladder, found))
    ok = [(step, outcome) for step, outcome in found.items() if outcome.ok]
    if not ok:
        listed = ", ".join(f"{rate:g}" for rate in rates)
        raise PilotError(f"{arm.title} diverged without weight decay at every learning rate tried ({listed})")
    memorises = all(learned_nothing(outcome, metric) for _, outcome in ok)
    by = (lambda outcome: outcome.training_loss) if memorises else (lambda outcome: outcome.validation[metric])
    step, best = min(ok, key=lambda entry: (by(entry[1]), entry[0]))
    scale = best.gradient_scale or (0.0, 0.0, 0.0)
    if arm.built_in and not scale[0] > 0:
        raise PilotError("no weight of the job ever received a gradient: there is nothing to compare")
    early = best.fit is not None and best.fit <= LEARNED
    figures = {step: outcome.validation[metric] if outcome.ok else math.inf for step, outcome in found.items()}
    other = () if memorises else basins(figures)
    return Pilot(step, best.steps_per_epoch, best.epochs, scale, memorises, early, rates, other)


def basins(found: Mapping[int, float]) -> tuple[int, ...]:
    """The lowest and the highest step that are nearly as good as the best, if one between them is not.

    Example:
        >>> basins({-8: 1.5, -7: 1.0, -6: math.inf, -5: 0.95}), basins({-8: 1.5, -7: 1.0, -6: 0.95, -5: 1.4})
        ((-7, -5), ())
    """
    lowest = min(found.values())
    good = [step for step, value in found.items() if value <= lowest + NEARLY * abs(lowest)]
    between = [step for step in found if good[0] < step < good[-1]]
    return () if set(between) <= set(good) else (good[0], good[-1])


def learned_nothing(outcome: Outcome, metric: str) -> bool:
    """Whether a run that fitted its training data validates worse than the untrained weights."""
    if outcome.untrained is None or outcome.training_loss is None:
        return False
    return outcome.validation[metric] >= outcome.untrained[metric]
