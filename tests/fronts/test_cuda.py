"""On a CUDA device: eager in torch's list operations, capturable steps in a graph, AMP. Run with `make gpu`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adamas.torch import Adam, AdamW

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def train(optimizer_class: Any, steps: int, dtype: torch.dtype, **options: Any) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    shapes = [(64, 33), (7,), (), (2, 3, 4)]
    draws = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    params = [torch.nn.Parameter(draw.to("cuda", dtype)) for draw in draws]
    optimizer = optimizer_class(params, lr=1e-2, weight_decay=0.1, **options)
    for step in range(steps):
        for param in params:
            param.grad = torch.cos(param.detach() * (step + 1))
        optimizer.step()
    return [param.detach() for param in params]


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_float64_equals_torch(ours: Any, theirs: Any, foreach: bool | None, amsgrad: bool) -> None:
    got = train(ours, 200, torch.float64, foreach=foreach, amsgrad=amsgrad)
    want = train(theirs, 200, torch.float64, amsgrad=amsgrad)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_parameters_have_float32_moments(dtype: torch.dtype) -> None:
    param = torch.nn.Parameter(torch.ones(100, device="cuda", dtype=dtype))
    optimizer = AdamW([param])
    param.grad = torch.full_like(param, 1e-3)
    optimizer.step()
    assert optimizer.moments(param)[1].dtype == torch.float32
    assert torch.isfinite(param).all()


@pytest.mark.parametrize("state_dtype", ["bfloat16", "packed16", "packed12"])
@pytest.mark.parametrize("bits", [None, 24, 32])
def test_state_of_fewer_bits_is_that_of_the_cpu(state_dtype: str, bits: int | None) -> None:
    """The same hash and the same codecs: the first moments are the same bits, and a checkpoint goes on elsewhere."""
    draw = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    params = [torch.nn.Parameter(draw.to(device, torch.bfloat16)) for device in ("cpu", "cuda")]
    options: dict[str, Any] = {"state_dtype": state_dtype, "master_weight_bits": bits, "kernel": "eager"}
    optimizers = [AdamW([param], **options) for param in params]
    for param, optimizer in zip(params, optimizers, strict=True):
        param.grad = torch.cos(draw * 7).to(param)
        optimizer.step()
    for mine, other in zip(*(o.moments(p) for o, p in zip(optimizers, params, strict=True)), strict=True):
        assert torch.equal(mine, other.cpu())
    elsewhere = AdamW([params[1]], **options)
    elsewhere.load_state_dict(optimizers[0].state_dict())
    assert torch.equal(elsewhere.moments(params[1])[0].cpu(), optimizers[0].moments(params[0])[0])


def test_a_capturable_step_in_a_graph_counts_and_follows_a_changed_lr() -> None:
    lr = torch.tensor(0.1, device="cuda", dtype=torch.float64)
    param = torch.nn.Parameter(torch.ones(10, device="cuda", dtype=torch.float64))
    mirror = torch.nn.Parameter(param.detach().clone())
    ours, theirs = AdamW([param], lr=lr, capturable=True), torch.optim.AdamW([mirror], lr=0.1)
    param.grad, mirror.grad = (torch.full_like(param, 0.5) for _ in range(2))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        ours.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours.step()
    theirs.step()
    for rate in (0.1, 0.1, 0.03):
        lr.fill_(rate)
        theirs.param_groups[0]["lr"] = rate
        graph.replay()
        theirs.step()
    torch.testing.assert_close(param, mirror, rtol=1e-10, atol=1e-12)
    assert ours.state[param]["step"].item() == 4


def test_grad_scaler_skips_an_overflow() -> None:
    param = torch.nn.Parameter(torch.ones(10, device="cuda"))
    optimizer = AdamW([param])
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    for overflow in (False, True):
        before = param.detach().clone()
        optimizer.zero_grad()
        scaler.scale(param.sum() * (float("inf") if overflow else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, param.detach()) is overflow


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("capturable", [False, True])
def test_a_phase_equals_the_composition_without_waiting_for_the_device(foreach: bool | None, capturable: bool) -> None:
    """Clip, skip, step and average, with synchronisation made an error."""
    random = torch.Generator().manual_seed(1)
    draws = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in [(64, 33), (7,), (), (2, 3, 4)]]
    params, theirs = ([torch.nn.Parameter(draw.cuda()) for draw in draws] for _ in range(2))
    options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1}
    skips = capturable or foreach is False
    ours = AdamW(
        params, max_norm=0.5, ema_decay=0.9, skip_nonfinite=skips, foreach=foreach, capturable=capturable, **options
    )
    composed, averages = torch.optim.AdamW(theirs, **options), []
    for step in range(6):
        for param, mirror in zip(params, theirs, strict=True):
            param.grad = torch.cos(param.detach() * (step + 1))
            mirror.grad = param.grad.clone()
        if skips and step == 3:
            params[1].grad[2] = float("nan")
            before = [param.detach().clone() for param in params]
        if step > 0:
            torch.cuda.set_sync_debug_mode("error")
        try:
            ours.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        if skips and step == 3:
            assert all(map(torch.equal, (param.detach() for param in params), before))
            continue
        norm = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        composed.step()
        averages = averages or [mirror.detach().clone() for mirror in theirs]
        torch._foreach_lerp_(averages, [mirror.detach() for mirror in theirs], 0.1)
        assert ours.grad_norm == pytest.approx(float(norm), rel=1e-12)
    for param, mirror, average in zip(params, theirs, averages, strict=True):
        torch.testing.assert_close(param, mirror, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(ours.state[param]["ema"], average, rtol=1e-11, atol=1e-12)
    assert ours.skipped_steps == skips
