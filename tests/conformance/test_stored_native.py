"""The native kernel on moments and weights of fewer bits: the specification's bits, whatever the instruction set."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from adamas.formats import stored
from adamas.kernels import native
from adamas.kernels.bucket import Bucket, Storage, state_names
from adamas.scalars import Hyper, StepScalars
from adamas.state.conform import conform
from tests.conformance.stored_model import Model, patterns

pytestmark = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))

SHAPES = [(8, 1024), (3, 300), (5, 257), (64, 64), (2, 3, 511), (1, 4096), (9, 95), (4099,)]
LARGE = [(300, 1000), (1, 300_000), (777, 389), (70_001,)]
STORAGES = [
    *(("float32", Storage(moments)) for moments in ("bfloat16", "packed16", "packed12")),
    *(
        ("bfloat16", Storage(moments, bits, stochastic))
        for moments, (bits, stochastic) in product(
            ("wide", "bfloat16", "packed16", "packed12"),
            ((None, True), (None, False), (24, True), (24, False), (32, False)),
        )
    ),
    *(("float16", Storage(moments, None, True)) for moments in ("wide", "packed16")),
]  # fmt: skip
HYPERS = {
    "adam": Hyper(weight_decay=0.1, decay="l2", beta1=0.4),
    "adamw": Hyper(lr=1e-2, weight_decay=0.1, decay="lr"),
    "maximize": Hyper(beta2=0.95, decay="lr", maximize=True, eps=1e-3),
}


def tensor_of(array: np.ndarray, dtype: str) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array).copy())
    return tensor if dtype == "float32" else tensor.view(getattr(torch, dtype))


def bytes_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(torch.uint8).numpy()


def test_threads_do_not_change_a_bit() -> None:
    """Tensors large enough for several, with rows that end inside of blocks."""
    for dtype, storage in STORAGES:
        if storage.plain:
            continue
        found = []
        for threads in (1, 2, 3, 7):
            torch.manual_seed(0)
            params = [torch.randn(shape).to(getattr(torch, dtype)) for shape in LARGE]
            grads = [torch.randn(param.shape).to(param.dtype) for param in params]
            states = [conform({}, param, storage, (), "parameter") for param in params]
            prepared = native.prepare(Bucket(params, states, storage))
            for step in (1, 2):
                native.take(prepared, grads)
                prepared.table.step([StepScalars.of(HYPERS["adamw"], step, seed=7)], None, False, threads)
            found.append([bytes_of(x).tobytes() for x in (*params, *(x for state in states for x in state.values()))])
        assert all(each == found[0] for each in found), (dtype, storage)


def stepped(storage: Storage, dtype: str, shape: tuple[int, ...], hyper: Hyper, isa: str, steps: int = 5) -> None:
    """Step a tensor natively and by the model with the same gradients and compare every byte after each step."""
    random = np.random.default_rng(len(shape) + shape[-1])
    model = Model(storage, dtype, patterns(random.normal(0, 1, shape).astype(np.float32), dtype)).begin()
    param = tensor_of(model.param, dtype)
    state = {name: torch.from_numpy(value.copy()) for name, value in model.state.items()}
    if storage.moments == "bfloat16":
        state |= {name: state[name].view(torch.bfloat16).reshape(shape) for name in ("exp_avg", "exp_avg_sq")}
    prepared = native.prepare(Bucket([param], [state], storage))
    scale = np.exp(random.normal(0, 2, shape))
    for step in range(1, steps + 1):
        grad = patterns((scale * random.normal(0, 1, shape)).astype(np.float32), dtype)
        grad.reshape(-1)[::17] = 0
        if step == steps:
            grad.reshape(-1)[5::1500] = patterns(np.array([np.nan, np.inf], np.float32), dtype)[len(shape) % 2]
        scalars = StepScalars.of(hyper, step, seed=7)
        native.take(prepared, [tensor_of(grad, dtype)])
        prepared.table.step([scalars], None, False, 2, isa)
        model.step(grad, scalars)
        if step == steps:  # of a NaN no more than that it is one
            return same_numbers(model, param, state)
        assert model.same_bits("param", bytes_of(param)), f"param at step {step}"
        for name in state_names(False, False, storage):
            assert model.same_bits(name, bytes_of(state[name])), f"{name} at step {step}"


def same_numbers(model: Model, param: torch.Tensor, state: dict[str, torch.Tensor]) -> None:
    """Weights and moments, compared as numbers."""
    mirror = torch.empty_like(param)
    other = dict(state)
    for name, tensor in [("param", mirror), *((name, torch.empty_like(x)) for name, x in state.items())]:
        mine = model.param if name == "param" else model.state[name]
        mine = mine.astype(np.uint16) if mine.dtype == np.int64 else mine
        tensor.view(torch.uint8).reshape(-1).numpy()[:] = np.frombuffer(np.ascontiguousarray(mine).tobytes(), np.uint8)
        other[name] = tensor
    for each in (state, other):
        if model.storage.master_bits == 32:
            each["param_low"] = each["param_low"][..., None].view(torch.uint8)
    for decode in (stored.weight, lambda *operands: torch.stack(stored.moments(*operands))):
        ours, theirs = decode(model.storage, state, param), decode(model.storage, other, mirror)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize(("dtype", "storage"), STORAGES, ids=str)
def test_every_bit_is_the_specifications(dtype: str, storage: Storage, isa: str) -> None:
    for shape, hyper in zip(SHAPES, [*HYPERS.values()] * 3, strict=False):
        stepped(storage, dtype, shape, hyper, isa)


def first_step(dtype: str, storage: Storage, scalars: tuple, isa: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A parameter with infinite and tiny weights after its first step, and the gradient."""
    torch.manual_seed(1)
    param, grad = (torch.randn(16, 300).to(getattr(torch, dtype)) for _ in range(2))
    param.view(-1)[:4] = torch.tensor([float("inf"), -float("inf"), 0.0, 1e-7])
    grad.view(-1)[::5] = 0
    state = conform({}, param, storage, (), "parameter")
    prepared = native.prepare(Bucket([param], [state], storage))
    native.take(prepared, [grad])
    prepared.table.step([scalars], None, False, 1, isa)
    return param, grad


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize(("dtype", "storage"), STORAGES, ids=str)
def test_cautious_decay_and_infinite_weights(dtype: str, storage: Storage, isa: str) -> None:
    """Of the steps with and without decay each element is the one that its signs ask for; infinity stays infinity."""
    hyper = {"lr": 1e-2, "decay": "lr"}
    decayed, free = (StepScalars.of(Hyper(weight_decay=wd, **hyper), 1, seed=5) for wd in (0.5, 0.0))
    got, grad = first_step(dtype, storage, (*decayed[:16], True), isa)
    with_decay, without = (first_step(dtype, storage, scalars, isa)[0] for scalars in (decayed, free))
    torch.manual_seed(1)
    theta = torch.randn(16, 300).to(getattr(torch, dtype))
    theta.view(-1)[:4] = torch.tensor([float("inf"), -float("inf"), 0.0, 1e-7])
    opposed = ((grad > 0) & (theta < 0)) | ((grad < 0) & (theta > 0))
    assert torch.equal(got, torch.where(opposed, without, with_decay))
    assert not torch.equal(got, with_decay)
    for param in (got, with_decay, without):
        assert param.view(-1)[:2].tolist() == [float("inf"), -float("inf")]
