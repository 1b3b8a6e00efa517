"""The step inside of backward is the step after it: the same bits, counts and averages, whatever backward runs into."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from adamas.kernels import gradient
from adamas.torch import Adam, AdamW, release_gradients
from adamas.torch.release import Release
from tests.conftest import KERNELS
from tests.fronts.test_phase import identical

on_kernels = pytest.mark.parametrize("kernel", KERNELS)
BF16 = torch.bfloat16


class Network(nn.Module):
    """A weight that is used twice, a norm, a part that some batches leave out, and one for later."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(8, 64)
        self.twice = nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)
        self.expert = nn.Linear(64, 64)
        self.late = nn.Linear(64, 64)
        self.last = nn.Linear(64, 8)
        self.to(dtype)

    def forward(self, x: torch.Tensor, expert: bool = True, late: bool = False) -> torch.Tensor:
        x = self.first(x).tanh()
        x = self.norm(self.twice(self.twice(x).relu()))
        x = x + self.expert(x) if expert else x
        x = x + self.late(x) if late else x
        return self.last(x)


def built(dtype: torch.dtype = torch.float32, optimizer: Any = AdamW, **options: Any) -> tuple[Network, Any]:
    torch.manual_seed(1)
    model = Network(dtype)
    return model, optimizer(model.parameters(), **{"lr": 1e-2, "weight_decay": 0.1, **options})


def batch(step: int, model: nn.Module) -> torch.Tensor:
    random = torch.Generator().manual_seed(step)
    return torch.randn(4, 8, generator=random).to(next(model.parameters()).dtype)


def loss_of(model: Any, step: int, **how: Any) -> torch.Tensor:
    return model(batch(step, model), **how).float().square().mean()


def train(model: Any, optimizer: Any, steps: Any, **how: Any) -> None:
    for step in steps:
        loss_of(model, step, **how).backward()
        optimizer.step()
        optimizer.zero_grad()


def everything(model: nn.Module, optimizer: Any) -> list[torch.Tensor]:
    """Weights and states, by parameter and key."""
    params = list(model.parameters())
    states = [optimizer.state.get(param, {}) for param in params]
    assert all(param in optimizer.state or not state for param, state in zip(params, states, strict=True))
    return [x.detach().clone() for x in [*params, *(state[key] for state in states for key in sorted(state))]]


def same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return identical(everything(*one), everything(*other)) and len(one[1].state) == len(other[1].state)


# --- the same bits ------------------------------------------------------------------------------------------------

LEAN = [
    {"state_dtype": state_dtype, "master_weight_bits": bits}
    for state_dtype in ("float32", "bfloat16", "packed16", "packed12")
    for bits in (None, 24, 32)
]
VARIANTS: list[tuple[torch.dtype, dict[str, Any]]] = [
    (torch.float32, {}),
    (torch.float64, {"amsgrad": True, "maximize": True}),
    (torch.float32, {"optimizer": Adam, "ema_decay": 0.9}),
    (torch.float32, {"decay": "independent", "lr": torch.tensor(0.01)}),
    (torch.float32, {"capturable": True, "ema_decay": 0.9, "skip_nonfinite": True, "kernel": "eager"}),
    (torch.float32, {"state_dtype": "packed16", "ema_decay": 0.9}),
    (torch.float16, {"state_dtype": "param", "lr": 1e-3, "kernel": None}),
    *((BF16, {**lean, "ema_decay": 0.9}) for lean in LEAN),
]


@on_kernels
@pytest.mark.parametrize(("dtype", "options"), VARIANTS)
def test_release_changes_no_bit(kernel: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Parameters without a gradient in some passes, or with a first one late, among them; gradients are freed."""
    options = {"kernel": kernel, **options}
    plain, released = built(dtype, **options), built(dtype, **options)
    release_gradients(*released)
    for step in range(7):
        how = {"expert": step % 3 != 1, "late": step > 3}
        loss_of(released[0], step, **how).backward()
        assert all(param.grad is None for param in released[0].parameters())
        released[1].step()
        train(*plain, [step], **how)
        assert same(plain, released), step


@pytest.mark.parametrize("end", ["remove", "pickle", "deepcopy", "state_dict"])
@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"state_dtype": "packed16", "master_weight_bits": 24}])
def test_released_and_ordinary_steps_take_turns(end: str, options: dict[str, Any]) -> None:
    dtype = BF16 if "state_dtype" in options else torch.float32
    plain, (model, optimizer) = built(dtype, **options), built(dtype, **options)
    train(*plain, range(8))
    train(model, optimizer, range(2))
    handle = release_gradients(model, optimizer)
    train(model, optimizer, range(2, 4))
    if end == "remove":
        handle.remove()
        handle.remove()
        train(model, optimizer, range(4, 6))
        assert model.last.weight._post_accumulate_grad_hooks == {}
        release_gradients(model, optimizer)
    elif end == "state_dict":
        new = built(dtype, **options)
        new[0].load_state_dict(copy.deepcopy(model.state_dict()))
        release_gradients(*new)
        new[1].load_state_dict(copy.deepcopy(optimizer.state_dict()))
        model, optimizer = new
        train(model, optimizer, range(4, 6))
        weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        train(model, optimizer, range(50, 53))  # a detour, undone
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
    else:
        copied = (
            copy.deepcopy((model, optimizer)) if end == "deepcopy" else pickle.loads(pickle.dumps((model, optimizer)))
        )
        handle.remove()
        model, optimizer = copied
        train(model, optimizer, range(4, 6))
        release_gradients(model, optimizer)
    train(model, optimizer, range(6, 8))
    assert same(plain, (model, optimizer))


@pytest.mark.parametrize("options", [{}, {"max_norm": 0.5}, {"max_norm": 0.5, "skip_nonfinite": True}])
@pytest.mark.parametrize("last", [True, False])
def test_accumulated_gradients_make_one_step(last: bool, options: dict[str, Any]) -> None:
    """With the sum of gradients; where the last backward is missing, `step` takes the sum as it always does."""
    plain, released = built(**options), built(**options)
    handle = release_gradients(*released)
    for step in range(0, 9, 3):
        for micro in range(step, step + 3):
            loss_of(plain[0], micro).backward()
            if last and micro == step + 2:
                loss_of(released[0], micro).backward()
            else:
                with handle.accumulate():
                    loss_of(released[0], micro).backward()
        plain[1].step()
        plain[1].zero_grad()
        released[1].step()
        assert all(param.grad is None for param in released[0].parameters())
        if not last or not options:
            assert same(plain, released)
        if step == 0 and options:
            assert released[1].grad_norm == pytest.approx(plain[1].grad_norm, rel=1e-12)
    assert released[1].state[released[0].first.weight]["step"] == 3


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_what_the_last_backward_does_not_reach_is_left_to_step(ema_decay: float | None) -> None:
    plain, released = built(ema_decay=ema_decay), built(ema_decay=ema_decay)
    handle = release_gradients(*released)
    for step in range(3):
        with handle.accumulate():
            loss_of(released[0], step).backward()
        loss_of(released[0], step + 10, expert=False).backward()
        assert released[0].expert.weight.grad is not None
        released[1].step()
        assert released[0].expert.weight.grad is None
        loss_of(plain[0], step).backward()
        train(*plain, [step + 10], expert=False)
        assert same(plain, released)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_frozen_and_unfrozen_parameters(ema_decay: float | None) -> None:
    results = []
    for release in (False, True):
        model, optimizer = built(ema_decay=ema_decay)
        model.twice.requires_grad_(False)
        if release:
            release_gradients(model, optimizer)
            assert not model.twice.weight.requires_grad
        train(model, optimizer, range(2))
        model.twice.requires_grad_(True)
        model.expert.requires_grad_(False)
        loss_of(model, 2).backward()
        assert (model.twice.weight.grad is None) is release
        optimizer.step()
        optimizer.zero_grad()
        model.expert.requires_grad_(True)
        train(model, optimizer, range(3, 5))
        results.append((model, optimizer))
    assert same(*results)


def test_groups_may_be_added_changed_and_thinned() -> None:
    results = []
    for release in (False, True):
        torch.manual_seed(1)
        model = Network(torch.float32)
        parts = [list(part.parameters()) for part in (model.first, model.twice, model.last)]
        optimizer = AdamW([{"params": part, "lr": 10.0 ** -(i + 2)} for i, part in enumerate(parts)], ema_decay=0.9)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        if release:
            release_gradients(model, optimizer)
        for step in range(5):
            train(model, optimizer, [step])
            model.zero_grad()
            scheduler.step()
            if step == 1:
                optimizer.add_param_group({"params": model.norm.parameters(), "lr": 0.1})
            if step == 2:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # new groups in the old ones' place
                optimizer.param_groups[0]["weight_decay"] = 0.5
            if step == 3:
                del optimizer.param_groups[1]
        assert [group["lr"] for group in optimizer.param_groups] == [0.01 / 32, 0.0001 / 32, 0.1 / 8]
        results.append((model, optimizer))
    assert identical(*(everything(*each) for each in results))


def test_one_parameter_may_be_listed_twice_and_have_a_name() -> None:
    model = nn.Linear(3, 1)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = AdamW([*model.named_parameters(), ("again", model.weight)], ema_decay=0.5)
    release_gradients(model, optimizer)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["step"] == 1
    assert torch.equal(optimizer.state[model.weight]["ema"], model.weight.detach())


def test_two_optimizers_share_a_model() -> None:
    results = []
    for release in (False, True):
        torch.manual_seed(1)
        model = Network(torch.float32)
        params = list(model.parameters())
        optimizers = [AdamW(params[:4], lr=1e-2, max_norm=math.inf), Adam(params[4:], lr=1e-3)]
        if release:
            for optimizer in optimizers:
                release_gradients(model, optimizer)
        for step in range(4):
            loss_of(model, step).backward()
            for optimizer in optimizers:
                optimizer.step(zero_grad=True)
        optimizers[0].state.update(optimizers[1].state)
        results.append((model, optimizers[0]))
    assert same(*results)


def test_tied_parameters_step_once_with_the_whole_gradient() -> None:
    results = []
    for release in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 8, bias=False))
        model[1].weight = model[0].weight
        optimizer = AdamW(model.parameters(), lr=0.1)
        if release:
            release_gradients(model, optimizer)
        for _ in range(3):
            model(torch.arange(5)).square().sum().backward()
            optimizer.step(zero_grad=True)
        results.append((model, optimizer))
    assert same(*results)
    assert results[1][1].state[model[0].weight]["step"] == 3


@pytest.mark.parametrize("closure", [False, True])
def test_schedulers_count_steps_and_closures_work(closure: bool) -> None:
    """Warnings are errors here: a scheduler that saw no step would warn."""
    results = []
    for release in (False, True):
        model, optimizer = built()
        if release:
            release_gradients(model, optimizer)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6)
        for step in range(5):

            def evaluate(step: int = step, model: Any = model) -> torch.Tensor:
                loss = loss_of(model, step)
                loss.backward()
                return loss

            if closure:
                assert optimizer.step(evaluate, zero_grad=True) > 0
            else:
                evaluate()
                assert optimizer.step(zero_grad=True) is None
            scheduler.step()
        results.append((model, optimizer))
    assert same(*results)


# --- norms --------------------------------------------------------------------------------------------------------


class Linears(nn.Module):
    """Gradients of our choice: each parameter's is what the loss multiplies it with."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.zeros(size)) for size in sizes])

    def forward(self, *gradients: float) -> torch.Tensor:
        return sum(
            (part * gradient).sum() for part, gradient in zip(self.parts, gradients, strict=True) if gradient != 0
        )  # type: ignore[return-value]


def moments(optimizer: Any) -> list[float]:
    """What each parameter got: with beta1 = 0 the first moment is the gradient as it was used."""
    return [float(optimizer.moments(param)[0][0]) for param in optimizer.param_groups[0]["params"]]


def linears(*sizes: int, **options: Any) -> tuple[Linears, AdamW, Release]:
    model = Linears(*sizes)
    optimizer = AdamW(model.parameters(), **{"betas": (0.0, 0.9), **options})
    return model, optimizer, release_gradients(model, optimizer)


def clipped(*gradients: float, by: float, limit: float = 1.0) -> Any:
    return pytest.approx([gradient * min(1.0, limit / (by + 1e-6)) for gradient in gradients], rel=1e-6)


@on_kernels
@pytest.mark.parametrize("options", [{}, {"capturable": True, "kernel": "eager"}])
def test_clips_by_the_norm_of_the_backward_before(kernel: str, options: dict[str, Any]) -> None:
    model, optimizer, _ = linears(1, 1, **{"max_norm": 1.0, "kernel": kernel, **options})
    assert optimizer.grad_norm is None
    model(3.0, 0.5).backward()
    optimizer.step()
    assert moments(optimizer) == pytest.approx([1.0, 0.5], rel=1e-6), "each by its own norm"
    assert optimizer.grad_norm == pytest.approx(math.hypot(3, 0.5))
    optimizer.step()
    model(3.0, 4.0).backward()
    optimizer.step()
    assert moments(optimizer) == clipped(3.0, 4.0, by=math.hypot(3, 0.5))
    assert optimizer.grad_norm == pytest.approx(5.0)
    model(math.inf, 4.0).backward()
    optimizer.step()
    assert moments(optimizer)[1:] == clipped(4.0, by=5.0)
    assert optimizer.grad_norm == math.inf
    model(2.0, 4.0).backward()
    optimizer.step()
    assert moments(optimizer)[1:] == clipped(4.0, by=5.0), "an infinite norm is no measure"
    model(2.0, 0.0).backward()
    optimizer.step()
    model(2.0, 2.0).backward()
    optimizer.step()
    assert moments(optimizer)[1:] == clipped(2.0, by=2.0)


def test_a_norm_that_is_not_of_the_backward_before_is_not_used() -> None:
    """After a change of max_norm, or of the state; where nothing measures there is nothing to read."""
    model, optimizer, _ = linears(1, 1, max_norm=1.0)
    model(1e3, 1e3).backward()
    optimizer.step()
    optimizer.max_norm = None
    model(3.0, 0.5).backward()
    optimizer.step()
    assert moments(optimizer) == [3.0, 0.5]
    with pytest.raises(RuntimeError, match="grad_norm is measured with"):
        _ = optimizer.grad_norm
    optimizer.max_norm = 1.0
    model(3.0, 0.5).backward()
    optimizer.step()
    assert moments(optimizer) == pytest.approx([1.0, 0.5], rel=1e-6)
    optimizer.load_state_dict(optimizer.state_dict())
    model(4.0, 0.5).backward()
    optimizer.step()
    assert moments(optimizer) == pytest.approx([1.0, 0.5], rel=1e-6)
    model(4.0, 0.5).backward()
    optimizer.step()
    assert moments(optimizer) == clipped(4.0, 0.5, by=math.hypot(4, 0.5))


@pytest.mark.parametrize("on_device", [False, True])
def test_a_norm_that_is_not_finite_gives_way(on_device: bool) -> None:
    """In tensors too, where the host does not look, and where there is no other norm yet."""

    def norm(value: float | None) -> Any:
        return torch.tensor(value, dtype=torch.float64) if on_device and value is not None else value

    for first, second, want in ((None, 2.0, 2.0), (3.0, None, 3.0), (3.0, 2.0, 3.0), (math.nan, 2.0, 2.0)):
        assert float(gradient.finite(norm(first), norm(second), on_device)) == want
    assert float(gradient.finite(norm(math.inf), 2.0, on_device)) == 2.0
    assert gradient.finite(None, None, on_device) is None
    assert bool(gradient.any_of([norm(0.0), True])) is bool(gradient.any_of([True, norm(0.0)])) is True


def test_what_is_left_to_step_is_part_of_the_norm() -> None:
    model, optimizer, handle = linears(1, 1, max_norm=1.0)
    model(2.0, 0.0).backward()
    optimizer.step()
    with handle.accumulate():
        model(0.0, 4.0).backward()
    model(3.0, 0.0).backward()
    assert optimizer.grad_norm == pytest.approx(3.0)
    optimizer.step()
    assert moments(optimizer) == clipped(3.0, 4.0, by=2.0)
    assert optimizer.grad_norm == pytest.approx(5.0)
    optimizer.step()
    model(1.0, 1.0).backward()
    assert moments(optimizer) == clipped(1.0, 1.0, by=5.0)


# --- gradients that are not finite --------------------------------------------------------------------------------


@on_kernels
@pytest.mark.parametrize("options", [{}, {"capturable": True, "kernel": "eager"}])
@pytest.mark.parametrize("first", [True, False])
def test_parameters_are_skipped_alone_and_counted(kernel: str, first: bool, options: dict[str, Any]) -> None:
    """Also in the first backward, where state is not made for nothing, and no infinite norm is remembered."""
    model, optimizer, _ = linears(
        1, 2, 3, **{"kernel": kernel, "skip_nonfinite": True, "max_norm": 1.0, "ema_decay": 0.5, **options}
    )
    if not first:
        model(1.0, 1.0, 1.0).backward()
        optimizer.step()
    before = everything(model, optimizer)
    model(math.nan, math.inf, 0.5).backward()
    optimizer.step()
    assert optimizer.skipped_steps == 2
    assert [param.grad for param in model.parts] == [None] * 3
    assert all(torch.isfinite(x).all() for x in everything(model, optimizer))
    if first:
        assert options or [param in optimizer.state for param in model.parts] == [False, False, True]
    else:
        assert identical(everything(model, optimizer)[:2], before[:2])
    model(1.0, 2.0, 2.0).backward()
    optimizer.step()
    if first:
        own = [clipped(g, by=g * math.sqrt(n)) for g, n in ((1.0, 1), (2.0, 2), (2.0, 3))]
        assert [[moment] for moment in moments(optimizer)] == own, "each by its own norm"
    else:
        assert moments(optimizer) == clipped(1.0, 2.0, 2.0, by=math.sqrt(6))
    assert [int(optimizer.state[param]["step"]) for param in model.parts] == ([1, 1, 2] if first else [2, 2, 3])
    optimizer.skip_nonfinite = False
    model(math.nan, 1.0, 1.0).backward()
    assert optimizer.skipped_steps == 2
    assert torch.isnan(model.parts[0]).all()


def test_verdicts_of_host_and_device_are_joined() -> None:
    """A capturable group decides in tensors, the other in numbers: neither overflow is lost on the scaler."""
    for gradients in ((math.inf, 1.0), (1.0, math.inf)):
        model = Linears(1, 1)
        optimizer = AdamW([{"params": [model.parts[0]], "capturable": True}, {"params": [model.parts[1]]}])
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        release_gradients(model, optimizer, grad_scaler=scaler)
        scaler.scale(model(*gradients)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 2.0
        assert optimizer.skipped_steps == 1


# --- loss scaling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("options", [{}, {"kernel": "eager"}, {"fused": True, "ema_decay": 0.9}])
def test_scaled_losses(options: dict[str, Any], enabled: bool, accumulates: bool) -> None:
    """Scales are powers of two, so all is as without."""
    if options.get("fused") and "native" not in KERNELS:
        pytest.skip("fused demands native")
    plain, (model, optimizer) = built(**options), built(**options)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2, enabled=enabled)
    handle = release_gradients(model, optimizer, grad_scaler=scaler)
    for step in range(5):
        if accumulates:
            loss_of(plain[0], 10 + step).backward()
            with handle.accumulate():
                scaler.scale(loss_of(model, 10 + step)).backward()
        train(*plain, [step])
        if accumulates and step == 3:  # everything left to the step, which the scaler unscales for
            with handle.accumulate():
                scaler.scale(loss_of(model, step)).backward()
        else:
            scaler.scale(loss_of(model, step)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert same(plain, (model, optimizer))
    assert not enabled or scaler.get_scale() == 2.0**12
    loss = loss_of(model, 9) * math.inf
    scaler.scale(loss).backward()
    assert bool(torch.isnan(model.last.weight).any()) is not enabled, "a disabled scaler skips nothing"


def test_an_overflow_in_a_backward_of_a_part_reaches_the_scaler() -> None:
    """The two backwards of a step reach one parameter each."""
    model, optimizer, handle = linears(1, 1, ema_decay=0.5)
    handle.remove()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    release_gradients(model, optimizer, grad_scaler=scaler)
    for gradients, scale in (((1.0, 1.0), 4.0), ((1.0, math.nan), 2.0), ((1.0, 0.0), 2.0)):
        if gradients[1] != 0:
            scaler.scale(model(0.0, gradients[1])).backward()
        scaler.scale(model(gradients[0], 0.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == scale
    assert moments(optimizer) == [1.0, 1.0]
    assert [optimizer.state[param]["step"] for param in model.parts] == [3, 1]
    weight, average = model.parts[1], optimizer.state[model.parts[1]]["ema"]
    torch.testing.assert_close(average, weight.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("unscales", [False, True])
def test_a_scaler_that_backward_does_not_know_is_noticed(unscales: bool) -> None:
    model, optimizer, _ = linears(1)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(1.0)).backward()
    if unscales:
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"release_gradients\(model, optimizer, grad_scaler=scaler\)"):
        scaler.step(optimizer)


def test_a_loss_that_was_not_scaled_is_noticed() -> None:
    model, optimizer = built()
    release_gradients(model, optimizer, grad_scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(RuntimeError, match=r"the loss was not scaled: scaler\.scale\(loss\)"):
        loss_of(model, 0).backward()
    assert not optimizer.state


# --- backwards of other kinds -------------------------------------------------------------------------------------


class Fails(torch.autograd.Function):
    """The identity, whose backward raises."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("on purpose")


def test_a_backward_that_fails_leaves_the_next_one_right() -> None:
    model, optimizer, _ = linears(1, 1, max_norm=1.0)
    model(2.0, 1.0).backward()
    optimizer.step()
    with pytest.raises(ArithmeticError):
        (Fails.apply(model.parts[0] * 1e9) + model.parts[1] * 7e9).sum().backward()
    assert [param.grad for param in model.parts] == [None, None]
    model(2.0, 2.0).backward()
    assert moments(optimizer) == clipped(2.0, 2.0, by=math.hypot(2, 1))
    assert optimizer.grad_norm == pytest.approx(math.hypot(2, 2))


def test_weights_that_are_averages_are_not_stepped() -> None:
    plain, (model, optimizer) = built(ema_decay=0.9), built(ema_decay=0.9)
    handle = release_gradients(model, optimizer)
    train(model, optimizer, [0])
    before = everything(model, optimizer)
    with optimizer.averaged():
        with pytest.raises(RuntimeError, match=r"inside averaged\(\)"):
            loss_of(model, 1).backward()
        with pytest.raises(RuntimeError, match=r"inside averaged\(\)"):
            optimizer.step()
        with handle.accumulate():
            loss_of(model, 1).backward()
    assert identical(everything(model, optimizer), before)
    optimizer.zero_grad()
    with optimizer.averaged(), pytest.raises(RuntimeError, match=r"inside averaged\(\)"):
        loss_of(model, 1).backward()
    train(model, optimizer, [2])  # no gradient of the attempts is in it, although none was set to zero
    train(*plain, [0, 2])
    assert same(plain, (model, optimizer))


def test_a_second_backward_through_a_graph_is_refused_by_autograd() -> None:
    model, optimizer = built()
    release_gradients(model, optimizer)
    loss = loss_of(model, 0)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_that_are_not_accumulated_are_not_used() -> None:
    model, optimizer = built()
    release_gradients(model, optimizer)
    before = everything(model, optimizer)
    torch.autograd.grad(loss_of(model, 0), list(model.parameters()), allow_unused=True)
    assert identical(everything(model, optimizer), before)
    loss_of(model, 0).backward(inputs=[model.last.bias])
    assert list(optimizer.state) == [model.last.bias]


class Checkpointed(nn.Module):
    """Two segments that share a weight, kept by their inputs alone."""

    def __init__(self, inner: Network, use_reentrant: bool) -> None:
        super().__init__()
        self.inner, self.use_reentrant = inner, use_reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.inner
        x = inner.first(x)
        for part in (nn.Sequential(inner.twice, inner.norm), nn.Sequential(nn.ReLU(), inner.twice)):
            x = checkpoint(part, x, use_reentrant=self.use_reentrant)
        return inner.last(x)


@pytest.mark.parametrize("max_norm", [None, 0.1])
def test_recomputed_activations(max_norm: float | None) -> None:
    """A weight in two segments steps once: torch's nested backwards cannot tell, and are refused."""
    plain, (inner, optimizer) = built(), built(max_norm=max_norm)
    handle = release_gradients(inner, optimizer)
    model = Checkpointed(inner, use_reentrant=False)
    for step in range(3):
        loss_of(model, step).backward()
        optimizer.step()
        train(Checkpointed(plain[0], use_reentrant=False), plain[1], [step])
        assert max_norm or same(plain, (inner, optimizer))
    assert optimizer.state[inner.twice.weight]["step"] == 3
    model.use_reentrant = True
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        loss_of(model, 3).backward()
    optimizer.step(zero_grad=True)
    with handle.accumulate():
        loss_of(model, 3).backward()
    optimizer.step()
    assert optimizer.state[inner.twice.weight]["step"] == 4


# --- whose it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps", ["nothing", "model", "optimizer"])
def test_nothing_is_kept_alive(keeps: str) -> None:
    """torch hides hooks from the garbage collector: what they hold stays for ever."""
    model, optimizer = built(max_norm=1.0)
    handle = release_gradients(model, optimizer)
    train(model, optimizer, [0])
    moment = weakref.ref(optimizer.state[model.first.weight]["exp_avg"])
    weight = weakref.ref(model.first.weight)
    kept = {"nothing": None, "model": model, "optimizer": optimizer}[keeps]
    del model, optimizer, handle
    gc.collect()
    assert (moment() is None) is (keeps != "optimizer")
    assert (weight() is None) is (keeps == "nothing")
    if keeps == "model":
        loss_of(kept, 1).backward()
        assert kept.first.weight.grad is not None, "whose optimizer is gone, no one steps"
        release_gradients(kept, AdamW(kept.parameters()))


def test_old_state_and_gradients_are_let_go() -> None:
    model, optimizer = built(max_norm=1.0)
    release_gradients(model, optimizer)
    grads: list[weakref.ref] = []
    model.last.weight.register_hook(lambda grad: grads.append(weakref.ref(grad)))
    train(model, optimizer, range(2))
    moment = weakref.ref(optimizer.state[model.first.weight]["exp_avg"])
    optimizer.load_state_dict(optimizer.state_dict())
    gc.collect()
    assert moment() is None
    assert [grad() for grad in grads] == [None, None]


def replaced_cell(model: nn.Module) -> None:
    for _ in range(2):  # a notebook's cell that runs again: the optimizer of before is garbage
        optimizer = AdamW(model.parameters())
        release_gradients(model, optimizer)


def test_an_optimizer_that_nobody_has_is_no_obstacle() -> None:
    model, _ = built()
    replaced_cell(model)


def distributed(model: nn.Module) -> nn.Module:
    """As such a wrapper looks, without its process group."""

    class DistributedDataParallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model

    return nn.Sequential(DistributedDataParallel())


def released_again(model: Network, optimizer: AdamW) -> None:
    handle = release_gradients(model, optimizer)
    try:
        release_gradients(model, optimizer)
    finally:
        handle.remove()


def released_by_another(model: Network, optimizer: AdamW) -> None:
    other = Adam(model.last.parameters())
    handle = release_gradients(model, other)
    try:
        release_gradients(model, optimizer)
    finally:
        handle.remove()


REFUSED: list[tuple[Callable[[Network, AdamW], Any], type[Exception], str]] = [
    (lambda model, optimizer: release_gradients(model.last, optimizer), ValueError, "are not the model's"),
    (lambda model, optimizer: release_gradients(distributed(model), optimizer), ValueError, "^DistributedDataParallel"),
    (lambda model, optimizer: release_gradients(optimizer, model), TypeError, "not Network"),
    (
        lambda model, _: release_gradients(model, torch.optim.SGD(model.parameters())),
        TypeError,
        "Adam and AdamW of adamas.torch, not SGD",
    ),
    (
        lambda model, _: release_gradients(model, AdamW(model.parameters(), differentiable=True)),
        ValueError,
        "differentiable=True records",
    ),
    (released_again, ValueError, "releases its gradients already"),
    (released_by_another, ValueError, "another optimizer steps a parameter in backward"),
]


@pytest.mark.parametrize(("call", "error", "text"), REFUSED)
def test_what_cannot_be_released_is_refused(call: Any, error: type[Exception], text: str) -> None:
    model, optimizer = built()
    with pytest.raises(error, match=text):
        call(model, optimizer)
    release_gradients(model, optimizer)  # nothing is left of the attempt
    with pytest.raises(ValueError, match="differentiable=True records"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "differentiable": True})
    assert len(optimizer.param_groups) == 1


def test_sparse_gradients_are_refused_in_backward() -> None:
    model = nn.Embedding(4, 2, sparse=True)
    optimizer = AdamW(model.parameters())
    release_gradients(model, optimizer)
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        model(torch.arange(2)).sum().backward()
    assert not optimizer.state
