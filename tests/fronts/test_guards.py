"""Where a step could not be right it is refused before anything is written: several processes, flat shards, traces."""

from __future__ import annotations

import copy
import pickle
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from adamas.torch import AdamW, release_gradients
from adamas.uninterrupted import Uninterrupted


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [1, 2])
def test_backward_does_not_step_alone_in_several_processes(
    world_size: int, one_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DistributedDataParallel that wraps the model later would be too late: each replica would go its own way."""
    monkeypatch.setattr(dist, "get_world_size", lambda *_: world_size)
    model = nn.Linear(3, 2)
    optimizer = AdamW(model.parameters())
    release_gradients(model, optimizer)
    before = [param.detach().clone() for param in model.parameters()]
    if world_size == 1:
        model(torch.ones(1, 3)).sum().backward()
        assert not any(map(torch.equal, model.parameters(), before))
        return
    with pytest.raises(RuntimeError, match=r"in one of 2 processes: .* DistributedDataParallel or FSDP"):
        model(torch.ones(1, 3)).sum().backward()
    assert all(map(torch.equal, model.parameters(), before))
    assert not optimizer.state


FLAT = [{"max_norm": 1.0}, {"skip_nonfinite": True}, {"master_weight_bits": 24}]


@pytest.mark.parametrize("options", FLAT, ids=str)
def test_flat_shards_are_refused_what_needs_whole_tensors(options: dict[str, Any]) -> None:
    """FSDP1's parameter is one process's part of several tensors: its norm is not that of the gradients.

    FSDP1 cannot gather the low bits of master weights either: their shape and dtype are not the parameter's.
    """
    weight = nn.Parameter(torch.ones(64, 128, dtype=torch.bfloat16))
    weight._fsdp_flattened = True  # as torch.distributed.fsdp marks them
    weight.grad = torch.ones_like(weight)
    before = weight.detach().clone()
    with pytest.raises(ValueError, match="flat parameter"):
        AdamW([weight], **options).step()
    assert torch.equal(weight, before)
    AdamW([weight]).step()
    AdamW([weight], state_dtype="packed16").step()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # at the import of torch's own module
def test_a_part_of_zero_has_no_averages_of_the_whole(one_process: None) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    weight = nn.Parameter(torch.ones(3))
    whole = ZeroRedundancyOptimizer([weight], optimizer_class=AdamW, lr=0.1, ema_decay=0.9)
    weight.grad = torch.ones(3)
    whole.step()
    with pytest.raises(RuntimeError, match="part of a ZeroRedundancyOptimizer"), whole.optim.averaged():
        pass
    for limits in ({"max_norm": 1.0}, {"skip_nonfinite": True}):  # each process would have the norm of some gradients
        with pytest.raises(ValueError, match="concerns the gradients of all groups together"):
            ZeroRedundancyOptimizer([weight], optimizer_class=AdamW, lr=0.1, **limits)
    alone = AdamW([weight], ema_decay=0.9)
    alone.step()
    with alone.averaged():
        pass


TRACED = [{}, {"max_norm": 1.0}, {"skip_nonfinite": True, "max_norm": 0.5}, {"state_dtype": "packed16"},
          {"state_dtype": "packed16", "max_norm": 1.0, "ema_decay": 0.9}]  # fmt: skip


@pytest.mark.parametrize("options", TRACED, ids=str)
def test_fake_tensors_are_stepped(options: dict[str, Any]) -> None:
    """Shapes and dtypes of a step without its memory: no number is read, none is there."""
    with FakeTensorMode():
        weight = nn.Parameter(torch.empty(64, 128))
        optimizer = AdamW([weight], **options)
        for _ in range(2):
            weight.grad = torch.empty_like(weight)
            optimizer.step()
        kept = {key: (value.dtype, tuple(value.shape)) for key, value in optimizer.state[weight].items()}
    real = nn.Parameter(torch.ones(64, 128))
    mirror = AdamW([real], **options)
    real.grad = torch.ones_like(real)
    mirror.step()
    assert kept == {key: (value.dtype, tuple(value.shape)) for key, value in mirror.state[real].items()}


@pytest.mark.parametrize("mode", ["real", "fake"])
@pytest.mark.parametrize("options", TRACED, ids=str)
def test_a_traced_step_gives_what_a_step_does(options: dict[str, Any], mode: str) -> None:
    """make_fx records torch's operations: run again, they step other numbers of the same shapes."""

    def first_step(weight: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        param = weight.clone().requires_grad_()
        param.grad = grad
        AdamW([param], lr=0.1, kernel=None, **options).step()
        return param.detach().clone()

    random = torch.Generator().manual_seed(0)
    sample = [torch.randn(64, 128, generator=random) for _ in range(4)]
    traced = make_fx(first_step, tracing_mode=mode)(*sample[:2])
    got, want = traced(*sample[2:]), first_step(*sample[2:])
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def interrupted(seen: list[int]) -> None:
    with Uninterrupted():
        signal.raise_signal(signal.SIGINT)
        seen.append(0)


def test_signals_wait_for_the_end_and_handlers_come_back() -> None:
    seen: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)}
    signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with Uninterrupted():
            signal.raise_signal(signal.SIGUSR1)
            assert seen == []
        assert seen == [signal.SIGUSR1]
        with pytest.raises(KeyboardInterrupt):
            interrupted(seen)
        assert seen[-1] == 0
    finally:
        signal.signal(signal.SIGUSR1, before[signal.SIGUSR1])
    assert before == {number: signal.getsignal(number) for number in before}


def test_other_threads_have_no_signals_to_wait_for() -> None:
    done: list[bool] = []

    def work() -> None:
        with Uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_wrapper_that_took_over_the_attributes_can_be_copied() -> None:
    """Lightning's and Fabric's optimizers copy `__dict__`: what lies there must survive deepcopy and pickle."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = AdamW([weight], max_norm=0.5)
    weight.grad = torch.ones(3)
    optimizer.step()
    for copied in (copy.deepcopy(optimizer.__dict__), pickle.loads(pickle.dumps(optimizer._conductor))):
        conductor = copied["_conductor"] if isinstance(copied, dict) else copied
        assert conductor.max_norm == 0.5
        assert conductor.plan is None


def test_a_step_inside_a_step_is_refused() -> None:
    """As a signal handler or a tensor subclass could take one: the first has not been counted yet."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = AdamW([weight])
    weight.grad = torch.ones(3)

    class Nested(float):
        def __float__(self) -> float:
            optimizer.step()
            return 1.0

    optimizer.grad_scale = Nested(1.0)
    with pytest.raises(RuntimeError, match=r"step\(\) inside step\(\)"):
        optimizer.step()
    del optimizer.grad_scale
    optimizer.step()
    assert float(optimizer.state[weight]["step"]) == 1
