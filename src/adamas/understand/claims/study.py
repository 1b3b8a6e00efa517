"""A small, fair study: every arm is tuned by the same number of runs, and its best setting runs on fresh paired seeds.

`adamas compare` does the same with a longer search and more seeds. Here each arm searches a grid of learning rates and
weight decays of its own, on one seed, by the validation loss; the fresh seeds count on the test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adamas.understand.claims.claim import Estimate, estimate
from adamas.understand.claims.sweep import grid
from adamas.understand.claims.training import ADAM_L2, ADAMW, NONE, Arm, Factory, Result, Run, train

MARGIN = 0.02  # the smallest relative change of a loss that matters, as in `adamas compare`
_FRESH = 100  # the first of the fresh seeds
ARMS = {"none": NONE, "l2": ADAM_L2, "adamw": ADAMW}
JOBS = ("digits", "deep", "transformer")


@dataclass(frozen=True)
class Size:
    """How large a study is.

    Attributes:
        rates: The learning rates that each arm tries with every weight decay.
        l2: The ends of the weight decays of Adam with L2, as powers of ten.
        adamw: The ends of those of AdamW.
        seeds: The number of fresh seeds.
    """

    rates: tuple[float, ...]
    l2: tuple[float, float]
    adamw: tuple[float, float]
    seeds: int


SIZES = {
    "digits": Size((1e-3, 3e-3, 1e-2), (-3.5, -0.5), (-1.5, 1.5), 8),
    "deep": Size((1e-3, 3e-3, 1e-2), (-3.0, 0.0), (-1.5, 1.5), 8),
    "transformer": Size((5e-3, 1e-2), (-4.5, -2.5), (-1.5, 0.5), 4),
}


@dataclass(frozen=True)
class Study:
    """The chosen run of every arm, and its results on the fresh seeds."""

    chosen: dict[str, Run]
    results: dict[str, list[Result]]

    def change(self, arm: str, other: str) -> Estimate:
        """Return the test loss of an arm minus another's, relative to the mean of the other's."""
        return estimate(self.changes(arm, other))

    def changes(self, arm: str, other: str) -> list[float]:
        """Return the relative change of every pair."""
        first, second = ([result.test for result in self.results[name]] for name in (arm, other))
        mean = sum(second) / len(second)
        return [(a - b) / mean for a, b in zip(first, second, strict=True)]


def study(job: Factory, size: Size, arms: Mapping[str, Arm]) -> Study:
    """Tune every arm, and run its best setting on fresh seeds.

    Args:
        job: Makes the job of a seed.
        size: The grids and the number of seeds.
        arms: The arms called "none", "l2" and "adamw".
    """
    l2, adamw = grid(*size.l2), grid(*size.adamw)
    settings = {
        "none": [(lr, 0.0) for lr in _finer(size.rates, len(size.rates) * len(l2))],
        "l2": [(lr, decay) for lr in size.rates for decay in l2],
        "adamw": [(lr, decay) for lr in size.rates for decay in adamw],
    }
    runs = {name: [Run(arms[name], *setting, seed=0) for setting in settings[name]] for name in settings}
    searched = train(job, [run for of_arm in runs.values() for run in of_arm])
    chosen = {name: min(of_arm, key=lambda run: searched[run].validation) for name, of_arm in runs.items()}
    fresh = {
        name: [Run(run.arm, run.lr, run.weight_decay, _FRESH + seed) for seed in range(size.seeds)]
        for name, run in chosen.items()
    }
    found = train(job, [run for of_arm in fresh.values() for run in of_arm])
    return Study(chosen, {name: [found[run] for run in of_arm] for name, of_arm in fresh.items()})


def _finer(rates: Sequence[float], count: int) -> list[float]:
    """Return `count` learning rates at equal ratios over the same range: as many runs as the other arms have.

    A range of one learning rate has no others.
    """
    ratio = (rates[-1] / rates[0]) ** (1 / (count - 1))
    return [rates[0] * ratio**n for n in range(count)]


def factory(name: str) -> Factory:
    """Return the function that makes one of the `JOBS`."""
    from adamas.understand.claims.jobs import deep_job, digits_job, transformer_job

    jobs: dict[str, Factory] = {"digits": digits_job, "deep": deep_job, "transformer": transformer_job}
    return jobs[name]
