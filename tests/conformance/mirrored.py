"""Tensors that the Triton kernel steps, beside models of them that say what every byte must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adamas.formats import stored
from adamas.kernels import triton
from adamas.kernels.bucket import Bucket, Storage, state_names
from adamas.scalars import StepScalars
from tests.conformance.cases import device_of
from tests.conformance.stored_model import Model, patterns
from tests.conftest import INTERPRETED

DEVICE = device_of("triton")
DTYPES = ("float32", "bfloat16", "float16")
NEEDS_A_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU, or TRITON_INTERPRET=1"),
]


def tensors_of(model: Model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The model's parameter and state as torch tensors on the device."""
    param = torch.from_numpy(model.param.copy())
    param = param if model.dtype == "float32" else param.view(getattr(torch, model.dtype))
    parts = stored.parts(model.storage, param)
    state = {}
    for name, array in model.state.items():
        tensor = torch.from_numpy(np.ascontiguousarray(array).copy())
        dtype, shape = parts.get(name, (tensor.dtype, tuple(param.shape)))
        state[name] = (tensor if tensor.dtype == dtype else tensor.view(dtype)).reshape(shape).to(DEVICE)
    return param.to(DEVICE), state


def bytes_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def draw(random: np.random.Generator, shape: tuple[int, ...], dtype: str, scale: Any = 1.0) -> np.ndarray:
    """Random numbers; float16 ends at 65504, and beyond lie NaN, of which each processor writes another pattern."""
    values = (scale * random.normal(0, 1, shape)).astype(np.float32)
    return patterns(np.clip(values, -6e4, 6e4) if dtype == "float16" else values, dtype)


class Mirrored:
    """Tensors in a bucket of the kernel, and models of them."""

    def __init__(
        self, shapes: list[tuple[int, ...]], dtype: str, storage: Storage, extras: tuple[str, ...] = ()
    ) -> None:
        self.random, self.dtype = np.random.default_rng(7), dtype
        self.models = [Model(storage, dtype, draw(self.random, shape, dtype)).begin() for shape in shapes]
        for model in self.models:
            model.state |= {name: np.zeros(model.param.shape, np.float32) for name in extras}
        self.scales = [np.exp(self.random.normal(0, 2, shape)) for shape in shapes]
        params, states = zip(*map(tensors_of, self.models), strict=True)
        averages, amsgrad = "ema" in extras, "max_exp_avg_sq" in extras
        self.names = state_names(amsgrad, averages, storage)
        self.bucket = Bucket(list(params), list(states), storage, amsgrad, averages)
        self.prepared = triton.prepare(self.bucket)

    def grads(self) -> list[np.ndarray]:
        """Gradients of many sizes, with zeros."""
        found = []
        for model, scale in zip(self.models, self.scales, strict=True):
            grad = draw(self.random, model.param.shape, self.dtype, scale)
            grad.reshape(-1)[::17] = 0
            found.append(grad)
        return found

    def step(
        self, steps: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
    ) -> list[torch.Tensor]:
        """Step both; the gradients that the kernel had are returned."""
        grads = self.grads()
        tensors = [torch.from_numpy(grad.copy()) for grad in grads]
        tensors = [x if self.dtype == "float32" else x.view(getattr(torch, self.dtype)) for x in tensors]
        tensors = [x.to(DEVICE) for x in tensors]
        triton.take(self.prepared, tensors)
        triton.step(self.prepared, steps, which, zero_grad)
        for i, (model, grad) in enumerate(zip(self.models, grads, strict=True)):
            model.step(grad, steps[which[i] if which else 0])
        return tensors

    def check(self, when: str = "") -> None:
        """Every byte is the model's."""
        for i, (model, param, state) in enumerate(
            zip(self.models, self.bucket.params, self.bucket.states, strict=True)
        ):
            assert model.same_bits("param", bytes_of(param)), f"param {i} {when}"
            for name in self.names:
                assert model.same_bits(name, bytes_of(state[name])), f"{name} {i} {when}"
