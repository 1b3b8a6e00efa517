"""The speed of memory: functions that move the bytes of a step. No implementation can stay faster than that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from adamas.bench.scenario import Scenario
from adamas.kernels import native
from adamas.kernels.bucket import Bucket, moment_dtype, state_names

LARGEST_COPY = 2**30  # bytes: far more than any cache holds


def bytes_moved(dtype: str, work: str, state: float) -> float:
    """Return the bytes a parameter that a call has to read and write.

    Parameter and state are read and written, the gradient is read; a phase reads the gradient twice, since its norm
    needs all gradients first. In float32 that is 28 bytes for a step and 40 for a phase.

    Args:
        dtype: dtype of parameters and gradients, in torch's words.
        work: "step" or "phase".
        state: bytes a parameter of the state, a phase's average of the weights included.
    """
    size = getattr(torch, dtype).itemsize
    return 3 * size + 2 * state + (size if work == "phase" else 0)


def copies(bytes_: float, device: torch.device) -> Callable[[], None]:
    """Return a function that copies tensors until `bytes_` bytes have been read and written."""
    count = math.ceil(bytes_ / 2 / LARGEST_COPY)
    source = torch.ones(max(1, int(bytes_ / 2 / count / 4)), device=device)
    target = torch.empty_like(source)

    def move() -> None:
        for _ in range(count):
            target.copy_(source)

    return move


def native_pass(scenario: Scenario, bytes_: float) -> Callable[[], None]:
    """Return a function that moves the bytes of a step on a CPU by the native kernel's own loop.

    The loop adds zeros in place of the rule: it reads and writes all tensors at once, in the same threads. Moments and
    weights of fewer bits have no loop like that; float32 tensors of as many bytes take their place.
    """
    averages = scenario.work == "phase"
    if scenario.storage:
        scale = bytes_ / scenario.parameters / bytes_moved("float32", scenario.work, 12 if averages else 8)
        size = int(scenario.parameters * scale)
        scenario = replace(scenario, shapes=((size,),), dtype="float32", storage={})
    dtype = getattr(torch, scenario.dtype)
    params = [torch.ones(shape, dtype=dtype) for shape in scenario.shapes]
    names = state_names(amsgrad=False, averages=averages)
    states = [{name: torch.ones(param.shape, dtype=moment_dtype(param)) for name in names} for param in params]
    prepared = native.prepare(Bucket(params, states, averages=averages))
    native.take(prepared, [param.clone() for param in params])
    grad = torch.ones(scenario.parameters, dtype=torch.float32 if dtype.itemsize < 4 else dtype)
    read = grad[: -(-scenario.parameters * dtype.itemsize // grad.element_size())]  # as the norm reads the gradient

    def move() -> None:
        if averages:
            read.sum()
        native.touch(prepared)

    return move
