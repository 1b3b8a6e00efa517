"""The one rule that all implementations are asked for, and the float64 result of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamas import reference
from adamas.bench.scenario import Scenario
from adamas.scalars import Hyper

LR, BETA1, BETA2, WEIGHT_DECAY = 1e-3, 0.9, 0.999, 1e-2
MAX_NORM, EMA_DECAY = 1.0, 0.999
# The gradient of a checked step is that of the problem times the next of these: with the same one each time, the
# corrected moments would be g and g**2 whatever the betas. Powers of two, so that no dtype rounds.
SCALES = (1.0, -0.5, 2.0, -1.0, 0.25)


def eps(dtype: str) -> float:
    """Added to the root: torch's default, but 1e-4 in float16, where 1e-8 is 0 and torch's parameters would be NaN."""
    return 1e-4 if dtype == "float16" else 1e-8


def initial(scenario: Scenario) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and gradients, the same values each time.

    Gradients have sizes of .5 to 1: their squares must not underflow in float16.
    """
    random = torch.Generator().manual_seed(0)
    dtype = getattr(torch, scenario.dtype)
    params: list[Tensor] = []
    grads: list[Tensor] = []
    for shape in scenario.shapes:
        params.append(torch.randn(shape, generator=random).to(dtype))
        draw = torch.rand(shape, generator=random) - 0.5
        grads.append((draw + draw.sign() * 0.5).to(dtype))
    return params, grads


@dataclass(frozen=True)
class Expected:
    """Parameters and averages after the checked steps, in float64."""

    parameters: list[NDArray[np.float64]]
    averages: list[NDArray[np.float64]]


def expected(scenario: Scenario, eps_mode: Literal["alg1", "hat"] = "alg1") -> Expected:
    """What the rule gives in float64 after a step, or phase, with each of `SCALES`."""
    hyper = Hyper(LR, BETA1, BETA2, eps(scenario.dtype), WEIGHT_DECAY, decay="lr", eps_mode=eps_mode)
    params, grads = (as_float64(tensors) for tensors in initial(scenario))
    norm = float(np.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads)))
    averages: list[NDArray[np.float64]] = []
    states = [reference.init(param) for param in params]
    for scale in SCALES:
        factor = scale if scenario.work == "step" else scale * min(1.0, MAX_NORM / (abs(scale) * norm + 1e-6))
        for i, grad in enumerate(grads):
            params[i], states[i] = reference.step(params[i], factor * grad, states[i], hyper)
        averages = [a + (1 - EMA_DECAY) * (p - a) for a, p in zip(averages or params, params, strict=True)]
    return Expected(params, averages)


def as_float64(tensors: Sequence[Tensor]) -> list[NDArray[np.float64]]:
    """The same values in NumPy, from whatever device."""
    return [tensor.detach().to("cpu", torch.float64).numpy() for tensor in tensors]


def error_ulps(found: Sequence[Tensor], wanted: Sequence[NDArray[np.float64]]) -> float:
    """The largest distance of an element from its wanted value, in ULPs.

    The unit is the spacing of the found tensor's dtype at the larger of the wanted value's size and the length of
    `lr * len(SCALES)` that a weight may move: a weight that passes by zero is not held to the spacing there. In this
    unit a step that rounds twice, once after the decay and once after the update, errs by at most 1; NaN is infinitely
    far.
    """
    largest = 0.0
    for tensor, value in zip(found, wanted, strict=True):
        distance = np.abs(as_float64([tensor])[0] - value) / spacing(value, tensor.dtype)
        largest = max(largest, float(np.nan_to_num(distance, nan=np.inf, posinf=np.inf).max(initial=0.0)))
    return largest


def brief_spacing(tensor: Tensor) -> float:
    """The widest distance of neighbouring numbers among a tensor's elements, once a step; 0 in float32 and wider."""
    if tensor.dtype.itemsize > 2:
        return 0.0
    return len(SCALES) * float(tensor.abs().max()) * torch.finfo(tensor.dtype).eps


def spacing(value: NDArray[np.float64], dtype: torch.dtype) -> NDArray[np.float64]:
    """Distance of neighbouring numbers of a dtype at `value`, taken as at least the length of the path."""
    size = np.maximum(np.abs(value), LR * len(SCALES))
    return 2.0 ** np.floor(np.log2(size)) * torch.finfo(dtype).eps
