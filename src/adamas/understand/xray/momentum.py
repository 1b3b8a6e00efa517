"""The part of the first moment that comes from L2: an average of lambda * theta, kept for the last steps of a sample.

The first moment m of Adam with L2 averages gradient + lambda * theta. So it is the sum of an average of gradients and
one of lambda * theta. The latter is kept here for as many steps as beta1 needs to forget how it began.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from torch import Tensor

from adamas.scalars import Hyper
from adamas.understand.xray.elements import Place, States, joined, steps

FORGOTTEN = 1e-3  # the weight of the unknown beginning, below which the average counts as exact
RECENT = 0.15  # every step counts until the rest has this weight in the average; of the rest, every eighth
SPARSE = 8


@lru_cache(maxsize=256)
def steps_to_forget(beta1: float, weight: float = FORGOTTEN) -> int:
    """Return after how many steps the beginning of an average has this weight.

    Example:
        >>> steps_to_forget(0.9), steps_to_forget(0.0)
        (66, 1)
    """
    return 1 if beta1 == 0 else math.ceil(math.log(weight) / math.log(beta1))


@lru_cache(maxsize=256)
def counts(remaining: int, beta1: float) -> bool:
    """Return whether the step that comes this many steps before a sample is one of those that are counted.

    Example:
        >>> sum(counts(remaining, 0.9) for remaining in range(100))
        26
    """
    dense = remaining <= steps_to_forget(beta1, RECENT)
    return dense or (remaining % SPARSE == 0 and remaining <= steps_to_forget(beta1))


@lru_cache(maxsize=256)
def interpolated(beta1: float, gap: int) -> tuple[float, float, float]:
    """Return the weights of an average's new value over `gap` steps: of the old value, the new one, and itself.

    Example:
        >>> interpolated(0.5, 1), interpolated(0.5, 2)
        ((0.0, 0.5, 0.5), (0.125, 0.625, 0.25))
    """
    new = sum((1 - beta1) * beta1 ** (gap - step) * step / gap for step in range(1, gap + 1))
    kept = beta1**gap
    return (1 - kept - new if gap > 1 else 0.0), new, kept


class DecayMomentum:
    """The average of lambda * theta over the steps of one parameter group, for the sampled elements.

    It begins at lambda * theta, as if the weights had stood still before, or at 0 before a parameter's first step.
    Between the steps that are counted, the weights are taken to move on a line: where every step counts, it is exact.
    """

    def __init__(self, params: list[Tensor], places: list[Place], states: States, size: int) -> None:
        self.params, self._places, self._states = params, places, states
        self.size, self.window = size, 0  # of the group, with empty parameters; the steps that beta1 needs to forget
        self._begun = [steps(param, states) for param in params]
        self._passed, self._gap, self._forgotten = 0, 0, 1.0
        self._average: Any = None
        self._theta: Any = None

    def pass_by(self) -> None:
        """Let a step pass that is not counted."""
        self._passed, self._gap = self._passed + 1, self._gap + 1

    def add(self, hyper: Hyper) -> None:
        """Count the weights before a step of the group."""
        self.pass_by()
        pairs = zip(self.params, self._places, strict=True)
        theta = joined(place.weight(param, self._states) for param, place in pairs)
        if self._average is None:
            begun = zip(self._parts(theta), self._begun, strict=True)
            self._average = joined(part * (hyper.weight_decay * (1 - hyper.beta1**steps)) for part, steps in begun)
            self._theta = theta
        old, new, kept = interpolated(hyper.beta1, self._gap)
        self._average.mul_(kept).add_(theta, alpha=new * hyper.weight_decay)
        if old:
            self._average.add_(self._theta, alpha=old * hyper.weight_decay)
        self.window, self._theta, self._gap = steps_to_forget(hyper.beta1), theta, 0
        self._forgotten *= kept

    def read(self) -> tuple[list[Tensor], list[bool]]:
        """Return the average of each parameter, and whether it is exact, after a step that was counted.

        It is not exact where a step was skipped, or where beta1 still remembers the unknown beginning.
        """
        exact = [
            steps(param, self._states) == begun + self._passed and (begun == 0 or self._forgotten < FORGOTTEN)
            for param, begun in zip(self.params, self._begun, strict=True)
        ]
        return self._parts(self._average), exact

    def _parts(self, joint: Tensor) -> list[Tensor]:
        return list(joint.split([place.count for place in self._places]))
