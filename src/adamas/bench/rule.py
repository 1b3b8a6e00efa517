"""The rule that every implementation is asked for, its result in float64, and the measure of error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamas import reference
from adamas.bench.scenario import Scenario, Shape, Work
from adamas.scalars import Hyper

EpsMode = Literal["alg1", "hat"]

LR, BETA1, BETA2, WEIGHT_DECAY = 1e-3, 0.9, 0.999, 1e-2
MAX_NORM, EMA_DECAY = 1.0, 0.999
# The checked steps multiply the gradient by these factors in turn. With the same gradient each time, the corrected
# moments would be g and g**2 whatever the betas. The factors are powers of two, so that no dtype rounds.
SCALES = (1.0, -0.5, 2.0, -1.0, 0.25)


def eps(dtype: str) -> float:
    """Return epsilon: torch's default, or 1e-4 in float16, where 1e-8 is 0 and torch's parameters would be NaN."""
    return 1e-4 if dtype == "float16" else 1e-8


def initial(scenario: Scenario) -> tuple[list[Tensor], list[Tensor]]:
    """Return parameters and gradients, the same values at each call.

    Gradients have sizes of .5 to 1, so that their squares do not underflow in float16.
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
    """Parameters and averages of the weights after the checked steps, in float64."""

    parameters: list[NDArray[np.float64]]
    averages: list[NDArray[np.float64]]


def expected(scenario: Scenario, eps_mode: EpsMode = "alg1") -> Expected:
    """Return what the rule gives in float64 after a step, or a phase, with each of `SCALES`."""
    return _expected(scenario.shapes, scenario.dtype, scenario.work, eps_mode)


@lru_cache(maxsize=4)  # both sides of a comparison need the same result, which takes as long as all the rest of a check
def _expected(shapes: tuple[Shape, ...], dtype: str, work: Work, eps_mode: EpsMode) -> Expected:
    scenario = Scenario("", shapes, dtype, work)
    hyper = Hyper(LR, BETA1, BETA2, eps(dtype), WEIGHT_DECAY, decay="lr", eps_mode=eps_mode)
    params, grads = (as_float64(tensors) for tensors in initial(scenario))
    norm = float(np.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads)))
    averages: list[NDArray[np.float64]] = []
    states = [reference.init(param) for param in params]
    for scale in SCALES:
        factor = scale if work != "phase" else scale * min(1.0, MAX_NORM / (abs(scale) * norm + 1e-6))
        for i, grad in enumerate(grads):
            params[i], states[i] = reference.step(params[i], factor * grad, states[i], hyper)
        averages = [a + (1 - EMA_DECAY) * (p - a) for a, p in zip(averages or params, params, strict=True)]
    return Expected(params, averages)


def as_float64(tensors: Sequence[Tensor]) -> list[NDArray[np.float64]]:
    """Return the same values as NumPy arrays, from any device."""
    return [tensor.detach().to("cpu", torch.float64).numpy() for tensor in tensors]


def error_ulps(found: Sequence[Tensor], wanted: Sequence[NDArray[np.float64]]) -> float:
    """Return the largest distance of an element from its wanted value, in ULPs.

    The unit is the spacing of the found tensor's dtype at the wanted value, or at `lr * len(SCALES)` where the value is
    smaller. A weight may move that far, so that one that passes zero is not held to the spacing at zero. In this unit
    a step that rounds twice, once after the decay and once after the update, errs by at most 1. NaN counts as infinity.
    """
    largest = 0.0
    for tensor, value in zip(found, wanted, strict=True):
        distance = np.abs(as_float64([tensor])[0] - value) / spacing(value, tensor.dtype)
        largest = max(largest, float(np.nan_to_num(distance, nan=np.inf, posinf=np.inf).max(initial=0.0)))
    return largest


def coarse_spacing(tensor: Tensor) -> float:
    """Return the widest spacing among a 16-bit tensor's elements, once for each step; 0 for wider dtypes."""
    if tensor.dtype.itemsize > 2:
        return 0.0
    return len(SCALES) * float(tensor.abs().max()) * torch.finfo(tensor.dtype).eps


def spacing(value: NDArray[np.float64], dtype: torch.dtype) -> NDArray[np.float64]:
    """Return the spacing of a dtype at `value`, or at the way that a weight may go where that is longer."""
    size = np.maximum(np.abs(value), LR * len(SCALES))
    return 2.0 ** np.floor(np.log2(size)) * torch.finfo(dtype).eps
