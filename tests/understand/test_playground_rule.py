"""The page's JavaScript takes the steps of `reference.py`, bit for bit, over 1,000 steps of every rule.

Powers are where the two could differ: C libraries round about one `pow` in a thousand the wrong way, and browsers more.
The page rounds every power correctly, so the reference is given numbers whose powers are exact before they are rounded.
With plain floats the two are compared too, up to the first power that the C library rounds the wrong way.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adamas import reference
from adamas.reference import Array
from adamas.scalars import Hyper
from adamas.understand import playground

NODE = shutil.which("node")
RULE = Path(playground.__file__).parent / "rule.js"
STEPS = 1000

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed, so no JavaScript runs outside a browser")

RUN = """
const rule = require(process.argv[1]), { hypers, rates, start, gradients } = JSON.parse(require("fs").readFileSync(0));
const numbers = (text) => [...new Float64Array(new Uint8Array(Buffer.from(text, "base64")).buffer)];
hypers.forEach((hyper) => {
  const all = numbers(gradients), rows = [];
  let theta = numbers(start), state = rule.initState(theta);
  numbers(rates).forEach((lr, t) => {
    const g = all.slice(t * theta.length, (t + 1) * theta.length);
    ({ theta, state } = rule.ruleStep(theta, g, state, rule.makeHyper({ ...hyper, lr })));
    rows.push(...theta, ...state.m, ...state.v, ...state.v_max);
  });
  console.log(Buffer.from(new Float64Array(rows).buffer).toString("base64"));
});
"""


class Exact(float):
    """A float whose integer powers are rounded once, from the exact power; Python divides integers so."""

    def __pow__(self, power: int, modulo: None = None) -> float:
        return exact_power(float(self), power)


@cache
def exact_power(base: float, power: int) -> float:
    numerator, denominator = base.as_integer_ratio()
    return numerator**power / denominator**power


CASES: dict[str, dict[str, Any]] = {
    "l2": {"decay": "l2", "weight_decay": 0.1},
    "l2 large": {"decay": "l2", "weight_decay": 30.0, "eps": 0.0},
    "no decay": {"decay": "none", "beta1": 0.95, "beta2": 0.98},
    "lr": {"decay": "lr", "weight_decay": 0.3},
    "independent": {"decay": "independent", "weight_decay": 0.003, "base_lr": 0.02},
    "corrected": {"decay": "corrected", "weight_decay": 0.3, "base_lr": 0.02},
    "cautious": {"decay": "lr", "weight_decay": 0.3, "cautious_decay": True},
    "cautious corrected": {"decay": "corrected", "weight_decay": 2.0, "base_lr": 0.02, "cautious_decay": True},
    "amsgrad raw": {"decay": "lr", "weight_decay": 0.3, "amsgrad": "raw"},
    "amsgrad corrected": {"decay": "l2", "weight_decay": 0.3, "amsgrad": "corrected", "eps_mode": "hat"},
    "eps hat": {"decay": "lr", "weight_decay": 0.1, "eps_mode": "hat", "eps": 1e-3},
    "eps_root": {"decay": "l2", "weight_decay": 0.1, "eps_root": 1e-7},
    "maximize": {"decay": "l2", "weight_decay": 0.1, "maximize": True},
    "no bias correction": {"decay": "lr", "weight_decay": 0.1, "bias_correction": False},
    "no moving averages": {"decay": "lr", "weight_decay": 0.1, "beta1": 0.0, "beta2": 0.0, "eps": 0.0},
    "slow averages": {"decay": "l2", "weight_decay": 0.1, "beta1": 0.999, "beta2": 0.99999},
}
RATES = [0.01 * (1 + math.cos(math.pi * t / STEPS)) for t in range(STEPS)]
START = np.array([1.0, -0.5, 0.0, -0.0, 3e-320, 1e150, np.inf, 0.7, 2.0])


def gradients() -> Array:
    """Ordinary, sparse, tiny, huge and zero gradients, one column each, and some inf and NaN in the last."""
    random = np.random.default_rng(3)
    scales = np.array([1.0, 1e-6, 1.0, 0.0, 1e-170, 1e160, 1.0, 1e4, 1.0])
    found = random.standard_normal((STEPS, len(START))) * scales
    found[random.random(STEPS) < 0.95, 2] = 0.0
    found[700, 8], found[800, 8] = np.inf, np.nan
    return found


def in_python(hyper: dict[str, Any], kind: type[float]) -> Array:
    """Return theta, m, v and v_max after every step, (steps, 4, weights)."""
    numbers = {name: kind(value) if type(value) is float else value for name, value in hyper.items()}
    theta, state, rows = START, reference.init(START), []
    with np.errstate(all="ignore"):
        for rate, g in zip(RATES, gradients(), strict=True):
            theta, state = reference.step(theta, g, state, Hyper(**(numbers | {"lr": kind(rate)})))
            rows.append(np.stack([theta, state.m, state.v, state.v_max]))
    return np.stack(rows)


def in_node(hypers: list[dict[str, Any]]) -> list[Array]:
    """Return the same from the page's code, for each of several cases."""
    sent = {
        "hypers": hypers,
        "rates": as_text(np.array(RATES)),
        "start": as_text(START),
        "gradients": as_text(gradients()),
    }
    command = [str(NODE), "-e", RUN, str(RULE)]
    ran = subprocess.run(command, input=json.dumps(sent), capture_output=True, text=True, check=True, timeout=60)
    shape = (STEPS, 4, len(START))
    return [np.frombuffer(base64.b64decode(line)).reshape(shape) for line in ran.stdout.split()]


def as_text(numbers: Array) -> str:
    """Return the bytes of float64 numbers as text: JSON has neither inf nor NaN nor, in JavaScript, -0."""
    return base64.b64encode(numbers.tobytes()).decode()


def different(found: Array, expected: Array) -> Array:
    """Return where the bits differ; a NaN equals any other NaN."""
    return (found.view(np.uint64) != expected.view(np.uint64)) & ~(np.isnan(found) & np.isnan(expected))


@pytest.fixture(scope="module")
def page_steps() -> dict[str, Array]:
    """The steps of every case, from one process of Node."""
    return dict(zip(CASES, in_node(list(CASES.values())), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_rule_has_the_bits_of_the_reference(name: str, page_steps: dict[str, Array]) -> None:
    wrong = different(page_steps[name], in_python(CASES[name], Exact))
    assert not wrong.any(), f"first at (step, quantity, weight) {np.argwhere(wrong)[0]}: {wrong.sum()} of {wrong.size}"


@pytest.mark.parametrize("name", ["l2", "lr", "amsgrad raw", "slow averages"])
def test_plain_floats_differ_only_after_a_power_that_the_c_library_rounds_wrongly(
    name: str, page_steps: dict[str, Array]
) -> None:
    """Such a power changes a correction 1 - beta^t by at most 2^-53, of 1e-5 at least: by less than 1.2e-11 of it."""
    hyper = Hyper(**CASES[name])
    found, plain = page_steps[name], in_python(CASES[name], float)
    pairs = [(beta**t, exact_power(beta, t)) for t in range(1, STEPS + 1) for beta in (hyper.beta1, hyper.beta2)]
    first = next((place // 2 for place, (platform, exact) in enumerate(pairs) if platform != exact), STEPS)
    assert first > 10
    assert not different(found[:first], plain[:first]).any()
    np.testing.assert_allclose(found, plain, rtol=1.2e-11, atol=1e-12)


def test_the_comparison_can_fail(page_steps: dict[str, Array]) -> None:
    """One bit in beta2, or decay of another rule, shows."""
    near = CASES["lr"] | {"beta2": float(np.nextafter(0.999, 0))}
    for planted in (near, CASES["lr"] | {"decay": "corrected", "base_lr": 0.02}, CASES["lr"] | {"eps": 1e-7}):
        assert different(page_steps["lr"], in_python(planted, Exact)).any()
