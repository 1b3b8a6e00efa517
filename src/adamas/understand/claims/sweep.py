"""Where is the best weight decay of a job? A sweep over decays, and the lowest point of a parabola through it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adamas.understand.claims.training import Arm, Factory, Run, train


def losses(job: Factory, arm: Arm, lr: float, decays: Sequence[float], seeds: Sequence[int]) -> dict[int, list[float]]:
    """Return the validation losses of every seed, one for each weight decay."""
    found = train(job, [Run(arm, lr, decay, seed) for seed in seeds for decay in decays])
    return {seed: [found[Run(arm, lr, decay, seed)].validation for decay in decays] for seed in seeds}


def best(decays: Sequence[float], values: Sequence[float]) -> float:
    """Return the logarithm to base 10 of the best weight decay.

    It is the lowest point of a parabola through the lowest loss and its two neighbours. At an end of the sweep it is
    that end.

    Args:
        decays: Weight decays at equal ratios, rising.
        values: The loss at each.

    Example:
        >>> round(best([0.1, 1.0, 10.0], [5.0, 4.0, 5.0]), 12), best([0.1, 1.0, 10.0], [1.0, 2.0, 3.0])
        (0.0, -1.0)
    """
    place = min(range(len(values)), key=lambda n: values[n])
    at = math.log10(decays[place])
    if place in (0, len(values) - 1) or not all(math.isfinite(value) for value in values[place - 1 : place + 2]):
        return at
    before, here, after = values[place - 1 : place + 2]
    bend = before - 2 * here + after
    step = math.log10(decays[1] / decays[0])
    return at + (0.5 * (before - after) / bend * step if bend > 0 else 0.0)


def grid(low: float, high: float, per_decade: int = 2) -> list[float]:
    """Return weight decays at equal ratios from 10^low to 10^high.

    Example:
        >>> [round(decay, 3) for decay in grid(-1, 0)]
        [0.1, 0.316, 1.0]
    """
    return [10 ** (low + n / per_decade) for n in range(round((high - low) * per_decade) + 1)]
