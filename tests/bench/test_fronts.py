"""The fronts for NumPy, JAX and Keras beside their frameworks' own optimizers, at tiny sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from adamas.bench import process, rule
from adamas.bench.device import Cpu
from adamas.bench.harness import APART, Harness, compare
from adamas.bench.peers import PEERS, missing
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.numpy_arrays import OursNumPy, PlainNumPy
from adamas.bench.row import Row
from adamas.bench.scenario import Scenario, Work
from tests.bench.conftest import BRIEF, tiny

WORKS: tuple[Work, ...] = ("step", "ten steps", "phase")
HARNESS = Harness(Cpu(), BRIEF)


def skip_without(name: str) -> None:
    """Skip the test where the framework or our front for it is not installed."""
    reason = missing(PEERS[name]) or (
        "adamas.keras is missing" if "keras" in name and find_spec("adamas.keras") is None else None
    )
    if reason:
        pytest.skip(reason)


def check_row(name: str, work: Work, row: Row) -> None:
    assert row.reason is None, (name, work, row.reason)
    row = Row.from_json(row.to_json())  # as the measuring process hands it over
    figures = row.figures
    assert figures is not None
    assert figures.ratio > 0
    assert figures.ours.error_ulps < APART
    for side in (figures.ours, figures.peer):
        assert side.state_bytes >= (12 if work == "phase" else 8)
        assert (side.first_seconds is not None) == PEERS[name].compiles


@pytest.mark.parametrize("work", WORKS)
def test_numpy_is_checked_and_measured(work: Work) -> None:
    """In a process of its own as in this one."""
    apart = work == "step"
    row = process.in_own_process(tiny(), "numpy", BRIEF) if apart else compare(tiny(work=work), PlainNumPy, HARNESS)
    check_row("numpy", work, row)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_plain_numpy_is_held_equal(dtype: str) -> None:
    assert PlainNumPy.exact
    row = compare(tiny(dtype), PlainNumPy, HARNESS)
    assert row.reason is None


class WithoutCorrection(PlainNumPy):
    """The corrections of later steps are near 1."""

    name = "without correction"

    def stepped(self, grads: list[np.ndarray]) -> None:
        self.steps += 10_000
        super().stepped(grads)


class AverageOfZeros(PlainNumPy):
    name = "average of zeros"

    def phase(self) -> None:
        super().phase()
        self.mean = [param * 0 for param in self.params]


@pytest.mark.parametrize(
    ("peer", "work", "what"), [(WithoutCorrection, "step", "parameters"), (AverageOfZeros, "phase", "averages")]
)
def test_a_wrong_peer_gets_no_figures(peer: type[Peer], work: Work, what: str) -> None:
    row = compare(tiny(work=work), peer, HARNESS)
    assert row.figures is None
    assert str(row.reason).startswith(f"differs: {what} are ")


def test_a_wrong_front_gets_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def ascend(self: OursNumPy) -> None:
        self.optimizer.step([-grad for grad in self.grads])

    monkeypatch.setattr(OursNumPy, "step", ascend)
    row = compare(tiny(), PlainNumPy, HARNESS)
    assert row.figures is None
    assert "adamas errs by" in str(row.reason)


def test_numpy_refuses_bfloat16() -> None:
    """The row of a process that fails says why: see test_harness."""
    with pytest.raises(ValueError, match=r"^NumPy has no bfloat16$"):
        compare(tiny("bfloat16"), PlainNumPy, HARNESS)


def test_the_given_tensors_stay_as_they_are() -> None:
    params, grads = rule.initial(tiny(work="phase"))
    kept = [tensor.clone() for tensor in (*params, *grads)]
    for kind in (OursNumPy, PlainNumPy):
        side = kind(tiny(work="phase"), params)
        side.give(grads)
        side.phase()
    assert all(torch.equal(a, b) for a, b in zip((*params, *grads), kept, strict=True))


def moved(kind: type[Peer], scenario: Scenario, at_once: bool) -> list[torch.Tensor]:
    """Return the parameters after ten steps in one call or in ten."""
    params, grads = rule.initial(scenario)
    side = kind(scenario, params)
    side.give(grads)
    for _ in range(1 if at_once else 10):
        (side.ten_steps if at_once else side.step)()
    return side.parameters()


def check_jax() -> None:
    """Measure both fronts of JAX in each kind of work, and compare ten steps in one call with ten calls."""
    for name in ("jax-fused", "jax-adamw"):
        for work in WORKS:
            check_row(name, work, compare(tiny(work=work), PEERS[name], HARNESS))
    scenario = tiny(work="ten steps")
    for peer in (PEERS["jax-fused"], PEERS["jax-adamw"]):
        for kind in (peer, peer.ours):
            assert kind is not None
            once, singly = (moved(kind, scenario, at_once) for at_once in (True, False))
            apart = rule.error_ulps(once, rule.as_float64(singly))
            assert apart <= APART, f"{kind.name} is {apart} ULPs apart"
            assert not torch.equal(once[0], rule.initial(scenario)[0][0])


def check_keras() -> None:
    """Measure its fronts in one kind of work each: TensorFlow compiles for seconds."""
    kinds: tuple[tuple[str, Work], ...] = (("keras-fit", "step"), ("keras-xla", "phase"))
    for name, work in kinds:
        check_row(name, work, compare(tiny(work=work), PEERS[name], HARNESS))


def in_one_process(check: str) -> None:
    """Run a check of this file in a process for all fronts of a framework, which takes seconds to start."""
    code = f"from tests.bench import test_fronts; test_fronts.{check}()"
    environment = {**process.environment(BRIEF), "PYTHONPATH": os.environ["PYTHONPATH"]}
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_jax_is_measured_and_ten_steps_in_one_call_are_ten_steps() -> None:
    skip_without("jax-fused")
    in_one_process("check_jax")
    assert all(torch.equal(*pair) for pair in zip(*(moved(PlainNumPy, tiny(), x) for x in (True, False)), strict=True))


def test_keras_is_measured() -> None:
    skip_without("keras-fit")
    skip_without("keras-xla")
    in_one_process("check_keras")
