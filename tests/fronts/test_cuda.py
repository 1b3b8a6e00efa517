"""On a CUDA device: graphs, streams, scalers, trainers, and what makes the host wait. Run with `make gpu`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adamas.torch import Adam, AdamW, release_gradients

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
        try:
            if step > 0:
                torch.cuda.set_sync_debug_mode("error")
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


LEAN: dict[str, Any] = {"state_dtype": "packed16", "master_weight_bits": 24}
STORED = [(torch.float32, {}), (torch.float32, {"state_dtype": "packed12"}), (torch.bfloat16, LEAN)]
SHAPES = [(64, 1024), (300, 70), (7,), (), (2, 3, 4)]


def parameters(dtype: torch.dtype, shapes: list[tuple[int, ...]] = SHAPES) -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=random).to("cuda", dtype)) for shape in shapes]


def give_gradients(params: list[torch.nn.Parameter], step: int) -> None:
    for param in params:
        param.grad = torch.cos(param.detach().float() * (step + 1)).to(param.dtype)


def close(a: Any, b: Any) -> None:
    for mine, other in zip(a, b, strict=True):
        torch.testing.assert_close(mine.detach(), other.detach(), rtol=1e-5, atol=1e-6)


def test_triton_is_chosen_for_what_it_can_step() -> None:
    for dtype, kernel in ((torch.float32, "triton"), (torch.bfloat16, "triton"), (torch.float64, "eager")):
        optimizer = AdamW(parameters(dtype))
        assert {row[1] for row in optimizer.kernel_choices()} == {kernel}, optimizer.kernel_choices()


@pytest.mark.parametrize(("dtype", "options"), STORED, ids=str)
def test_a_phase_makes_the_host_wait_for_nothing(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """New gradients at other addresses each time, one of them missing, one not finite."""
    params = parameters(dtype)
    optimizer = AdamW(params, max_norm=1.0, ema_decay=0.9, skip_nonfinite=True, kernel="triton", **options)
    kept = []
    for step in range(5):
        give_gradients(params, step)
        kept.append([param.grad for param in params])
        if step == 2:
            params[1].grad = None
        if step == 3:
            params[0].grad[0, 0] = float("nan")
        torch.cuda.synchronize()
        try:
            if step:
                torch.cuda.set_sync_debug_mode("error")
            optimizer.step(zero_grad=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert optimizer.skipped_steps == 1
    assert [float(optimizer.state[param]["step"]) for param in params] == [4.0, 3.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("whole", [False, True], ids=["step", "training step"])
@pytest.mark.parametrize(("dtype", "options"), STORED, ids=str)
def test_a_graph_of_a_step_goes_on_as_steps_do(dtype: torch.dtype, options: dict[str, Any], whole: bool) -> None:
    """Learning rate and counts lie on the device; the gradients of a whole training step are the graph's own."""
    rate = torch.tensor(1e-2, device="cuda", dtype=torch.float64)
    params, mirrors = parameters(dtype), parameters(dtype)
    options = {**options, "max_norm": 0.5, "ema_decay": 0.9, "skip_nonfinite": True}
    ours = AdamW(params, lr=rate, capturable=True, kernel="triton", **options)
    theirs = AdamW(mirrors, lr=1e-2, kernel="triton", **options)
    targets = [torch.full_like(param, 0.5).detach() for param in params]

    def loss_of(each: list[torch.nn.Parameter]) -> torch.Tensor:
        pairs = zip(each, targets, strict=True)
        return torch.stack([(param - target).float().square().sum() for param, target in pairs]).sum()

    def train(optimizer: AdamW, each: list[torch.nn.Parameter]) -> None:
        optimizer.zero_grad()
        loss_of(each).backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        train(ours, params)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    if whole:
        ours.zero_grad()
        with torch.cuda.graph(graph):
            loss_of(params).backward()
            ours.step()
    else:
        with torch.cuda.graph(graph):
            ours.step()
    gradients = [param.grad for param in params]
    ours._conductor.plan = None  # nobody but the graph needs it to live
    train(theirs, mirrors)
    for lr in (1e-2, 1e-2, 3e-3, 0.0):
        rate.fill_(lr)
        theirs.param_groups[0]["lr"] = lr
        graph.replay()
        if whole:
            train(theirs, mirrors)
        else:
            for mirror, gradient in zip(mirrors, gradients, strict=True):
                mirror.grad = gradient.clone()
            theirs.step()
    torch.cuda.synchronize()
    close(params, mirrors)
    assert [float(ours.state[param]["step"]) for param in params] == [5.0] * len(params)
    close((ours.state[param]["ema"] for param in params), (theirs.state[mirror]["ema"] for mirror in mirrors))


def test_steps_on_another_stream() -> None:
    params, mirrors = parameters(torch.float32), parameters(torch.float32)
    ours, theirs = AdamW(params, max_norm=1.0), AdamW(mirrors, max_norm=1.0)
    stream = torch.cuda.Stream()
    for step in range(3):
        give_gradients(mirrors, step)
        theirs.step()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            give_gradients(params, step)
            ours.step(zero_grad=True)
    torch.cuda.synchronize()
    assert all(map(torch.equal, params, mirrors))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_parameters_on_several_devices() -> None:
    def trained(devices: tuple[str, str]) -> list[torch.Tensor]:
        draws = [torch.randn(64, 65, generator=torch.Generator().manual_seed(i)) for i in range(2)]
        params = [torch.nn.Parameter(draw.to(device)) for draw, device in zip(draws, devices, strict=True)]
        optimizer = AdamW(params, max_norm=0.1, skip_nonfinite=True)
        for step in range(3):
            give_gradients(params, step)
            optimizer.step()
        return [param.detach().cpu() for param in params]

    assert all(map(torch.equal, trained(("cuda:0", "cuda:1")), trained(("cuda:0", "cuda:0"))))


@pytest.mark.parametrize("fused", [None, True])
def test_a_scaled_loss_with_an_overflow(fused: bool | None) -> None:
    """As torch.optim's, over growing and shrinking scales; with fused=True the step unscales and skips."""
    params, mirrors = parameters(torch.float32), parameters(torch.float32)
    for each, optimizer in (
        (params, AdamW(params, lr=1e-2, fused=fused)),
        (mirrors, torch.optim.AdamW(mirrors, lr=1e-2, fused=True)),
    ):
        scaler = torch.amp.GradScaler("cuda", init_scale=4.0, growth_interval=2)
        for step in range(6):
            optimizer.zero_grad()
            loss = sum((param.sin() * (step + 1)).sum() for param in each)
            scaler.scale(loss * (float("inf") if step == 2 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
    close(params, mirrors)


def test_a_compiled_model_and_autocast_train_alike() -> None:
    def trained(kind: Any, compiled: bool) -> list[torch.Tensor]:
        torch.manual_seed(2)
        model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 1)).cuda()
        forward = torch.compile(model, backend="aot_eager") if compiled else model
        optimizer = kind(model.parameters(), lr=1e-3)
        x = torch.randn(16, 32, device="cuda")
        for _ in range(4):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = forward(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return [param.detach() for param in model.parameters()]

    close(trained(AdamW, True), trained(torch.optim.AdamW, True))


def test_gradients_that_are_views_of_a_distributed_bucket(tmp_path: Any) -> None:
    """DistributedDataParallel on one GPU: with views of its buckets no gradient begins at 16 bytes."""
    torch.distributed.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:

        def trained(distributed: bool) -> list[torch.Tensor]:
            torch.manual_seed(2)
            model = torch.nn.Sequential(torch.nn.Linear(31, 67), torch.nn.GELU(), torch.nn.Linear(67, 3)).cuda()
            whole = (
                torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True) if distributed else model
            )
            optimizer = AdamW(model.parameters(), lr=1e-3, max_norm=1.0)
            x = torch.randn(16, 31, device="cuda")
            for _ in range(3):
                whole(x).square().mean().backward()
                optimizer.step(zero_grad="in_place" if distributed else True)
            return [param.detach() for param in model.parameters()]

        assert all(map(torch.equal, trained(True), trained(False)))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("dtype", "options"), STORED, ids=str)
def test_released_gradients_step_as_after_backward(dtype: torch.dtype, options: dict[str, Any]) -> None:
    def trained(released: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.GELU(), torch.nn.Linear(256, 64))
        model.to("cuda", dtype)
        optimizer = AdamW(model.parameters(), lr=1e-2, **options)
        if released:
            release_gradients(model, optimizer)
        x = torch.randn(8, 128, device="cuda", dtype=dtype)
        for _ in range(3):
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [param.detach() for param in model.parameters()]

    assert all(map(torch.equal, trained(True), trained(False)))


@pytest.mark.parametrize(("dtype", "options"), STORED, ids=str)
def test_a_step_takes_no_memory(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Beyond the state, tables alone: a step's peak is the memory before it, to within 1 %."""
    params = parameters(dtype, [(4096, 4096)] * 4)
    optimizer = AdamW(params, max_norm=1.0, **options)
    for step in range(2):
        give_gradients(params, step)
        optimizer.step()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    optimizer.step()
    assert torch.cuda.max_memory_allocated() <= before + 0.01 * 4 * 4096 * 4096


@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "packed16", "packed12"])
def test_a_checkpoint_of_the_gpu_goes_on_on_the_cpu_and_back(state_dtype: str) -> None:
    params = parameters(torch.bfloat16)
    optimizer = AdamW(params, state_dtype=state_dtype, master_weight_bits=24)
    for step in range(2):
        give_gradients(params, step)
        optimizer.step()
    copies = [torch.nn.Parameter(param.detach().cpu()) for param in params]
    elsewhere = AdamW(copies, state_dtype=state_dtype, master_weight_bits=24)
    elsewhere.load_state_dict(optimizer.state_dict())
    for param, copy in zip(params, copies, strict=True):
        assert torch.equal(optimizer.master(param).cpu(), elsewhere.master(copy))
        assert all(map(torch.equal, (x.cpu() for x in optimizer.moments(param)), elsewhere.moments(copy)))
    back = AdamW(params, state_dtype=state_dtype, master_weight_bits=24)
    back.load_state_dict(elsewhere.state_dict())
    for each in (params, copies):
        for param, source in zip(each, params, strict=True):
            param.grad = torch.cos(source.detach().float() * 3).to(param)
    back.step()
    elsewhere.step()
    close((back.master(param).cpu() for param in params), (elsewhere.master(copy) for copy in copies))
