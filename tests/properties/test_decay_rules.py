"""Rules of weight decay: closed forms under a schedule, cautious decay element by element, infinite weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from adamas import reference
from adamas.decay import DECAY_MODES, share_per_step
from adamas.kernels.bucket import PLAIN, Bucket, Storage
from adamas.scalars import Hyper, StepScalars
from adamas.state.conform import conform
from adamas.torch import AdamW
from adamas.torch.dispatch import KERNELS as MODULES
from tests.conformance.cases import CASES, DTYPES, Case, Operands, device_of
from tests.conformance.test_stored_native import STORAGES
from tests.conftest import EVERYWHERE, KERNELS

LRS = [1e-2 * 0.5 * (1 + math.cos(math.pi * t / 50)) for t in range(50)]  # a cosine schedule from base_lr
DECOUPLED = [mode for mode in DECAY_MODES if mode not in ("none", "l2")]
# Kernels that compute in float64, and the reference.
IN_FLOAT64 = ["reference", *(kernel for kernel in KERNELS if kernel != "triton")]
everywhere = pytest.mark.parametrize("kernel", IN_FLOAT64)


def run(kernel: str, theta: Any, gradients: list[Any], hypers: list[Hyper]) -> np.ndarray:
    """Step a float64 vector once with each gradient and its hyperparameters."""
    theta = np.asarray(theta, dtype=np.float64)
    state = reference.init(theta)
    tensors = [torch.tensor(x) for x in (theta, state.m, state.v)]
    for t, (gradient, hyper) in enumerate(zip(gradients, hypers, strict=True), 1):
        gradient = np.broadcast_to(np.asarray(gradient, dtype=np.float64), theta.shape)
        if kernel == "reference":
            theta, state = reference.step(theta, gradient, state, hyper)
            continue
        operands = Operands([tensors[0]], [torch.tensor(gradient)], [[tensors[1]], [tensors[2]]])
        operands.step(kernel, StepScalars.of(hyper, t))
    return theta if kernel == "reference" else tensors[0].numpy()


@everywhere
@pytest.mark.parametrize("decay", DECOUPLED)
def test_without_gradient_each_rule_shrinks_by_its_product(kernel: str, decay: Any) -> None:
    """Under a schedule: prod(1 - lr wd), prod(1 - wd lr / base), prod(1 - wd lr^2 / base)."""
    wd, base = 0.3, LRS[0]
    factor = {
        "lr": lambda lr: lr * wd,
        "independent": lambda lr: wd * lr / base,
        "corrected": lambda lr: wd * lr**2 / base,
    }
    hypers = [Hyper(lr=lr, weight_decay=wd, decay=decay, base_lr=base) for lr in LRS]
    got = run(kernel, [3.0, -7.0], [0.0] * 50, hypers)
    np.testing.assert_allclose(got, np.array([3.0, -7.0]) * np.prod([1 - factor[decay](lr) for lr in LRS]), rtol=1e-13)


@everywhere
@pytest.mark.parametrize("decay", ["none", "l2"])
def test_without_decoupled_decay_and_gradient_weights_stay(kernel: str, decay: Any) -> None:
    hypers = [Hyper(lr=lr, weight_decay=0.3 if decay == "none" else 0.0, decay=decay) for lr in LRS]
    assert np.array_equal(run(kernel, [3.0, -7.0], [0.0] * 50, hypers), [3.0, -7.0])


def test_at_the_base_rate_corrected_is_lr_and_after_it_the_rules_part() -> None:
    """At lr = base_lr / 2: half of "lr"'s share at the base for "lr", half of wd, a quarter."""
    wd, base = 0.25, 0.125
    shares = {mode: [share_per_step(mode, wd, lr, base) for lr in (base, base / 2)] for mode in DECAY_MODES}
    assert shares["none"] == shares["l2"] == [0.0, 0.0]
    assert shares["lr"] == [wd * base, wd * base / 2]
    assert shares["independent"] == [wd, wd / 2]
    assert shares["corrected"] == [wd * base, wd * base / 4]


@everywhere
@pytest.mark.parametrize("decay", DECOUPLED)
def test_cautious_decay_rests_where_signs_are_opposite(kernel: str, decay: Any) -> None:
    """eps = 0: the first update is sign(g). Exact values: all numbers here are multiples of powers of two."""
    theta = [2.0, 2.0, -2.0, -2.0, 0.0, 0.0, 5e-324, -5e-324]
    grads = [8.0, -8.0, 8.0, -8.0, 8.0, -8.0, -8.0, 8.0]
    hyper = Hyper(
        lr=0.25, eps=0.0, beta1=0.5, beta2=0.75, weight_decay=0.5, decay=decay, base_lr=0.5, cautious_decay=True
    )
    share = {"lr": 0.125, "independent": 0.25, "corrected": 0.0625}[decay]
    got = run(kernel, theta, [grads], [hyper])
    decayed = [2.0 * share, 0.0, 0.0, -2.0 * share, 0.0, 0.0, 0.0, 0.0]
    assert np.array_equal(got, np.array(theta) - 0.25 * np.sign(grads) - decayed)


@everywhere
def test_cautious_decay_acts_where_the_update_is_zero(kernel: str) -> None:
    hyper = Hyper(lr=0.25, weight_decay=0.5, decay="lr", cautious_decay=True)
    assert np.array_equal(run(kernel, [2.0, -2.0], [0.0], [hyper]), [1.75, -1.75])


@everywhere
def test_cautious_decay_compares_signs_not_a_product_that_underflows(kernel: str) -> None:
    hyper = Hyper(lr=0.25, weight_decay=0.5, decay="lr", cautious_decay=True, eps=1.0)
    got = run(kernel, [1e-200, 1e-200], [[-1e-200, 1e-200]], [hyper])
    np.testing.assert_allclose(got, [1.25e-200, 0.625e-200], rtol=1e-12)


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cautious_decay_of_nothing_is_plain_bitwise(kernel: str, dtype: torch.dtype) -> None:
    if kernel == "triton" and dtype == torch.float64:
        pytest.skip("triton is not for float64")
    results = []
    for cautious in (False, True):
        operands = Operands.drawn([(), (3,), (300,)], dtype, amsgrad=False)
        operands.step(kernel, StepScalars.of(Hyper(decay="lr", weight_decay=0.0, cautious_decay=cautious), 3))
        results.append(operands.written())
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("mode", ["lists", "foreach", "tensors", "differentiable"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_eager_in_float64_is_the_reference_over_a_thousand_steps(case: Case, mode: str) -> None:
    """Both bodies of eager: lists in place, and the pure function. Two more ways into each take a hundred steps."""
    random = np.random.default_rng(0)
    theta = random.normal(size=12)
    state, tensors = reference.init(theta), [torch.tensor(x) for x in (theta, *reference.init(theta)[:3])]
    count = 3 if case.amsgrad else 2
    for t in range(1, 1001 if mode in ("lists", "tensors") else 101):
        gradient = np.sin(theta * t) + random.normal(size=12)
        theta, state = reference.step(theta, gradient, state, case.hyper)
        moments = [[tensor] for tensor in tensors[1 : count + 1]]
        scalars = StepScalars.of(case.hyper, torch.tensor(float(t), dtype=torch.float64) if mode == "tensors" else t)
        operands = Operands([tensors[0]], [torch.tensor(gradient)], moments)
        scalars = scalars._replace(average=0.0)
        operands.step("eager", scalars, foreach=mode == "foreach", differentiable=mode == "differentiable")
        tensors = [tensor.detach() for tensor in tensors]
    for got, want in zip(tensors, (theta, state.m, state.v), strict=False):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


REFUSED = [
    ({"cautious_decay": True, "decay": "l2"}, "cautious_decay=True must go with decoupled"),
    ({"decay": "corrected"}, "base learning rate 0.0 must be > 0 for decay='corrected'"),
    ({"decay": "independent"}, "base learning rate 0.0 must be > 0 for decay='independent'"),
    ({"decay": "quadratic"}, "decay='quadratic' must be one of 'none', 'l2', 'lr', 'independent', 'corrected'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=lambda x: str(x)[:40])
def test_what_is_refused_names_value_rule_and_fix(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hyper(**values)


def test_the_factor_of_a_cautious_step_is_the_last_field() -> None:
    """The native kernel reads the fields by position."""
    assert StepScalars._fields[15:] == ("skip", "cautious")
    assert StepScalars.of(Hyper(decay="lr", cautious_decay=True), 1)[16] is True


WEIGHTS = [math.inf, -math.inf, 1.0, -2.0, 3e38]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_infinite_weights_stay_infinite_as_in_torch(dtype: torch.dtype, amsgrad: bool, kernel: str) -> None:
    """theta (1 - lr wd) is infinite; inf - inf would be NaN."""
    if kernel == "triton" and dtype == torch.float64:
        pytest.skip("triton is not for float64")
    results = []
    for make in (torch.optim.AdamW, AdamW):
        param = torch.nn.Parameter(torch.tensor(WEIGHTS).to(dtype))
        ours = {"kernel": kernel, "stochastic_rounding": False} if make is AdamW else {}
        optimizer = make([param], lr=0.1, weight_decay=0.5, amsgrad=amsgrad, **ours)
        for _ in range(3):
            param.grad = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0]).to(dtype)
            optimizer.step()
        results.append(param.detach())
    torch.testing.assert_close(*results)
    assert results[1][:2].tolist() == [math.inf, -math.inf]


@pytest.mark.parametrize("kernel", EVERYWHERE)
@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize(("dtype", "storage"), [("float32", PLAIN), *STORAGES], ids=str)
def test_infinite_weights_stay_infinite_in_every_format(
    dtype: str, storage: Storage, cautious: bool, kernel: str
) -> None:
    values = torch.tensor([[math.inf, -math.inf, 1.0, -2.0] * 16] * 2)
    param = values.to(getattr(torch, dtype)).to(device_of(kernel))
    state = conform({}, param, storage, (), "param")
    state.pop("step", None)
    prepared = MODULES[kernel].prepare(Bucket([param], [state], storage))
    hyper = Hyper(lr=0.1, weight_decay=0.5, decay="lr", cautious_decay=cautious)
    for step in (1, 2, 3):
        MODULES[kernel].take(prepared, [torch.ones_like(param)])
        MODULES[kernel].step(prepared, [StepScalars.of(hyper, step, seed=7)])
    got = param.cpu().float()
    assert torch.equal(got.isinf(), values.isinf())
    assert torch.equal(got[values.isinf()], values[values.isinf()])
    assert got[~values.isinf()].isfinite().all()
