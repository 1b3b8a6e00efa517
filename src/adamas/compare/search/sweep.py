"""A sweep over weight decay on a variant of the job: where does an arm's best decay go when one thing changes?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from adamas.compare.search.grids import round_to
from adamas.compare.search.pilot import SEED
from adamas.compare.search.selection import Winner, scores
from adamas.compare.study.run import Outcome, Run

STEP = 10**0.5  # ratio of neighbouring decays of a sweep
RANGE = range(-3, 8)  # steps around the winner's decay; the same for every variant, so that none has an advantage


def sweep(winner: Winner, variant: str) -> list[Run]:
    """Return the runs of a sweep at the winner's learning rate, over five decades of weight decay."""
    return [
        Run("sweep", winner.arm, winner.lr, round_to(winner.weight_decay * STEP**power, 3), SEED, variant)
        for power in RANGE
    ]


def best_decay(runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> float:
    """Return torch's weight decay with the lowest validation figure; NaN where every run diverged."""
    found = scores(runs, outcomes, metric)
    best = min(found, key=lambda config: found[config])
    return best.weight_decay if math.isfinite(found[best]) else math.nan
