"""Optimizers on the Triton kernel: on a GPU, or through Triton's interpreter (tests/conformance/test_interpreted)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamas.kernels import triton
from adamas.torch import Adam, AdamW, release_gradients
from tests.conformance.cases import device_of
from tests.conftest import INTERPRETED

DEVICE = device_of("triton")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU, or TRITON_INTERPRET=1"),
]
SHAPES = [(2, 300), (7,), (), (2, 3, 4)]


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments of the first shape, too, are stored in fewer bits: the interpreter takes 30 ms for a block of 256."""
    monkeypatch.setattr("adamas.formats.names.SMALLEST", 600)


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=random).to(DEVICE, dtype)) for shape in SHAPES]


def give_gradients(params: list[nn.Parameter], step: int, scale: float = 1.0) -> None:
    for param in params:
        param.grad = torch.cos(param.detach() * (step + 1)) * scale


def train(
    kernel: str, steps: int, change: Callable[[list[nn.Parameter], int], None] | None = None, **options: Any
) -> Any:
    """Some steps; `change` may change gradients before each."""
    params = parameters(options.pop("dtype", torch.float32))
    optimizer = options.pop("kind", AdamW)(params, lr=1e-2, weight_decay=0.1, kernel=kernel, **options)
    for step in range(steps):
        give_gradients(params, step)
        if change is not None:
            change(params, step)
        optimizer.step()
    return params, optimizer


def close(a: list[nn.Parameter], b: list[nn.Parameter]) -> None:
    for mine, other in zip(a, b, strict=True):
        torch.testing.assert_close(mine.detach(), other.detach(), rtol=2e-6, atol=2e-6)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that were launched."""
    found: list[str] = []
    launch = triton._launch

    def counted(kernel: Any, *arguments: Any) -> None:
        found.append(kernel.__name__ if hasattr(kernel, "__name__") else kernel.fn.__name__)
        launch(kernel, *arguments)

    monkeypatch.setattr(triton, "_launch", counted)
    return found


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"maximize": True}, {"betas": (0.3, 0.99)}], ids=str)
def test_steps_follow_eager(kind: type[Adam], options: dict[str, Any]) -> None:
    close(train("triton", 3, kind=kind, **options)[0], train("eager", 3, kind=kind, **options)[0])


@pytest.mark.parametrize("capturable", [False, True])
def test_all_parameters_of_a_group_go_in_one_launch_and_their_norm_in_one_more(
    launches: list[str], capturable: bool
) -> None:
    _, optimizer = train("triton", 2, max_norm=1.0, ema_decay=0.9, skip_nonfinite=True, capturable=capturable)
    assert launches == ["squares", "step"] * 2
    assert len(optimizer._conductor.plan.buckets) == 1


def test_parameters_that_may_be_skipped_on_the_device_stay_together(launches: list[str]) -> None:
    params = parameters()
    optimizer = AdamW(params, kernel="triton", capturable=True)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0, device=DEVICE), torch.tensor(0.0, device=DEVICE)
    give_gradients(params, 0, 4.0)
    optimizer.step()
    assert launches == ["step"]
    plain = parameters()
    other = AdamW(plain, kernel="triton")
    give_gradients(plain, 0)
    other.step()
    close(params, plain)
    optimizer.found_inf.fill_(1.0)
    before = [param.detach().clone() for param in params]
    optimizer.step()
    assert all(map(torch.equal, (param.detach() for param in params), before))
    assert [float(optimizer.state[param]["step"]) for param in params] == [1.0] * len(params)
    assert optimizer.skipped_steps == 1


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("state_dtype", ["float32", "packed16"])
def test_a_phase_follows_eager(capturable: bool, state_dtype: str) -> None:
    """Clipping, skipping a step that is not finite, averages, parameters without a gradient."""

    def change(params: list[nn.Parameter], step: int) -> None:
        if step == 1:
            params[1].grad = None
        if step == 2:
            params[0].grad[0, 0] = float("nan")

    options = {"max_norm": 0.5, "ema_decay": 0.9, "skip_nonfinite": True, "state_dtype": state_dtype}
    found = [train(kernel, 4, change, capturable=capturable, **options) for kernel in ("triton", "eager")]
    close(found[0][0], found[1][0])
    assert [optimizer.skipped_steps for _, optimizer in found] == [1, 1]
    assert found[0][1].grad_norm == pytest.approx(found[1][1].grad_norm, rel=1e-7)
    for a, b in zip(*(([optimizer.state[p] for p in params]) for params, optimizer in found), strict=True):
        torch.testing.assert_close(a["ema"], b["ema"], rtol=2e-6, atol=2e-6)
        assert float(a["step"]) == float(b["step"])


def test_a_learning_rate_on_the_device_is_followed() -> None:
    rate = torch.tensor(0.1, device=DEVICE, dtype=torch.float64)
    params, others = parameters(), parameters()
    ours, theirs = AdamW(params, lr=rate, kernel="triton", capturable=True), torch.optim.AdamW(others, lr=0.1)
    for step, lr in enumerate((0.1, 0.03, 0.0)):
        rate.fill_(lr)
        theirs.param_groups[0]["lr"] = lr
        for each, optimizer in ((params, ours), (others, theirs)):
            give_gradients(each, step)
            optimizer.step()
    close(params, others)


def test_zeroing_in_the_same_pass() -> None:
    params = parameters()
    optimizer = AdamW(params, kernel="triton")
    give_gradients(params, 0)
    params[3].grad = torch.ones(4, 3, 2, device=DEVICE).permute(2, 1, 0)  # copied for the step
    grads = [param.grad for param in params]
    optimizer.step(zero_grad="in_place")
    assert all(param.grad is grad and not grad.any() for param, grad in zip(params, grads, strict=True))


@pytest.mark.parametrize("state_dtype", ["float32", "packed16", "packed12"])
def test_a_checkpoint_goes_on_elsewhere_with_the_same_bits(state_dtype: str) -> None:
    """From this kernel to eager and back: the stored bytes are the same, and so is the first update's decoding."""
    params, optimizer = train("triton", 2, state_dtype=state_dtype, dtype=torch.bfloat16, master_weight_bits=24)
    assert state_dtype == "float32" or state_dtype in optimizer.state[params[0]]
    copies = [nn.Parameter(param.detach().cpu().clone()) for param in params]
    elsewhere = AdamW(copies, lr=1e-2, weight_decay=0.1, kernel="eager", state_dtype=state_dtype, master_weight_bits=24)
    elsewhere.load_state_dict(optimizer.state_dict())
    for param, copy in zip(params, copies, strict=True):
        for mine, other in zip(optimizer.moments(param), elsewhere.moments(copy), strict=True):
            assert torch.equal(mine.cpu(), other)
        assert torch.equal(optimizer.master(param).cpu(), elsewhere.master(copy))
    back = AdamW(params, lr=1e-2, weight_decay=0.1, kernel="triton", state_dtype=state_dtype, master_weight_bits=24)
    back.load_state_dict(elsewhere.state_dict())
    give_gradients(params, 2)
    back.step()
    assert [float(back.state[param]["step"]) for param in params] == [3.0] * len(params)


def test_parameters_with_gaps_and_transposed_ones() -> None:
    def made() -> list[nn.Parameter]:
        random = torch.Generator().manual_seed(1)
        room = torch.randn(9, 8, generator=random).to(DEVICE)
        return [nn.Parameter(room[:, ::2]), nn.Parameter(torch.randn(5, 3, generator=random).to(DEVICE).t())]

    found = []
    for kernel in ("triton", "eager"):
        params = made()
        optimizer = AdamW(params, lr=1e-2, kernel=kernel)
        rooms = [param._base for param in params]
        for step in range(2):
            give_gradients(params, step)
            optimizer.step()
        found.append(params)
        assert all(room is None or torch.equal(room[:, 1::2], made()[0]._base[:, 1::2]) for room in rooms[:1])
    close(*found)


def test_released_gradients_step_as_after_backward() -> None:
    def trained(released: bool) -> list[Tensor]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 4)).to(DEVICE)
        optimizer = AdamW(model.parameters(), lr=1e-2, kernel="triton")
        if released:
            release_gradients(model, optimizer)
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(4)).to(DEVICE)
        for _ in range(2):
            model(x).square().mean().backward()
            assert all(param.grad is None for param in model.parameters()) is released
            optimizer.step()
            optimizer.zero_grad()
        return [param.detach() for param in model.parameters()]

    assert all(map(torch.equal, trained(True), trained(False)))


def test_autograd_learns_that_a_weight_changed() -> None:
    weight = nn.Parameter(torch.ones(3, device=DEVICE))
    optimizer = AdamW([weight], kernel="triton")
    loss = (weight * weight).sum()
    weight.grad = torch.ones(3, device=DEVICE)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_gradient_of_another_layout_is_read_in_its_parameters() -> None:
    params, others = ([nn.Parameter(torch.arange(6.0, device=DEVICE).reshape(2, 3))] for _ in range(2))
    grad = torch.arange(6.0, device=DEVICE).reshape(3, 2).t() - 2.5
    for each, kernel in ((params, "triton"), (others, "eager")):
        each[0].grad = grad
        AdamW(each, kernel=kernel).step()
    close(params, others)
    assert torch.equal(grad, torch.arange(6.0, device=DEVICE).reshape(3, 2).t() - 2.5)


def test_what_it_cannot_step_goes_to_eager_or_raises() -> None:
    wide = nn.Parameter(torch.ones(3, device=DEVICE, dtype=torch.float64))
    wide.grad = torch.ones_like(wide)
    with pytest.raises(RuntimeError, match="float64 has no Triton kernel"):
        AdamW([wide], kernel="triton").step()
    with pytest.raises(ValueError, match="contradicts"):
        AdamW([wide], kernel="triton", foreach=True)


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}, {"ema_decay": 0.9, "skip_nonfinite": True}], ids=str)
def test_all_steps_that_a_graph_may_capture_take_the_same_kernel(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one would be loaded while the graph is captured, which CUDA forbids."""
    found = []
    launch = triton._launch

    def noted(kernel: Any, programs: int, device: Any, arguments: Any, launched_with: Any) -> None:
        found.append(arguments[-1])
        launch(kernel, programs, device, arguments, launched_with)

    monkeypatch.setattr(triton, "_launch", noted)
    train("triton", 3, capturable=True, **options)
    steps = [each for each in found if hasattr(each, "where")]
    assert len(steps) == 3
    assert len(set(steps)) == 1


def test_tables_made_for_a_graph_are_the_graphs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not written before it is replayed: steps beside it make their own."""
    from adamas.kernels import capture
    from adamas.kernels.gpu import table

    if not INTERPRETED:
        pytest.skip("a capture is played here, without one")
    params = parameters()
    optimizer = AdamW(params, kernel="triton", capturable=True)
    give_gradients(params, 0)
    optimizer.step()
    prepared = optimizer._conductor.plan.buckets[0].prepared
    before = (prepared.pointers, dict(prepared.owners), prepared.checked.table)
    give_gradients(params, 1)
    kept = len(capture._kept)
    for module in (triton, table, capture):
        monkeypatch.setattr(module, "is_captured", lambda device: True)
    optimizer.step()
    assert len(capture._kept) > kept
    assert (prepared.pointers, dict(prepared.owners), prepared.checked.table) == before
    prepared.checked = None  # as where a state is replaced: the check happens in the capture
    give_gradients(params, 2)
    optimizer.step()
    captured = prepared.checked.table
    monkeypatch.undo()
    give_gradients(params, 3)
    optimizer.step()
    assert prepared.checked.table is not captured
    others = parameters()
    mirror = AdamW(others, kernel="eager")
    for step in range(4):
        give_gradients(others, step)
        mirror.step()
    close(params, others)
