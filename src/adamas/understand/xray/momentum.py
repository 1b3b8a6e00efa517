"""The part of the first moment that comes from L2: an average of lambda * theta, kept for the last steps of a sample.

The first moment m of Adam with L2 averages gradient + lambda * theta. So it is the sum of an average of gradients and
one of lambda * theta. The latter is kept here for as many steps as beta1 needs to forget how it began.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from adamas.scalars import Hyper
from adamas.understand.xray.elements import Place, States, joined, steps

FORGOTTEN = 1e-3  # the weight of the unknown beginning, below which the average counts as exact


def steps_to_forget(beta1: float) -> int:
    """Return after how many steps the beginning of an average has a weight below `FORGOTTEN`.

    Example:
        >>> steps_to_forget(0.9), steps_to_forget(0.0)
        (66, 1)
    """
    return 1 if beta1 == 0 else math.ceil(math.log(FORGOTTEN) / math.log(beta1))


class DecayMomentum:
    """The average of lambda * theta over the steps of one parameter group, for the sampled elements.

    It begins at lambda * theta, as if the weights had stood still before, or at 0 before a parameter's first step.
    """

    def __init__(self, params: list[Tensor], places: list[Place], states: States, size: int) -> None:
        self.params, self._places, self._states = params, places, states
        self.size, self.window = size, 0  # of the group, with empty parameters; the steps that beta1 needs to forget
        self._begun = [steps(param, states) for param in params]
        self._added, self._forgotten = 0, 1.0
        self._average: Any = None

    def add(self, hyper: Hyper) -> None:
        """Count the weights before a step of the group."""
        pairs = zip(self.params, self._places, strict=True)
        theta = joined(place.weight(param, self._states) for param, place in pairs)
        if self._average is None:
            begun = zip(self._parts(theta), self._begun, strict=True)
            self._average = joined(part * (hyper.weight_decay * (1 - hyper.beta1**steps)) for part, steps in begun)
        self.window = steps_to_forget(hyper.beta1)
        self._average.mul_(hyper.beta1).add_(theta, alpha=(1 - hyper.beta1) * hyper.weight_decay)
        self._added, self._forgotten = self._added + 1, self._forgotten * hyper.beta1

    def read(self) -> tuple[list[Tensor], list[bool]]:
        """Return the average of each parameter, and whether it is exact, after a step that was counted.

        It is not exact where a step was skipped, or where beta1 still remembers the unknown beginning.
        """
        exact = [
            steps(param, self._states) == begun + self._added and (begun == 0 or self._forgotten < FORGOTTEN)
            for param, begun in zip(self.params, self._begun, strict=True)
        ]
        return self._parts(self._average), exact

    def _parts(self, joint: Tensor) -> list[Tensor]:
        return list(joint.split([place.count for place in self._places]))
