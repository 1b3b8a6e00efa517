"""The suite must be able to fail: classic mistakes, planted into the rule, are rejected by the conformance bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from adamas.kernels import eager, functional
from adamas.scalars import Hyper, StepScalars
from tests.conformance.cases import Case, Operands
from tests.conformance.test_accuracy import bounds, expected

CASE = Case("training", {"lr": 1e-3, "weight_decay": 0.1, "decay": "lr"})


def within_bounds(operands: Operands, case: Case, step: int, run: Callable[[Operands], None]) -> bool:
    (new, state), *_ = expected(operands, case, step)
    allowed = bounds(operands, 0, case, new, state)
    run(operands)
    got = (operands.params[0], operands.moments[0][0], operands.moments[1][0])
    wants = zip(got, (new, state.m, state.v), ("param", "exp_avg", "exp_avg_sq"), strict=True)
    return all(bool((np.abs(g.double().numpy() - want) <= allowed[name]).all()) for g, want, name in wants)


def stepped(scalars: StepScalars) -> Callable[[Operands], None]:
    return lambda operands: operands.step("eager", scalars)


def decay_after_the_update(operands: Operands) -> None:
    """theta <- (theta - lr u) (1 - lr wd): decays the update as well."""
    operands.step("eager", StepScalars.of(Hyper(lr=1e-3), 3))
    operands.params[0].mul_(1 - 1e-3 * 0.1)


def coupled_instead_of_decoupled(operands: Operands) -> None:
    operands.step("eager", StepScalars.of(Hyper(lr=1e-3, weight_decay=0.1, decay="l2"), 3))


def moments_rounded_to_bfloat16(operands: Operands) -> None:
    stepped(StepScalars.of(CASE.hyper, 3))(operands)
    for moment in operands.moments:
        moment[0].copy_(moment[0].bfloat16())


RIGHT = StepScalars.of(CASE.hyper, 3)
PLANTED = {
    "swapped betas": stepped(StepScalars.of(Hyper(lr=1e-3, weight_decay=0.1, decay="lr", beta1=0.999, beta2=0.9), 3)),
    "eps inside the root": stepped(RIGHT._replace(eps=0.0, eps_root=RIGHT.eps)),
    "eps before the correction": stepped(RIGHT._replace(eps=1e-8)),
    "no bias correction": stepped(
        StepScalars.of(Hyper(lr=1e-3, weight_decay=0.1, decay="lr", bias_correction=False), 3)
    ),
    "step counted from zero": stepped(StepScalars.of(CASE.hyper, 2)),
    "decay after the update": decay_after_the_update,
    "decay without lr": stepped(RIGHT._replace(decay=0.1)),
    "no decay": stepped(RIGHT._replace(decay=0.0)),
    "coupled decay": coupled_instead_of_decoupled,
    "ascent": stepped(RIGHT._replace(grad_factor=-1.0)),
    "moments in bfloat16": moments_rounded_to_bfloat16,
}


def operands(dtype: torch.dtype) -> Operands:
    """As in training after some steps, with elements whose root is of the size of eps."""
    made = Operands.drawn([(5000,)], dtype, amsgrad=False, seed=3)
    made.moments[1][0][:100] = 1e-16
    made.grads[0][:100] = 1e-8
    made.params[0][:100] *= 1e-3
    return made


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_rejected(bug: str, dtype: torch.dtype) -> None:
    assert within_bounds(operands(dtype), CASE, 3, stepped(RIGHT)), "the right rule must pass"
    assert not within_bounds(operands(dtype), CASE, 3, PLANTED[bug])


def test_a_planted_bug_in_the_kernel_itself_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose second moment decays and never sees the gradient: nothing but its numbers tells."""

    class Forgetful:
        def __getattr__(self, name: str) -> object:
            return getattr(torch, name)

        def _foreach_add_(self, first: list[torch.Tensor], other: object) -> None:
            forgets_the_gradient = isinstance(other, list | tuple) and bool(
                (first[0] >= 0).all()
            )  # only v is never negative
            if not forgets_the_gradient:
                torch._foreach_add_(first, other)

    monkeypatch.setattr(eager, "lists", Forgetful())
    assert not within_bounds(operands(torch.float64), CASE, 3, stepped(RIGHT))


CAUTIOUS = Case("cautious", {**CASE.values, "decay": "corrected", "base_lr": 4e-3, "cautious_decay": True})
CAREFUL = StepScalars.of(CAUTIOUS.hyper, 3)
PLANTED_DECAYS = {
    "lr in place of lr^2": CAREFUL._replace(decay=StepScalars.of(replace(CAUTIOUS.hyper, decay="lr"), 3).decay),
    "lr / base_lr in place of lr^2": CAREFUL._replace(decay=1e-3 / 4e-3 * 0.1),
    "decays everywhere": CAREFUL._replace(cautious=False),
    "decays nowhere": CAREFUL._replace(decay=0.0),
}


@pytest.mark.parametrize("bug", PLANTED_DECAYS)
def test_planted_bugs_in_decay_are_rejected(bug: str) -> None:
    assert within_bounds(operands(torch.float64), CAUTIOUS, 3, stepped(CAREFUL)), "the right rule must pass"
    assert not within_bounds(operands(torch.float64), CAUTIOUS, 3, stepped(PLANTED_DECAYS[bug]))


def inverted(xp: Any, dtype: str, param: torch.Tensor, exp_avg: torch.Tensor, s: StepScalars) -> torch.Tensor:
    return param.masked_fill(exp_avg.sign() * param.sign() > 0, 0.0)


def of_a_neighbour(xp: Any, dtype: str, param: torch.Tensor, exp_avg: torch.Tensor, s: StepScalars) -> torch.Tensor:
    """With the sign of another element's update."""
    return param.masked_fill(exp_avg.roll(1).sign() * param.sign() < 0, 0.0)


@pytest.mark.parametrize("wrong", [inverted, of_a_neighbour])
def test_a_planted_mask_is_rejected(wrong: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "decaying", wrong)
    assert not within_bounds(operands(torch.float64), CAUTIOUS, 3, stepped(CAREFUL))
