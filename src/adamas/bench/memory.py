"""How fast the machine moves the bytes of a step: the limit that no implementation of it can beat for long."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adamas.bench.scenario import Scenario


def bytes_moved(scenario: Scenario) -> int:
    """Bytes a parameter that our step reads and writes.

    28 in float32; 40 for a phase, which also reads the gradient for its norm, and reads and writes the average.
    """
    size = getattr(torch, scenario.dtype).itemsize
    wide = max(size, 4)  # moments and averages are float32 or wider
    step = 2 * size + size + 2 * 2 * wide  # parameter, gradient, two moments
    return step if scenario.work == "step" else step + size + 2 * wide


def memory_pass(scenario: Scenario) -> Callable[[], None]:
    """A function that moves as many bytes as a step, or phase, in the same directions, and computes next to nothing.

    Streams lie in one block each and are float32 whatever the dtype, since additions of 16-bit numbers are bound by
    their conversion. Values stay as they are: what is added is far below half a unit in the last place of 1.
    """
    size = getattr(torch, scenario.dtype).itemsize
    wide = max(size, 4)

    def stream(width: int) -> torch.Tensor:
        return torch.ones(max(1, scenario.parameters * width // 4))

    param, grad, exp_avg, exp_avg_sq = stream(size), stream(size), stream(wide), stream(wide)
    average = stream(wide) if scenario.work == "phase" else None

    def move() -> None:
        if average is not None:
            grad.sum()
            average.add_(1e-30)
        param.add_(grad, alpha=1e-30)
        exp_avg.add_(1e-30)
        exp_avg_sq.add_(1e-30)

    return move
