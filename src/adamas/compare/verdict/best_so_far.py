"""How fast a search finds what it finds: the best validation figure against the runs spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from adamas.compare.search.grids import SEED
from adamas.compare.study.run import Outcome, Run

PARTS = (0.25, 0.5, 1.0)  # of the budget, at which the text tells it


def best_so_far(runs: Sequence[Run], outcomes: Mapping[Run, Outcome], metric: str) -> list[float]:
    """The lowest validation figure of the first 1, 2, ... runs, in the order in which they were asked for.

    It is infinite until a run has a figure. Runs on further seeds are spent, and show nothing: another seed may have
    the easier validation, and arms differ in how many they run on.
    """
    figures = (outcomes[run].validation[metric] if outcomes[run].ok and run.seed == SEED else math.inf for run in runs)
    return list(accumulate(figures, min))


def at_parts(best: Sequence[float]) -> list[float]:
    """The best after a quarter, half and all of the runs.

    Example:
        >>> at_parts([0.9, 0.8, 0.8, 0.7])
        [0.9, 0.8, 0.7]
    """
    return [best[max(1, round(part * len(best))) - 1] for part in PARTS] if best else []
