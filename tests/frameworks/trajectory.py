"""One trajectory for every front: the same gradients, and the float64 reference to compare with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from adamas import reference
from adamas.scalars import Hyper

STEPS = 1000
LR = 2e-3
SHAPES = ((3, 5), (7,), ())
Run = Callable[[list[np.ndarray], list[list[np.ndarray]], dict[str, Any]], list[np.ndarray]]

# The options that all fronts share, in the words of `Hyper`.
SHARED: dict[str, dict[str, Any]] = {
    "plain": {},
    "l2": {"weight_decay": 0.1},
    "decoupled": {"weight_decay": 0.1, "decay": "lr"},
    "independent": {"weight_decay": 2e-4, "decay": "independent", "base_lr": LR},
    "corrected": {"weight_decay": 0.1, "decay": "corrected", "base_lr": LR},
    "cautious": {"weight_decay": 0.1, "decay": "lr", "cautious_decay": True},
    "amsgrad": {"amsgrad": "raw", "weight_decay": 0.1, "decay": "lr"},
    "betas": {"beta1": 0.4, "beta2": 0.99},
    "large-eps": {"eps": 0.1},
}


def starts(dtype: str) -> list[np.ndarray]:
    draw = np.random.default_rng(1)
    return [draw.normal(size=shape).astype(dtype) for shape in SHAPES]


@cache
def gradients(dtype: str, steps: int = STEPS) -> list[list[np.ndarray]]:
    """Gradients whose scale differs from element to element and falls a hundredfold on the way."""
    draw = np.random.default_rng(2)
    scales = [np.exp(2 * draw.normal(size=shape)) for shape in SHAPES]
    found = []
    for t in range(steps):
        fall = 1.0 if t < steps // 2 else 0.01
        found.append([(fall * scale * draw.normal(size=np.shape(scale))).astype(dtype) for scale in scales])
    return found


@cache
def expected(values: tuple[tuple[str, Any], ...], dtype: str, steps: int = STEPS) -> list[np.ndarray]:
    """The reference's parameters after the steps, in float64."""
    hyper = Hyper(**{"lr": LR, **dict(values)})
    params = [param.astype(np.float64) for param in starts(dtype)]
    states = [reference.init(param) for param in params]
    for grads in gradients(dtype, steps):
        stepped = [
            reference.step(param, grad.astype(np.float64), state, hyper)
            for param, grad, state in zip(params, grads, states, strict=True)
        ]
        params, states = [param for param, _ in stepped], [state for _, state in stepped]
    return params


def check(run: Run, values: dict[str, Any], dtype: str) -> None:
    """Float64 to 1e-12 of the largest number, float32 to a hundredth of a step."""
    found = run(starts(dtype), gradients(dtype), {"lr": LR, **values})
    budget = 1e-12 if dtype == "float64" else 1e-2 * LR
    for param, right in zip(found, expected(tuple(values.items()), dtype), strict=True):
        worst = float(np.max(np.abs(np.asarray(param, np.float64) - right)))
        assert worst <= budget * max(1.0, float(np.max(np.abs(right)))), f"{worst / LR:.2e} lr"
