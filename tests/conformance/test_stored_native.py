"""The native kernel on moments and weights of fewer bits: the specification's bits, whatever the instruction set."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from adamas.kernels import native
from adamas.kernels.bucket import Bucket, Storage, state_names
from adamas.scalars import Hyper, StepScalars
from tests.conformance.stored_model import Model, patterns

pytestmark = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))

SHAPES = [(8, 1024), (3, 300), (5, 257), (64, 64), (2, 3, 511), (1, 4096), (9, 95)]
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
        scalars = StepScalars.of(hyper, step, seed=7)
        native.take(prepared, [tensor_of(grad, dtype)])
        prepared.table.step([scalars], None, False, 2, isa)
        model.step(grad, scalars)
        assert model.same_bits("param", bytes_of(param)), f"param at step {step}"
        for name in state_names(False, False, storage):
            assert model.same_bits(name, bytes_of(state[name])), f"{name} at step {step}"


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize(("dtype", "storage"), STORAGES, ids=str)
def test_every_bit_is_the_specifications(dtype: str, storage: Storage, isa: str) -> None:
    for shape, hyper in zip(SHAPES, [*HYPERS.values()] * 3, strict=False):
        stepped(storage, dtype, shape, hyper, isa)
