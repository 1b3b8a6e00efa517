"""NUMERICS section 5's contract, through the optimizer: what is stored follows the exact moments, and decay acts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adamas.torch import AdamW
from tests.conftest import KERNELS, needs_native

SHAPE = (8, 1024)


Errors = tuple[float, float]


def followed(cases: list[tuple[str, float]], kernel: str | None, steps: int = 3000) -> dict[tuple[str, float], Errors]:
    """Errors of sqrt(v), RMS of the log ratio, and of the update, relative RMS, after the scenario of the table.

    All cases, each a `state_dtype` and a beta2, take the same gradients.
    """
    params = {case: torch.nn.Parameter(torch.zeros(SHAPE)) for case in cases}
    optimizers = {
        (state_dtype, beta2): AdamW([param], 1e-9, (0.9, beta2), weight_decay=0, state_dtype=state_dtype, kernel=kernel)
        for (state_dtype, beta2), param in params.items()
    }
    random = np.random.default_rng(0)
    scale = np.exp(random.normal(0, 1, SHAPE))
    m, exact_v = np.zeros(SHAPE), {beta2: np.zeros(SHAPE) for _, beta2 in cases}
    for step in range(1, 2 * steps + 1):
        if step == steps + 1:
            scale = scale * np.where(np.arange(scale.size).reshape(SHAPE) % 2 == 0, 0.1, 1.0)
        g = (scale * random.normal(0, 1, SHAPE)).astype(np.float32)
        for case, param in params.items():
            param.grad = torch.from_numpy(g)
            optimizers[case].step()
        m, square = 0.9 * m + 0.1 * g.astype(np.float64), g.astype(np.float64) ** 2
        exact_v = {beta2: beta2 * v + (1 - beta2) * square for beta2, v in exact_v.items()}
    found = {}
    for (state_dtype, beta2), param in params.items():
        optimizer, v = optimizers[state_dtype, beta2], exact_v[beta2]
        first, second = (x.numpy().astype(np.float64) for x in optimizer.moments(param))
        assert state_dtype in optimizer.state[param] or state_dtype == "bfloat16"
        exact, ours = m / np.sqrt(v), first / (np.sqrt(second) + 1e-8)
        rms_log = float(np.sqrt(np.mean((np.log(second / v) / 2) ** 2)))
        found[state_dtype, beta2] = rms_log, float(np.sqrt(np.mean((ours - exact) ** 2) / np.mean(exact**2)))
    return found


# The contract's limits are .10 / .11 and .20 / .32 (beta2 = .999), .07 and .24 (.95), .11 and .32 (.9999). These are
# what was measured and a tenth.
LIMITS = {
    ("bfloat16", 0.999): (0.045, 0.032),
    ("packed16", 0.999): (0.088, 0.095),
    ("packed16", 0.95): (0.024, 0.052),
    ("packed16", 0.9999): (0.072, 0.09),
    ("packed12", 0.999): (0.18, 0.315),
    ("packed12", 0.95): (0.088, 0.22),
    ("packed12", 0.9999): (0.145, 0.315),
}


@pytest.fixture(scope="module")
def errors() -> dict[tuple[str, float], Errors]:
    """The errors of all cases, from one run."""
    return followed(list(LIMITS), None)


@needs_native
@pytest.mark.parametrize("case", LIMITS, ids=str)
def test_moments_follow(case: tuple[str, float], errors: dict[tuple[str, float], Errors]) -> None:
    assert errors[case][0] <= LIMITS[case][0]
    assert errors[case][1] <= LIMITS[case][1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_moments_follow_in_every_kernel(kernel: str) -> None:
    """A tenth of the steps: the same limits hold on the way."""
    (found,) = followed([("packed16", 0.99)], kernel, steps=300).values()
    assert found[0] <= 0.06
    assert found[1] <= 0.09


def test_rounding_to_nearest_does_not_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: with random bits stuck in the middle v freezes, as in every 8-bit Adam that rounds so."""
    monkeypatch.setattr("adamas.formats.stored.random_bits", lambda key, index: index * 0 + 0x80008000)
    (found,) = followed([("packed16", 0.99)], "eager", steps=300).values()
    assert found[0] > 0.1


DECAYS = (1e-4, 1e-5, 1e-6)


def decayed(weight: torch.Tensor, rate: float, kernel: str, steps: int = 2000, **options: object) -> torch.Tensor:
    """The weights after steps without gradients at lr * wd = rate."""
    param = torch.nn.Parameter(weight.clone())
    param.grad = torch.zeros_like(param)
    optimizer = AdamW([param], lr=1e-3, weight_decay=rate / 1e-3, kernel=kernel, **options)  # pyright: ignore
    for _ in range(steps):
        optimizer.step()
    return optimizer.master(param).double()


@pytest.mark.parametrize("rate", DECAYS)
@pytest.mark.parametrize("begin", ["normal", 1.0, -0.8125])
@pytest.mark.parametrize(("options", "limit"), [({"master_weight_bits": 24}, 0.01), ({}, 0.05)], ids=["24", "16"])
@needs_native
def test_decay_acts_on_bfloat16(options: dict, limit: float, begin: float | str, rate: float) -> None:
    # At the lowest rate 16 bits lose .2 % with a deviation of .4 % an element: .8 % of the loss for 65,536 elements.
    weight = torch.randn(64, 1024) if begin == "normal" else torch.full((64, 1024), float(begin))
    weight = weight.bfloat16()
    lost = (weight.double() - decayed(weight, rate, "native", **options)) * weight.double().sign()
    exact = weight.double().abs() * -np.expm1(2000 * np.log1p(-rate))
    assert lost.sum() / exact.sum() == pytest.approx(1, abs=limit)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rate", DECAYS)
def test_decay_with_32_bits_is_that_of_float32(rate: float, kernel: str) -> None:
    weight = torch.randn(4, 64).bfloat16()
    steps = 2000 if kernel == "native" else 300
    found = decayed(weight, rate, kernel, steps, master_weight_bits=32)
    torch.testing.assert_close(found, decayed(weight.float(), rate, kernel, steps), rtol=0, atol=0)


def test_nearest_rounding_loses_decay() -> None:
    """What the departure from torch is for: 24 bits to nearest keep nothing of 5e-6, bfloat16 nothing of 1e-4."""
    weight = torch.randn(64, 64).bfloat16()
    for rate, options in ((5e-6, {"master_weight_bits": 24}), (1e-4, {})):
        found = decayed(weight, rate, KERNELS[0], 300, stochastic_rounding=False, **options)
        assert torch.equal(found, weight.double())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (8, 1024), (2, 3, 4, 5)], ids=str)
def test_32_bit_masters_train_as_float32_does(shape: tuple[int, ...], kernel: str) -> None:
    """1,000 steps with the same gradients: every bit, in bfloat16 and low bits together."""
    steps = 1000 if kernel == "native" else 200
    brief = torch.nn.Parameter(torch.randn(shape).bfloat16())
    whole = torch.nn.Parameter(brief.detach().float())
    options = {"lr": 1e-2, "weight_decay": 0.1, "kernel": kernel, "max_norm": 3.0, "ema_decay": 0.99}
    ours, exact = AdamW([brief], master_weight_bits=32, **options), AdamW([whole], **options)  # pyright: ignore
    for _ in range(steps):
        brief.grad = torch.randn(shape).bfloat16()
        whole.grad = brief.grad.float()
        ours.step()
        exact.step()
    assert torch.equal(ours.master(brief), whole)
    assert torch.equal(brief.detach(), _half_away(whole.detach()))
    assert torch.equal(ours.state[brief]["ema"], exact.state[whole]["ema"])


def _half_away(weight: torch.Tensor) -> torch.Tensor:
    bits = (weight.view(torch.int32).long() & 0xFFFFFFFF) + 0x8000 >> 16
    return bits.to(torch.int16).view(torch.bfloat16)


@pytest.mark.parametrize("state_dtype", ["packed16", "packed12", "bfloat16"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_of_all_sizes_side_by_side(state_dtype: str, kernel: str) -> None:
    sizes = torch.logspace(-18, 10, 16, dtype=torch.float64)[:, None]
    param = torch.nn.Parameter(torch.randn(16, 512))
    optimizer = AdamW([param], lr=1e-3, state_dtype=state_dtype, kernel=kernel)
    m = v = torch.zeros(16, 512, dtype=torch.float64)
    for _ in range(20):
        param.grad = (torch.randn(16, 512) * sizes).float()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * param.grad.double(), 0.999 * v + 0.001 * param.grad.double() ** 2
    first, second = optimizer.moments(param)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    assert (second > 0).all()
    assert torch.isfinite(param).all()
    update, exact = first.double() / second.double().sqrt(), m / v.sqrt()
    error = (update - exact).square().mean(1).sqrt() / exact.square().mean(1).sqrt()
    assert error[2:].max() < (0.3 if state_dtype == "packed12" else 0.1)  # below 1e-16 v is subnormal in float32
    assert error.max() < 0.5
