"""Identities that follow from the rule: closed forms, on every kernel and on the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adamas import decay, reference
from adamas.scalars import Hyper
from adamas.torch import Adam, AdamW
from tests.conftest import KERNELS

numbers = st.floats(-100, 100, allow_subnormal=False)
vectors = st.lists(numbers, min_size=1, max_size=12)
Gradient = Callable[[np.ndarray, int], np.ndarray]


def run(kernel: str, start: Any, gradient: Gradient, steps: int, decoupled: bool = False, **options: Any) -> np.ndarray:
    """Train a float64 vector with a kernel, or with the reference, on gradient(theta, t)."""
    theta = np.asarray(start, dtype=np.float64)
    if kernel == "reference":
        hyper = Hyper(**{"decay": "lr" if decoupled else "l2", **options})
        state = reference.init(theta)
        for t in range(1, steps + 1):
            theta, state = reference.step(theta, gradient(theta, t), state, hyper)
        return theta
    param = torch.nn.Parameter(torch.tensor(theta))
    beta = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
    optimizer = (AdamW if decoupled else Adam)([param], betas=beta, kernel=kernel, **{"weight_decay": 0.0, **options})
    for t in range(1, steps + 1):
        param.grad = torch.tensor(gradient(param.detach().numpy(), t))
        optimizer.step()
    return param.detach().numpy()


everywhere = pytest.mark.parametrize("kernel", ["reference", *KERNELS])


@everywhere
def test_without_decay_adamw_is_adam(kernel: str) -> None:
    def gradient(theta: np.ndarray, t: int) -> np.ndarray:
        return np.sin(theta * t)

    start = np.linspace(-2, 2, 9)
    assert np.array_equal(run(kernel, start, gradient, 20), run(kernel, start, gradient, 20, decoupled=True))


@everywhere
def test_adamw_without_gradient_shrinks_geometrically(kernel: str) -> None:
    got = run(kernel, [3.0, -7.0], lambda theta, t: 0 * theta, 50, decoupled=True, lr=0.1, weight_decay=0.2)
    np.testing.assert_allclose(got, np.array([3.0, -7.0]) * (1 - 0.02) ** 50, rtol=1e-13)


@everywhere
def test_adam_l2_without_gradient_first_moves_by_lr(kernel: str) -> None:
    got = run(kernel, [3.0, -7.0], lambda theta, t: 0 * theta, 1, lr=0.1, weight_decay=0.2, eps=0.0)
    np.testing.assert_allclose(got, [2.9, -6.9], rtol=1e-14)


@everywhere
@settings(max_examples=30, deadline=None)
@given(start=vectors, scale=st.floats(1e-12, 1e12))
def test_first_step_is_lr_times_sign(kernel: str, start: list[float], scale: float) -> None:
    got = run(kernel, start, lambda theta, t: np.where(np.arange(len(theta)) % 2, scale, -scale), 1, lr=0.1, eps=0.0)
    np.testing.assert_allclose(
        got, np.asarray(start) + np.where(np.arange(len(start)) % 2, -0.1, 0.1), rtol=1e-12, atol=1e-13
    )


@everywhere
@pytest.mark.parametrize("factor", [1e-4, 10.0, 1e6])
def test_adamw_does_not_see_the_scale_of_the_loss(kernel: str, factor: float) -> None:
    def gradient(theta: np.ndarray, t: int) -> np.ndarray:
        return np.sin(theta * t)

    start, options = np.linspace(-2, 2, 9), {"decoupled": True, "weight_decay": 0.3, "eps": 0.0, "lr": 0.01}
    plain = run(kernel, start, gradient, 40, **options)
    scaled = run(kernel, start, lambda theta, t: factor * gradient(theta, t), 40, **options)
    np.testing.assert_allclose(scaled, plain, rtol=1e-9)


@everywhere
@pytest.mark.parametrize("factor", [1e-3, 10.0, 1e4])
def test_adam_l2_on_a_scaled_loss_is_adam_with_lambda_divided(kernel: str, factor: float) -> None:
    def gradient(theta: np.ndarray, t: int) -> np.ndarray:
        return np.cos(theta * t)

    start, options = np.linspace(-2, 2, 9), {"eps": 0.0, "lr": 0.01}
    scaled = run(kernel, start, lambda theta, t: factor * gradient(theta, t), 40, weight_decay=0.3, **options)
    divided = run(kernel, start, gradient, 40, weight_decay=0.3 / factor, **options)
    np.testing.assert_allclose(scaled, divided, rtol=1e-9)
    assert not np.allclose(divided, run(kernel, start, gradient, 40, weight_decay=0.3, **options), rtol=1e-6)


def test_without_momentum_and_correction_adam_is_rmsprop() -> None:
    """Uncorrected Adam with beta1 = 0, in the rule's own terms: theta -= lr * g / (sqrt(v) + eps)."""
    param = torch.nn.Parameter(torch.linspace(-2, 2, 9, dtype=torch.float64))
    theta, optimizer = param.detach().numpy().copy(), torch.optim.RMSprop([param], lr=0.01, alpha=0.9, eps=1e-8)
    hyper = Hyper(lr=0.01, beta1=0.0, beta2=0.9, bias_correction=False)
    state = reference.init(theta)
    for t in range(1, 40):
        theta, state = reference.step(theta, np.sin(theta * t), state, hyper)
        param.grad = torch.sin(param.detach() * t)
        optimizer.step()
    np.testing.assert_allclose(theta, param.detach().numpy(), rtol=1e-13)


def test_in_the_limit_of_long_memory_adam_is_adagrad() -> None:
    """Kingma & Ba section 5: beta1 = 0, beta2 -> 1, lr_t = lr / sqrt(t) is AdaGrad."""
    param = torch.nn.Parameter(torch.linspace(-2, 2, 9, dtype=torch.float64))
    theta, optimizer = param.detach().numpy().copy(), torch.optim.Adagrad([param], lr=0.1, eps=0.0)
    state = reference.init(theta)
    for t in range(1, 40):
        hyper = Hyper(lr=0.1 / math.sqrt(t), beta1=0.0, beta2=1 - 1e-9, eps=0.0)
        theta, state = reference.step(theta, np.cos(theta * t), state, hyper)
        param.grad = torch.cos(param.detach() * t)
        optimizer.step()
    np.testing.assert_allclose(theta, param.detach().numpy(), rtol=1e-6)


@everywhere
def test_independent_decay_is_the_papers(kernel: str) -> None:
    """theta <- theta - alpha u - (alpha / alpha_0) lambda theta: at the base lr it is decay="lr" with lambda / lr."""

    def gradient(theta: np.ndarray, t: int) -> np.ndarray:
        return np.sin(theta * t)

    start, wd = np.linspace(-2, 2, 9), 1e-3
    options = {"base_lr": 0.02} if kernel == "reference" else {}
    independent = run(kernel, start, gradient, 20, True, lr=0.02, weight_decay=wd, decay="independent", **options)
    converted = run(kernel, start, gradient, 20, True, lr=0.02, weight_decay=decay.from_independent(wd, 0.02))
    np.testing.assert_allclose(independent, converted, rtol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
def test_resuming_is_going_on_bitwise(kernel: str) -> None:
    def train(param: torch.nn.Parameter, optimizer: Any, steps: range) -> None:
        for t in steps:
            param.grad = torch.sin(param.detach() * t)
            optimizer.step()

    param = torch.nn.Parameter(torch.linspace(-2, 2, 1001))
    optimizer = AdamW([param], lr=0.01, kernel=kernel)
    train(param, optimizer, range(1, 20))
    other = torch.nn.Parameter(param.detach().clone())
    resumed = AdamW([other], kernel=kernel)
    resumed.load_state_dict(optimizer.state_dict())
    train(param, optimizer, range(20, 40))
    train(other, resumed, range(20, 40))
    assert torch.equal(param, other)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sigma", [0.1, 1.0, 10.0])
def test_noise_equilibrium(kernel: str, sigma: float) -> None:
    """AdamW's weights settle at sqrt(lr / (2 wd)) whatever the noise; Adam-L2's at sqrt(lr sigma / (2 lambda)).

    20,000 weights: their RMS is known to 1/sqrt(2 * 20,000) = 0.5 %; O(lr wd) corrections are below 1 %; L2 feeds the
    noise of v with lambda * theta, below 2 %.
    """
    random = torch.Generator().manual_seed(0)

    def settle(optimizer: Any, param: torch.nn.Parameter, steps: int) -> float:
        for _ in range(steps):
            param.grad = sigma * torch.randn(param.shape, generator=random)
            optimizer.step()
        return param.detach().square().mean().sqrt().item()

    lr, count = 0.01, 20_000
    param = torch.nn.Parameter(torch.zeros(count))
    adamw = settle(AdamW([param], lr=lr, weight_decay=1.0, betas=(0.0, 0.99), kernel=kernel), param, 400)
    assert adamw == pytest.approx(decay.adamw_equilibrium_rms(lr, 1.0), rel=0.03)
    weight_decay = sigma  # settles at the same place, in steps of sigma / (lr * lambda) = 100
    param = torch.nn.Parameter(torch.zeros(count))
    adam = settle(Adam([param], lr=lr, weight_decay=weight_decay, betas=(0.0, 0.99), kernel=kernel), param, 500)
    assert adam == pytest.approx(decay.adam_l2_equilibrium_rms(lr, weight_decay, sigma), rel=0.05)
