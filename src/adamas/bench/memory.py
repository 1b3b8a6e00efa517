"""How fast the machine moves the bytes of a step: the limit that no implementation of it can beat for long."""

from __future__ import annotations

from collections.abc import Callable

import torch

from adamas.bench.scenario import Scenario
from adamas.formats.names import NARROWEST, SMALLEST
from adamas.kernels import native
from adamas.kernels.bucket import Bucket, moment_dtype, state_names
from adamas.state.format import storage_of


def bytes_moved(scenario: Scenario) -> float:
    """Bytes a parameter that our step reads and writes.

    28 in float32; 40 for a phase, which also reads the gradient for its norm, and reads and writes the average. State
    is read and written.
    """
    size = getattr(torch, scenario.dtype).itemsize
    wide = max(size, 4)  # averages are float32 or wider
    step = 2 * size + size + 2 * state_bytes(scenario)
    return step if scenario.work == "step" else step + size + 2 * wide


def state_bytes(scenario: Scenario) -> float:
    """Bytes a parameter of moments and low bits of master weights."""
    storage = storage_of(torch.empty(SMALLEST // NARROWEST, NARROWEST, dtype=getattr(torch, scenario.dtype)), {
        "state_dtype": "float32", "master_weight_bits": None, "stochastic_rounding": None, **scenario.storage,
    })  # fmt: skip
    wide = 2 * max(getattr(torch, scenario.dtype).itemsize, 4)
    moments = {"wide": wide, "bfloat16": 4, "float16": 4, "packed16": 2 + 12 / 256, "packed12": 1.5 + 12 / 256}
    return moments[storage.moments] + {None: 0, 24: 1, 32: 2}[storage.master_bits]


def memory_pass(scenario: Scenario) -> Callable[[], None]:
    """A function that moves as many bytes as a step, or phase, in the same directions, and computes next to nothing.

    The native kernel's own loop does it, with additions of zero in the place of the rule: all streams at once, in the
    same threads. Where that was not built, torch's additions do, a pass a stream, which is slower than the limit.
    """
    averages = scenario.work == "phase"
    if (
        scenario.storage
    ):  # as many bytes of float32 tensors: moments and weights of fewer bits have no loop of their own
        scale = bytes_moved(scenario) / bytes_moved(Scenario("", ((1,),), work=scenario.work))
        scenario = Scenario(scenario.name, ((int(scenario.parameters * scale),),), work=scenario.work)
    dtype = getattr(torch, scenario.dtype)
    grad = torch.ones(scenario.parameters, dtype=torch.float32 if dtype.itemsize < 4 else dtype)
    read = grad[: -(-scenario.parameters * dtype.itemsize // grad.element_size())]  # for the norm
    move = _passes(scenario, averages) if native.missing else _one_pass(scenario, averages)

    def both() -> None:
        read.sum()
        move()

    return both if averages else move


def _one_pass(scenario: Scenario, averages: bool) -> Callable[[], None]:
    """By the native kernel: the same number of tensors of the same sizes."""
    params = [torch.ones(shape, dtype=getattr(torch, scenario.dtype)) for shape in scenario.shapes]
    names = state_names(amsgrad=False, averages=averages)
    states = [{name: torch.ones(param.shape, dtype=moment_dtype(param)) for name in names} for param in params]
    prepared = native.prepare(Bucket(params, states, averages=averages))
    native.take(prepared, [param.clone() for param in params])
    return lambda: native.touch(prepared)


def _passes(scenario: Scenario, averages: bool) -> Callable[[], None]:
    """By torch: float32 whatever the dtype, since additions of 16-bit numbers are bound by their conversion.

    Values stay as they are: what is added is far below half a unit in the last place of 1.
    """
    size = getattr(torch, scenario.dtype).itemsize
    wide = max(size, 4)

    def stream(width: int) -> torch.Tensor:
        return torch.ones(max(1, scenario.parameters * width // 4))

    param, grad = stream(size), stream(size)
    states = [stream(wide) for _ in state_names(amsgrad=False, averages=averages)]

    def move() -> None:
        param.add_(grad, alpha=1e-30)
        for state in states:
            state.add_(1e-30)

    return move
