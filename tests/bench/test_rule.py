"""The measure of error, against closed forms and torch in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adamas.bench import rule
from adamas.bench.device import Cpu
from adamas.bench.harness import Harness
from adamas.bench.peers.torch_peers import Torch
from adamas.bench.scenario import Work
from tests.bench.conftest import BRIEF, tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_neighbouring_number_is_one_ulp_away(dtype: torch.dtype) -> None:
    one = torch.ones(2, dtype=dtype)
    next_one = torch.tensor([1 + torch.finfo(dtype).eps, 1.0], dtype=torch.float64).to(dtype)
    assert rule.error_ulps([next_one], [np.ones(2)]) == 1
    assert rule.error_ulps([one], [np.ones(2)]) == 0


def test_zero_is_held_to_the_length_of_the_path() -> None:
    found = torch.tensor([1e-9])
    assert rule.error_ulps([found], [np.zeros(1)]) == pytest.approx(1e-9 / (2**-8 * 2**-23), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_infinitely_far(value: float) -> None:
    assert rule.error_ulps([torch.tensor([value])], [np.ones(1)]) == math.inf


@pytest.mark.parametrize("work", ["step", "phase"])
def test_the_expected_result_is_torchs_in_float64(work: Work) -> None:
    """torch rounds each of about ten operations by 2**-53, relative to sizes of at most 2: a few ULPs a step."""
    scenario = tiny("float64", work)
    found, wanted = Harness(Cpu(), BRIEF).check(Torch, scenario), rule.expected(scenario)
    assert found.error == rule.error_ulps(found.parameters, wanted.parameters) < 4 * len(rule.SCALES)
    if work == "phase":
        assert rule.error_ulps(found.averages, wanted.averages) < 4 * len(rule.SCALES)


def test_the_checked_steps_tell_one_rule_from_another() -> None:
    """Swapped betas, or epsilon in the other place, are far outside what rounding allows."""
    scenario = tiny("float16")  # with its larger epsilon
    right, hat = (rule.expected(scenario, mode).parameters for mode in ("alg1", "hat"))
    assert rule.error_ulps([torch.tensor(array).float() for array in hat], right) > 50
    assert len({abs(scale) for scale in rule.SCALES}) > 2
