"""Adam and AdamW give torch.optim's numbers: every option combination, float64 to 1e-12 over 1,000 steps."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch

from adamas.torch import Adam, AdamW
from tests.conftest import KERNELS, needs_native

PAIRS = [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)]
SHAPES = [(4, 3), (5,), (), (2, 2, 3)]
OPTIONS = [
    dict(zip(("weight_decay", "amsgrad", "maximize", "betas"), values, strict=True))
    for values in itertools.product((0.0, 0.1), (False, True), (False, True), ((0.9, 0.999), (0.0, 0.5)))
]


def train(optimizer_class: Any, steps: int, dtype: torch.dtype = torch.float64, **options: Any) -> list[torch.Tensor]:
    """Follow fixed gradients that depend on the parameters too, with a changing learning rate."""
    random = torch.Generator().manual_seed(1)
    draws = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in SHAPES]
    params = [torch.nn.Parameter(draw.to(dtype)) for draw in draws]
    targets = [torch.randn((50, *shape), generator=random, dtype=torch.float64).to(dtype) for shape in SHAPES]
    optimizer = optimizer_class(params, lr=1e-2, **options)
    for step in range(steps):
        for param, target in zip(params, targets, strict=True):
            param.grad = 0.1 * param.detach() + target[step % 50]
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 + step % 7)
        optimizer.step()
    state = [optimizer.state[param][key] for param in params for key in ("exp_avg", "exp_avg_sq", "step")]
    return [*(param.detach() for param in params), *state]


@functools.cache
def torchs(number: int, theirs: Any) -> list[torch.Tensor]:
    """What torch makes of the options of that number, computed once for all kernels."""
    return train(theirs, 1000, **OPTIONS[number])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=map(str, OPTIONS))
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["adam", "adamw"])
def test_float64_equals_torch_to_1e_12(ours: Any, theirs: Any, number: int, kernel: str) -> None:
    got = train(ours, 1000, kernel=kernel, **OPTIONS[number])
    for a, b in zip(got, torchs(number, theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["adam", "adamw"])
def test_float32_stays_with_float64(ours: Any, theirs: Any, kernel: str) -> None:
    """After 1,000 float32 steps we are no further from float64 than a small multiple of torch's own distance."""
    exact = train(theirs, 1000, weight_decay=0.1)
    torchs = train(theirs, 1000, torch.float32, weight_decay=0.1)
    got = train(ours, 1000, torch.float32, kernel=kernel, weight_decay=0.1)
    for ours_tensor, theirs_tensor, truth in zip(got, torchs, exact, strict=True):
        error, allowed = ((tensor.double() - truth).abs().max().item() for tensor in (ours_tensor, theirs_tensor))
        assert error <= 2 * allowed + 1e-6 * truth.abs().max().item()


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"foreach": False}, {"fused": False}], ids=str)
def test_flags_that_choose_an_implementation_do_not_change_results(options: dict[str, Any]) -> None:
    got, want = train(AdamW, 20, **options), train(torch.optim.AdamW, 20, **options)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@needs_native
def test_fused_takes_the_native_kernel() -> None:
    got, want = train(AdamW, 20, fused=True), train(torch.optim.AdamW, 20, fused=True)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_complex_parameters(amsgrad: bool) -> None:
    results = []
    for optimizer_class in (Adam, torch.optim.Adam):
        param = torch.nn.Parameter(torch.tensor([1 + 2j, -3 + 0.5j], dtype=torch.complex128))
        optimizer = optimizer_class([param], lr=0.1, weight_decay=0.1, amsgrad=amsgrad)
        for step in range(20):
            param.grad = param.detach().conj() * (0.3 + step % 3)
            optimizer.step()
        results.append(param.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tensor_betas", [False, True])
def test_tensor_hyperparameters_are_read_each_step(tensor_betas: bool) -> None:
    """A tensor changed in place takes effect at once, as in torch."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        lr = torch.tensor(0.1, dtype=torch.float64)
        betas = (torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.99, dtype=torch.float64))
        param = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = optimizer_class([param], lr=lr, betas=betas if tensor_betas else (0.9, 0.99))
        for step in range(10):
            param.grad = torch.full((3,), float(step - 3), dtype=torch.float64)
            optimizer.step()
            lr.mul_(0.9)
        results.append(param.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def test_capturable_on_the_cpu_keeps_scalars_in_tensors() -> None:
    """torch refuses capturable on the CPU; ours takes it, with the same numbers as without."""
    got, want = train(AdamW, 30, capturable=True), train(torch.optim.AdamW, 30)
    for a, b in zip(got[:4], want[:4], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_differentiable_step_has_the_derivatives_of_finite_differences() -> None:
    """d(weights after two steps) / d(learning rate, initial weights, betas); torch's own are good to float32 only."""

    def after_two_steps(optimizer_class: Any, lr: Any, start: torch.Tensor, beta1: Any, beta2: Any) -> torch.Tensor:
        param = start.clone()
        options = {"lr": lr, "betas": (beta1, beta2), "weight_decay": 0.1, "differentiable": True}
        optimizer = optimizer_class([param], **options)
        for _ in range(2):
            param.grad = torch.sin(3 * param)
            optimizer.step()
        return param

    values = (torch.tensor(0.1), torch.tensor([1.0, -2.0, 0.5]), torch.tensor(0.8), torch.tensor(0.95))
    inputs = tuple(value.double().requires_grad_() for value in values)
    for ours, theirs in PAIRS:
        assert torch.autograd.gradcheck(lambda *args, ours=ours: after_two_steps(ours, *args), inputs)

        def slopes(optimizer_class: Any) -> Any:
            loss = after_two_steps(optimizer_class, inputs[0], inputs[1], 0.8, 0.95).square().sum()
            return torch.autograd.grad(loss, inputs[:2])

        got = slopes(ours)
        if torch.__version__ < "2.7":  # 2.6 writes over what the derivative of its own second step needs
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                slopes(theirs)
            continue
        for a, b in zip(got, slopes(theirs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
