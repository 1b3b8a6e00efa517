"""Stored moments beside exact ones, through a tenfold fall of half the gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.tracking.store import Moments, Store

Exact = NDArray[np.float64]
LEAST = 1e-60  # what a v of zero counts as in a logarithm


@dataclass(frozen=True)
class Scenario:
    """Gradients without correlation, each element with a scale of its own; then every second element's scale falls.

    Attributes:
        elements: how many.
        steps: before the fall, and again after it.
        betas: of both moments.
        eps: of the update.
        fall: factor of the falling elements' scales.
        every: steps between records.
        seed: of scales and gradients.
    """

    elements: int = 8192
    steps: int = 3000
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    fall: float = 0.1
    every: int = 50
    seed: int = 0


def run(
    stores: Mapping[str, Store], scenario: Scenario, done: Callable[[int], None] = lambda step: None
) -> tuple[list[int], dict[str, dict[str, list[float]]]]:
    """Feed the same gradients to every store, and to float64.

    Args:
        stores: by name.
        scenario: what to feed.
        done: called after each step.

    Returns:
        The steps recorded, and of each store its `measures` at each.
    """
    random = np.random.default_rng(scenario.seed)
    scale = np.exp(random.normal(0, 1, scenario.elements)).astype(np.float32)
    falls = np.arange(scenario.elements) % 2 == 0
    zero = np.zeros(scenario.elements, np.float32)
    exact = (zero.astype(np.float64), zero.astype(np.float64))
    stored = dict.fromkeys(stores, (zero, zero))
    steps: list[int] = []
    records: dict[str, dict[str, list[float]]] = {name: {} for name in stores}
    for step in range(1, 2 * scenario.steps + 1):
        if step == scenario.steps + 1:
            scale = np.where(falls, scale * np.float32(scenario.fall), scale)
        grad = scale * random.standard_normal(scenario.elements, np.float32)
        exact = averaged(*exact, grad.astype(np.float64), scenario.betas)
        recorded = step % scenario.every == 0
        steps += [step] if recorded else []
        for name, store in stores.items():
            fresh = averaged(*stored[name], grad, scenario.betas)
            stored[name] = store(*fresh, step)
            if recorded:
                for key, value in measures(exact, fresh, stored[name], falls, scenario.eps).items():
                    records[name].setdefault(key, []).append(value)
        done(step)
    return steps, records


def averaged(m: NDArray, v: NDArray, grad: NDArray, betas: tuple[float, float]) -> tuple[NDArray, NDArray]:
    """Both moments after a gradient, in the arrays' own precision."""
    return betas[0] * m + (1 - betas[0]) * grad, betas[1] * v + (1 - betas[1]) * grad * grad


def measures(
    exact: tuple[Exact, Exact],
    fresh: tuple[Moments, Moments],
    stored: tuple[Moments, Moments],
    falls: NDArray[np.bool_],
    eps: float,
) -> dict[str, float]:
    """How far the moments are from exact.

    Returns:
        `sqrt_v`: RMS of the logarithm of sqrt(v) over the exact one, a v of zero counting as 1e-60;
        `nonzero_sqrt_v`: the same of the v that are not zero; `zeros`: the share of v that are zero;
        `fallen`: the median of sqrt(v) over the exact one among the elements whose gradients fall; `bias`, `variance`
        and `step_size`: of v over the exact one less 1, its mean and variance, and the mean of the exact sqrt(v) over
        the stored one; `update`, `update_99`: of the error of the update that the parameter gets, which is made of
        the moments before they are stored, its RMS and 99th percentile over the RMS of the exact update;
        `stored_update`, `stored_update_99`: the same of the update that the stored moments would make.
    """
    v = stored[1].astype(np.float64)
    ratio = v / exact[1]
    with np.errstate(divide="ignore"):
        step_size = float(np.mean(1 / np.sqrt(ratio)))
    exact_update = update(*exact, eps)
    size = rms(exact_update)
    logarithm = np.log(np.maximum(v, LEAST) / exact[1]) / 2
    found = {
        "sqrt_v": rms(logarithm),
        "nonzero_sqrt_v": rms(logarithm[v > 0]),
        "zeros": float(np.mean(v == 0)),
        "fallen": float(np.median(np.sqrt(ratio[falls]))),
        "bias": float(np.mean(ratio)) - 1,
        "variance": float(np.var(ratio)),
        "step_size": step_size,
    }
    for name, moments in (("update", fresh), ("stored_update", stored)):
        error = np.abs(update(*(each.astype(np.float64) for each in moments), eps) - exact_update)
        found |= {name: rms(error) / size, f"{name}_99": float(np.quantile(error, 0.99)) / size}
    return found


def update(m: Exact, v: Exact, eps: float) -> Exact:
    """Adam's update; bias correction is left out, since it is the same for all."""
    return m / (np.sqrt(v) + eps)


def rms(x: Exact) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
