"""Checks of sharded parameters. Four processes run them one after another; `test_sharded.py` starts the processes.

A check takes the process's rank and a folder, and raises where something is wrong. Worlds of 1, 2, 3 and 4 processes
are meshes of the first ranks; the others leave the check at once.
"""

from __future__ import annotations

import math
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from adamas.torch import AdamW, LoadPlanner

PROCESSES, STEPS = 4, 200
RECENT = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 7)  # what torch 2.6 itself cannot do is left out
BF16 = torch.bfloat16
# Dimension 0 is a multiple of no number of processes, smaller than it, or 1; and a matrix is too small for fewer bits.
SHAPES = {"even": (72, 100), "uneven": (70, 3, 30), "few": (3, 1500), "one": (1, 4100), "small": (7,), "scalar": ()}
FORMATS: dict[str, dict[str, Any]] = {
    "float32": {},
    "average": {"ema_decay": 0.9, "max_norm": 3.0, "skip_nonfinite": True},
    "amsgrad": {"amsgrad": True},
    "bfloat16": {"state_dtype": "bfloat16"},
    "packed16": {"state_dtype": "packed16"},
    "packed12": {"state_dtype": "packed12"},
    "packed16 + 24": {"state_dtype": "packed16", "master_weight_bits": 24, "dtype": BF16, "ema_decay": 0.9},
    "packed12 + 24": {"state_dtype": "packed12", "master_weight_bits": 24, "dtype": BF16},
    "32": {"master_weight_bits": 32, "dtype": BF16},
    "rounded": {"dtype": BF16},
    "eager": {"state_dtype": "packed16", "kernel": "eager", "dtype": BF16},
}


class Model(nn.Module):
    """A parameter for each of `SHAPES`, one of them frozen; sharded over a mesh, or whole without one."""

    def __init__(self, mesh: DeviceMesh | None, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            value = torch.randn(shape, generator=random).to(dtype)
            self.register_parameter(name, nn.Parameter(spread(value, mesh)))
        self.register_parameter("frozen", nn.Parameter(spread(torch.ones(5, 5, dtype=dtype), mesh), False))


def spread(whole: Tensor, mesh: DeviceMesh | None, *placements: Any) -> Tensor:
    """A whole tensor that every process has, sharded without communication; by dimension 0 by default."""
    if mesh is None:
        return whole.clone()
    here: Any = {"src_data_rank": None} if "src_data_rank" in signature(distribute_tensor).parameters else {}
    return distribute_tensor(whole, mesh, placements or [Shard(0) if whole.ndim else Replicate()], **here)


def gradients(dtype: torch.dtype, mesh: DeviceMesh | None) -> list[list[Tensor | None]]:
    """The gradients of four steps, which repeat; a parameter has none at every fourth."""
    random, found = torch.Generator().manual_seed(1), []
    for step in range(4):
        draws = [torch.randn(shape, generator=random).to(dtype) * (step + 1) for shape in SHAPES.values()]
        found.append([None if (i, step) == (1, 2) else spread(draw, mesh) for i, draw in enumerate(draws)])
    return found


def made(mesh: DeviceMesh | None, options: dict[str, Any], **more: Any) -> tuple[Model, AdamW, list[list[Any]]]:
    options = {"lr": 0.01, **options, **more}
    dtype = options.pop("dtype", torch.float32)
    model = Model(mesh, dtype)
    return model, AdamW(model.parameters(), **options), gradients(dtype, mesh)


def train(model: nn.Module, optimizer: Any, grads: list[list[Any]], steps: range) -> None:
    params = list(model.parameters())
    for step in steps:
        for param, grad in zip(params, grads[step % 4], strict=False):
            param.grad = grad
        optimizer.step()


def whole(tensor: Any) -> Any:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def everything(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """All weights and states as whole tensors, by name."""
    found = {name: whole(param.detach()) for name, param in model.named_parameters()}
    for name, param in model.named_parameters():
        found |= {f"{name}.{key}": whole(value).clone() for key, value in optimizer.state.get(param, {}).items()}
    return {name: value.clone() for name, value in found.items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), (
            f"{name}: {int((tensor != expected[name]).sum())} of {tensor.numel()} differ"
        )


@cache
def unsharded(name: str, steps: int) -> dict[str, Tensor]:
    model, optimizer, grads = made(None, FORMATS[name])
    train(model, optimizer, grads, range(steps))
    return everything(model, optimizer)


@cache
def mesh_of(count: int) -> DeviceMesh:
    """A mesh of the first processes; every process makes it."""
    return DeviceMesh("cpu", list(range(count)))


def sharded_is_unsharded(rank: int, folder: Path) -> None:
    """In every format, on 3 processes over 200 steps, on 1, 2 and 4 over 50: the same bits in weights and states."""
    for count in range(1, PROCESSES + 1):
        mesh = mesh_of(count)
        if rank >= count:
            continue
        for name, options in FORMATS.items():
            steps = 20 if name == "eager" else STEPS if count == 3 else STEPS // 4
            model, optimizer, grads = made(mesh, options)
            train(model, optimizer, grads, range(steps))
            kernels = {kernel for _, kernel, _ in optimizer.kernel_choices()}
            assert kernels == ({"eager"} if name == "eager" else {"native"}), kernels
            found = everything(model, optimizer)
            if rank == 0:
                assert_equal(found, unsharded(name, steps))


def a_planted_place_is_found(rank: int, folder: Path) -> None:
    """With random bits by the index in the shard, the check above fails."""
    from adamas.formats.random_bits import Place

    with mock.patch("adamas.torch.plan.place_of", return_value=Place()):
        model, optimizer, grads = made(mesh_of(4), FORMATS["packed16"])
        train(model, optimizer, grads, range(2))
    found = everything(model, optimizer)
    assert not torch.equal(found["even"], unsharded("packed16", 2)["even"])


def norms_and_verdicts_of_all(rank: int, folder: Path) -> None:
    """One process's NaN skips the step everywhere; the norm is that of all shards, and costs one collective."""
    mesh = mesh_of(4)
    model, optimizer, grads = made(mesh, {"max_norm": 0.5, "skip_nonfinite": True})
    mirror, plain, plain_grads = made(None, {"max_norm": 0.5, "skip_nonfinite": True})
    for step in range(4):
        if step == 2 and rank == 3:
            grads[2][0].to_local()[0, 0] = math.nan
        if step == 2:
            plain_grads[2][0][-1, 0] = math.nan
        with CommDebugMode() as counted:
            train(model, optimizer, grads, range(step, step + 1))
        # A first step with lr > 0 measures nothing but the norm.
        assert counted.get_total_counts() == 1, counted.get_comm_counts()
        train(mirror, plain, plain_grads, range(step, step + 1))
        assert step == 2 or optimizer.grad_norm == pytest.approx(plain.grad_norm, rel=1e-12)
    assert optimizer.skipped_steps == plain.skipped_steps == 1
    assert_equal(everything(model, optimizer), everything(mirror, plain))
    optimizer.max_norm, optimizer.skip_nonfinite = None, False
    with CommDebugMode() as counted:
        train(model, optimizer, grads, range(4, 5))
    assert counted.get_total_counts() == 0


def mixed_with_plain_parameters(rank: int, folder: Path) -> None:
    """A plain parameter counts once in the norm, and a gradient that is sharded otherwise is redistributed."""
    mesh = mesh_of(4)
    value, draw, other = torch.randn(3, 9, 70).unbind()
    for tensor in (value, draw, other):
        dist.broadcast(tensor, 0)
    expected = [nn.Parameter(value.clone()), nn.Parameter(value.clone())]
    params = [nn.Parameter(spread(value, mesh)), nn.Parameter(value.clone())]
    ours, plain = (AdamW(each, lr=0.1, max_norm=1.0) for each in (params, expected))
    mine = draw.clone() if rank == 1 else torch.zeros_like(draw)
    partial = DTensor.from_local(mine, mesh, [Partial()], run_check=False)
    others = (spread(draw.clone(), mesh, placement) for placement in (Replicate(), Shard(1), Shard(0)))
    for grad in (partial, *others):
        params[0].grad, params[1].grad = grad, other.clone()
        expected[0].grad, expected[1].grad = draw.clone(), other.clone()
        ours.step(zero_grad="in_place")
        plain.step()
        assert ours.grad_norm == pytest.approx(plain.grad_norm, rel=1e-12)
        assert not params[1].grad.any()
        assert not whole(params[0].grad).any()
        assert torch.equal(whole(params[0].detach()), expected[0].detach())
        assert torch.equal(params[1], expected[1])
    params[0].grad = None
    loss = whole(params[0] * params[0]).sum()
    params[0].grad = spread(draw, mesh)
    ours.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def other_placements(rank: int, folder: Path) -> None:
    """Tensor parallelism, replicas and both with FSDP: the same bits wherever a format is not refused."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    random = torch.Generator().manual_seed(2)
    cases: list[tuple[tuple[int, ...], tuple[Any, Any], dict[str, Any]]] = [
        ((9, 1024), (Shard(0), Shard(1)), {"state_dtype": "packed16", "dtype": BF16}),
        ((9, 1024), (Replicate(), Shard(1)), {"state_dtype": "packed16", "master_weight_bits": 24, "dtype": BF16}),
        ((9, 1000), (Replicate(), Shard(0)), {"state_dtype": "packed12", "max_norm": 1.0}),
        ((9, 1000), (Shard(0), Shard(0)), {"state_dtype": "packed12"}),
        ((5, 7, 90), (Shard(0), Shard(2)), {"state_dtype": "bfloat16", "dtype": BF16}),
        ((5, 7, 90), (Shard(1), Shard(0)), {"dtype": BF16, "kernel": "eager"}),
        ((50, 70), (Shard(1), Shard(1)), {"master_weight_bits": 24, "dtype": BF16}),
        ((50, 70), (Shard(1), Replicate()), {"amsgrad": True, "ema_decay": 0.5, "max_norm": 1.0}),
    ]
    for shape, placements, options in cases:
        options = {"lr": 0.01, **options}
        dtype = options.pop("dtype", torch.float32)
        values = [torch.randn(shape, generator=random).to(dtype) for _ in range(3)]
        if placements == (Shard(1), Shard(1)) and not RECENT:
            continue  # torch 2.6 leaves gaps between the rows of uneven pieces, which are stepped in torch operations
        part, mirror = nn.Parameter(spread(values[0], mesh, *placements)), nn.Parameter(values[0].clone())
        ours, plain = AdamW([part], **options), AdamW([mirror], **options)
        for step in range(10):
            part.grad, mirror.grad = spread(values[step % 2 + 1], mesh, *placements), values[step % 2 + 1].clone()
            ours.step()
            plain.step()
        if "max_norm" in options:
            assert ours.grad_norm == pytest.approx(plain.grad_norm, rel=1e-12)
        states = zip(ours.state[part].values(), plain.state[mirror].values(), strict=True)
        for a, b in ((part.detach(), mirror.detach()), *states):
            assert torch.equal(whole(a), b), (shape, placements, options)
        for a, b in zip(ours.moments(part), plain.moments(mirror), strict=True):
            assert torch.equal(whole(a), b)
        assert torch.equal(whole(ours.master(part)), plain.master(mirror))
    part, mirror = (nn.Parameter(x) for x in (spread(torch.ones(70_001), mesh, Shard(0), Shard(0)), torch.ones(70_001)))
    ours, plain = AdamW([part], state_dtype="packed16"), AdamW([mirror], state_dtype="packed16")
    mirror.grad = torch.randn(70_001, generator=random)
    plain.step()
    ours.load_state_dict(plain.state_dict())
    assert all(torch.equal(whole(a), b) for a, b in zip(ours.moments(part), plain.moments(mirror), strict=True))
    assert list(plain.state_bytes(by_reason=True)) == ["packed16"]
    assert list(ours.state_bytes(by_reason=True)) == ["float32: one dimension, sharded"]
    refused = [
        ((64, 200), (Shard(0), Shard(1)), "packed16", r"dimension 1 is cut through blocks of 256 elements"),
        ((64, 1024), (Shard(0), Shard(1)), "packed12", r"dimension 1 is cut through blocks of 256 elements"),
        ((8, 64, 64), (Shard(1), Shard(2)), "bfloat16", r"dimensions \[1, 2\] are cut"),
    ]
    for shape, placements, state_dtype, message in refused:
        with pytest.raises(ValueError, match=f"parameter 0 is a DTensor.*{message}"):
            AdamW([nn.Parameter(spread(torch.ones(shape), mesh, *placements))], state_dtype=state_dtype)


class Block(nn.Module):
    """Two layers, whose weights are large enough for fewer bits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.up, self.down = nn.Linear(64, 130), nn.Linear(130, 64, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


def fully_sharded_training(rank: int, folder: Path) -> None:
    """fully_shard on two processes with the same batch, which is its gradients' mean: the bits of a single process."""
    mesh = mesh_of(2)
    if rank >= 2 or not RECENT:  # fully_shard of torch 2.6 needs a GPU
        return
    for options in ({"max_norm": 0.1}, {"state_dtype": "packed16"}, {"state_dtype": "packed12", "ema_decay": 0.5}):
        model, mirror = fully_shard(Block(), mesh=mesh), Block()
        ours, plain = AdamW(model.parameters(), lr=0.01, **options), AdamW(mirror.parameters(), lr=0.01, **options)
        random = torch.Generator().manual_seed(4)
        for _ in range(5):
            batch = torch.randn(16, 64, generator=random)
            for each, optimizer in ((model, ours), (mirror, plain)):
                each(batch).square().mean().backward()
                optimizer.step(zero_grad=True)
        assert_equal(everything(model, ours), everything(mirror, plain))
        if "ema_decay" in options:
            with ours.averaged(), plain.averaged():
                assert_equal(everything(model, ours), everything(mirror, plain))


def flat_shards(rank: int, folder: Path) -> None:
    """FSDP1's flat shards in packed formats: the bits of a flat tensor, and state that FSDP1 gathers and loads."""
    from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType

    def flat(state_dtype: str, use_orig_params: bool) -> tuple[Any, AdamW]:
        torch.manual_seed(5)
        model = FullyShardedDataParallel(
            nn.Sequential(nn.Linear(512, 600), nn.Tanh(), nn.Linear(600, 300)),
            device_id=torch.device("cpu"), use_orig_params=use_orig_params,
        )  # fmt: skip
        return model, AdamW(model.parameters(), lr=0.01, state_dtype=state_dtype)

    for state_dtype, use_orig_params, kind in (
        ("packed16", False, StateDictType.FULL_STATE_DICT),
        ("packed12", False, StateDictType.SHARDED_STATE_DICT),
        ("bfloat16", False, StateDictType.FULL_STATE_DICT),
        # Not FULL_STATE_DICT: torch 2.13 then gives torch.optim.AdamW's exp_avg the values of exp_avg_sq.
        ("packed16", True, StateDictType.SHARDED_STATE_DICT),
    ):
        model, optimizer = flat(state_dtype, use_orig_params)
        mirror = [nn.Parameter(x.detach().clone()) for x in model.parameters()]
        plain = AdamW(mirror, lr=0.01, state_dtype=state_dtype)
        random = torch.Generator().manual_seed(rank)
        for _ in range(5):
            model(torch.randn(8, 512, generator=random)).square().mean().backward()
            for param, same in zip(model.parameters(), mirror, strict=True):
                same.grad = None if param.grad is None else param.grad.clone()
            optimizer.step(zero_grad=True)
            plain.step()
        for param, same in zip(model.parameters(), mirror, strict=True):
            assert torch.equal(param, same)
            assert optimizer.state[param].keys() == plain.state[same].keys()
            assert all(torch.equal(x, plain.state[same][key]) for key, x in optimizer.state[param].items())
        if rank == 0:  # whose part is of a single tensor, and large, also with use_orig_params
            assert optimizer.state_bytes(by_reason=True)[state_dtype] > 65_536
        other, resumed = flat(state_dtype, use_orig_params)
        with FullyShardedDataParallel.state_dict_type(model, kind):
            saved = FullyShardedDataParallel.optim_state_dict(model, optimizer)
        with FullyShardedDataParallel.state_dict_type(other, kind):
            resumed.load_state_dict(FullyShardedDataParallel.optim_state_dict_to_load(other, resumed, saved))
        mine, loaded = (each.state_bytes(by_reason=True).get(state_dtype) for each in (optimizer, resumed))
        assert loaded == mine
        for param, again in zip(model.parameters(), other.parameters(), strict=True):
            (m, v), (loaded_m, loaded_v) = optimizer.moments(param), resumed.moments(again)
            assert torch.equal(loaded_v, v)  # decoded values are on the grid that encoding makes of them
            if m.numel():  # m may be rounded once more, by one step of its grid: a 15th of the largest in 5 bits
                torch.testing.assert_close(loaded_m, m, rtol=0, atol=float(m.abs().max()) / 15)


def tensor_parallel_and_sharded(rank: int, folder: Path) -> None:
    """FSDP over tensor parallelism cuts dimension 0 twice, in strides: the bits are still those of a whole model."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))

    def parallel(module: Block) -> Block:
        parallelize_module(module, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
        return fully_shard(module, mesh=mesh["dp"])

    whole_model, drawn = Block(), Block()
    with torch.no_grad():
        for module in (whole_model, drawn):
            module.up = nn.Linear(64, 256)
            module.down = nn.Linear(1024, 9, bias=False)
    drawn.load_state_dict({name: x.detach().clone() for name, x in drawn.state_dict().items()})
    for tensor in (*whole_model.parameters(), *drawn.parameters()):
        dist.broadcast(tensor.data, 0)
    mirror, grads = Block(), [x.detach().clone() for x in drawn.parameters()]
    mirror.up, mirror.down = nn.Linear(64, 256), nn.Linear(1024, 9, bias=False)
    mirror.load_state_dict(whole_model.state_dict())
    model, gradient = parallel(whole_model), parallel(drawn)
    ours, plain = (AdamW(each.parameters(), lr=0.01, state_dtype="packed16", max_norm=1.0) for each in (model, mirror))
    for _ in range(5):
        for param, grad in zip(model.parameters(), gradient.parameters(), strict=True):
            param.grad = grad.detach()
        for param, grad in zip(mirror.parameters(), grads, strict=True):
            param.grad = grad
        ours.step()
        plain.step()
    assert ours.grad_norm == pytest.approx(plain.grad_norm, rel=1e-12)
    for param, expected in zip(model.parameters(), mirror.parameters(), strict=True):
        assert torch.equal(whole(param.detach()), expected.detach())


def state_that_a_checkpoint_makes(rank: int, folder: Path) -> None:
    """`get_optimizer_state_dict` before the first step changes nothing, and counts as step 0."""
    for name in ("average", "packed16", "packed12 + 24"):
        model, optimizer, grads = made(mesh_of(4), FORMATS[name], weight_decay=0.1)
        before = everything(model, optimizer)
        get_optimizer_state_dict(model, optimizer)
        after = everything(model, optimizer)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert all(int(state["step"]) == 0 for state in optimizer.state.values())
        fresh, untouched, same = made(mesh_of(4), FORMATS[name], weight_decay=0.1)
        train(model, optimizer, grads, range(4))
        train(fresh, untouched, same, range(4))
        assert_equal(everything(model, optimizer), everything(fresh, untouched))


def shards_kept_on_the_host(rank: int, folder: Path) -> None:
    """FSDP's CPUOffloadPolicy: the mesh is one of GPUs, shards lie on the host, and so do their states."""
    mesh = DeviceMesh("cuda", list(range(PROCESSES)), _init_backend=False)

    def offloaded(shard: Tensor) -> Tensor:
        meta = TensorMeta(torch.Size((4 * 16, 128)), (128, 1), shard.dtype)
        return DTensor(shard, DTensorSpec(mesh, (Shard(0),), tensor_meta=meta), requires_grad=False)  # pyright: ignore

    param = nn.Parameter(offloaded(torch.ones(16, 128)))
    optimizer = AdamW([param], state_dtype="packed16", ema_decay=0.9)
    for _ in range(2):
        param.grad = offloaded(torch.ones(16, 128))
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    assert {kernel for _, kernel, _ in optimizer.kernel_choices()} == {"native"}
    assert {x.device.type for x in optimizer.state[param].values()} == {"cpu"}
    assert int(optimizer.state[param]["step"]) == 2


FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
FULL = StateDictOptions(full_state_dict=True)


def checkpoints_of_every_format(rank: int, folder: Path) -> None:
    """Saved on 4 processes, loaded on 4, 3, 1 and without any: 0 differing bytes, sharded, flattened and full."""
    for number, (name, options) in enumerate(FORMATS.items()):
        chosen, path = (FLAT if number % 2 else None), folder / f"format{number}"
        model, optimizer, grads = made(mesh_of(4), options)
        train(model, optimizer, grads, range(10))
        saved = {"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer, options=chosen)}
        dcp.save(saved, checkpoint_id=path)
        full = get_optimizer_state_dict(model, optimizer, options=FULL)
        for count in (4, 3, 1, 0) if number < 2 else (3, 1, 0):
            if rank >= max(count, 1) or (count == 0 and not RECENT):  # torch 2.6 lacks no_dist
                continue
            mesh = mesh_of(count) if count else None
            model, optimizer, grads = made(mesh, options)
            found = {"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer, options=chosen)}
            group = mesh.get_group() if mesh is not None else None
            dcp.load(found, checkpoint_id=path, process_group=group, **({} if mesh else {"no_dist": True}))
            model.load_state_dict(found["model"])
            if count == 3:  # the whole state, on every process
                set_optimizer_state_dict(model, optimizer, full, options=FULL)
            else:
                set_optimizer_state_dict(model, optimizer, found["optim"], options=chosen)
            train(model, optimizer, grads, range(10, 20))
            found = everything(model, optimizer)
            if rank == 0:
                assert_equal(found, unsharded(name, 20))


def checkpoints_of_others(rank: int, folder: Path) -> None:
    """A checkpoint of torch's AdamW, or with other options, loads with our planner; moments are converted."""
    mesh = mesh_of(4)
    model, _, grads = made(mesh, {})
    theirs = torch.optim.AdamW(model.parameters(), lr=0.01, foreach=False)
    train(model, theirs, grads, range(4))
    del theirs.state[model.few]  # a parameter without state
    for flat in (None, FLAT):
        dcp.save({"optim": get_optimizer_state_dict(model, theirs, options=flat)}, checkpoint_id=folder / f"t{flat}")
    for flat, options in (
        (None, {}),
        *([(FLAT, {})] if RECENT else []),
        (None, {"state_dtype": "packed16", "ema_decay": 0.9}),
    ):
        model.zero_grad()  # torch makes no state where a parameter has a gradient
        optimizer = AdamW(model.parameters(), **options)
        found = {"optim": get_optimizer_state_dict(model, optimizer, options=flat)}
        with pytest.raises(CheckpointException, match="Missing key in checkpoint"):
            dcp.load(found, checkpoint_id=folder / f"t{flat}")
        dcp.load(found, checkpoint_id=folder / f"t{flat}", planner=LoadPlanner())
        set_optimizer_state_dict(model, optimizer, found["optim"], options=flat)
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["decay"]) == (0.01, "lr")
        assert not optimizer.state.get(model.few)
        exp_avg, _ = map(whole, optimizer.moments(model.even))
        expected = whole(theirs.state[model.even]["exp_avg"])
        assert int(optimizer.state[model.even]["step"]) == 4
        limit = expected.abs().max() / 60 if options else 0  # packed16's error, in units of the largest in a block
        assert (exp_avg - expected).abs().max() <= limit
        train(model, optimizer, grads, range(4, 6))
        assert ("ema" in optimizer.state[model.even]) == bool(options)
    model.zero_grad()
    optimizer = AdamW(model.parameters(), state_dtype="packed16")
    found = {"optim": get_optimizer_state_dict(model, optimizer, options=FLAT)}
    with pytest.raises(CheckpointException, match="a flattened state cannot change its format"):
        dcp.load(found, checkpoint_id=folder / f"t{FLAT}", planner=LoadPlanner())


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """The recipe of docs/distributed.md: a checkpoint has its name only when it is whole."""
    unfinished = folder / f"unfinished-{step}"
    dcp.save(state, checkpoint_id=unfinished)
    if dist.get_rank() == 0:
        unfinished.rename(folder / f"step-{step}")
    dist.barrier()


def killed_in_the_middle(rank: int, folder: Path) -> None:
    """The last check: a process dies while it saves."""
    model, optimizer, grads = made(mesh_of(4), FORMATS["packed16 + 24"])
    train(model, optimizer, grads, range(10))
    save(folder, 10, {"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer)})
    train(model, optimizer, grads, range(10, 14))
    if rank == 2:
        write = dcp.FileSystemWriter.write_data

        def dies(self: Any, *args: Any) -> Any:
            write(self, *args)
            os.kill(os.getpid(), signal.SIGKILL)

        dcp.FileSystemWriter.write_data = dies  # pyright: ignore
    save(folder, 14, {"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer)})


CHECKS: list[Callable[[int, Path], None]] = [
    sharded_is_unsharded,
    a_planted_place_is_found,
    norms_and_verdicts_of_all,
    mixed_with_plain_parameters,
    other_placements,
    fully_sharded_training,
    flat_shards,
    tensor_parallel_and_sharded,
    state_that_a_checkpoint_makes,
    shards_kept_on_the_host,
    checkpoints_of_every_format,
    checkpoints_of_others,
]


@contextmanager
def joined(rank: int, folder: Path) -> Iterator[None]:
    """The process as a member of the world."""
    limit = timedelta(seconds=120)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES, timeout=limit)
    try:
        yield
    finally:
        os._exit(0)  # what unloads torch aborts now and then, over threads of gloo's


def run(rank: int, folder: Path, chosen: list[str]) -> None:
    """Run all checks in one process, and write the errors of each to a file."""
    torch.set_num_threads(1)
    with joined(rank, folder):
        for count in range(1, PROCESSES + 1):
            mesh_of(count)
        for check in CHECKS:
            if chosen and check.__name__ not in chosen:
                continue
            error, begin = "", time.process_time()
            try:
                check(rank, folder)
            except BaseException:
                error = traceback.format_exc()
            (folder / f"seconds.{rank}").open("a").write(f"{check.__name__} {time.process_time() - begin:.1f}\n")
            (folder / f"{check.__name__}.{rank}").write_text(error)
            dist.barrier()
        if not chosen:
            killed_in_the_middle(rank, folder)


def start(folder: Path, *chosen: str) -> None:
    """Run the checks in new processes; the last one kills one of them."""
    context = torch.multiprocessing.spawn(run, (folder, list(chosen)), PROCESSES, join=False)
    assert context is not None
    for process in context.processes:
        process.join()
