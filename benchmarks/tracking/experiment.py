"""The experiment and its result: stored moments beside exact ones, while half of the gradients fall tenfold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adamas.bench.result import write_whole
from benchmarks import RESULTS
from benchmarks.tracking.formats import Moments, Store

Exact = NDArray[np.float64]
SCHEMA = 1  # raised whenever a key is added or renamed
PATH = RESULTS / "tracking.json"
LEAST = 1e-60  # what a v of zero counts as in a logarithm


@dataclass(frozen=True)
class Scenario:
    """Uncorrelated gradients, each element with a scale of its own; then the scale of every second element falls.

    Attributes:
        elements: number of elements.
        steps: steps before the fall, and again after it.
        betas: decay rates of both moments.
        eps: epsilon of the update.
        fall: factor by which scales fall.
        every: steps between two records.
        seed: seed of scales and gradients.
    """

    elements: int = 8192
    steps: int = 3000
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    fall: float = 0.1
    every: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """The curves of one experiment.

    Attributes:
        scenario: what was fed.
        steps: the steps at which values were recorded.
        curves: a value for each step, by scheme and measure; None where it is infinite.
    """

    scenario: Scenario
    steps: list[int]
    curves: dict[str, dict[str, list[float | None]]]

    @classmethod
    def of(cls, scenario: Scenario, steps: list[int], records: dict[str, dict[str, list[float]]]) -> Result:
        """Return a result with values of five digits."""

        def rounded(value: float) -> float | None:
            return float(f"{value:.5g}") if math.isfinite(value) else None

        curves = {
            name: {key: [rounded(value) for value in values] for key, values in measures.items()}
            for name, measures in records.items()
        }
        return cls(scenario, steps, curves)

    def at(self, scheme: str, measure: str, step: int) -> float:
        """Return the value of a measure at a step."""
        value = self.curves[scheme][measure][self.steps.index(step)]
        return math.inf if value is None else value

    def write(self, path: Path) -> None:
        """Write the JSON, a line for each scheme."""
        data: dict[str, Any] = {"schema": SCHEMA, "scenario": asdict(self.scenario), "steps": self.steps}
        schemes = [f"{json.dumps(name)}: {json.dumps(measures)}" for name, measures in self.curves.items()]
        write_whole(path, f'{json.dumps(data)[:-1]},\n"curves": {{\n ' + ",\n ".join(schemes) + "\n}}\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Return the result that `write` wrote."""
        data = json.loads(path.read_text())
        scenario = data["scenario"] | {"betas": tuple(data["scenario"]["betas"])}
        return cls(Scenario(**scenario), data["steps"], data["curves"])


def run(
    stores: Mapping[str, Store], scenario: Scenario, done: Callable[[int], None] = lambda step: None
) -> tuple[list[int], dict[str, dict[str, list[float]]]]:
    """Feed the same gradients to every store, and to float64.

    Args:
        stores: stores by name.
        scenario: what to feed.
        done: is called after each step.

    Returns:
        The steps recorded, and for each store its `measures` at each of them.
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
    """Return both moments after a gradient, in the arrays' own precision."""
    return betas[0] * m + (1 - betas[0]) * grad, betas[1] * v + (1 - betas[1]) * grad * grad


def measures(
    exact: tuple[Exact, Exact],
    fresh: tuple[Moments, Moments],
    stored: tuple[Moments, Moments],
    falls: NDArray[np.bool_],
    eps: float,
) -> dict[str, float]:
    """Return how far the moments are from the exact ones.

    Returns:
        `sqrt_v`: RMS of the logarithm of sqrt(v) over the exact one, a v of zero counting as 1e-60;
        `nonzero_sqrt_v`: the same for each v that is not zero;
        `fallen`: the median of sqrt(v) over the exact one among the elements whose gradients fall; `bias`, `variance`
        and `step_size`: of v over the exact one less 1, its mean and variance, and the mean of the exact sqrt(v) over
        the stored one; `update`: RMS of the error of the update that the parameter gets, which is made of the moments
        before they are stored, over the RMS of the exact update; `stored_update`: the same for the update that the
        stored moments would make.
    """
    v = stored[1].astype(np.float64)
    ratio = v / exact[1]
    with np.errstate(divide="ignore"):
        step_size = float(np.mean(1 / np.sqrt(ratio)))
    exact_update = update(*exact, eps)
    logarithm = np.log(np.maximum(v, LEAST) / exact[1]) / 2
    found = {
        "sqrt_v": rms(logarithm),
        "nonzero_sqrt_v": rms(logarithm[v > 0]),
        "fallen": float(np.median(np.sqrt(ratio[falls]))),
        "bias": float(np.mean(ratio)) - 1,
        "variance": float(np.var(ratio)),
        "step_size": step_size,
    }
    for name, moments in (("update", fresh), ("stored_update", stored)):
        error = update(*(each.astype(np.float64) for each in moments), eps) - exact_update
        found[name] = rms(error) / rms(exact_update)
    return found


def update(m: Exact, v: Exact, eps: float) -> Exact:
    """Return Adam's update without bias correction, which is the same for all formats."""
    return m / (np.sqrt(v) + eps)


def rms(x: Exact) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(x))))
