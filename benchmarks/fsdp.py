"""The step and the phase of sharded parameters beside torch's, in two processes on the CPU.

    python -m benchmarks.fsdp

Ratios of our time to torch's, medians of interleaved rounds. Step: ours on DTensors against torch's fused AdamW on the
same shards as plain tensors. Phase: ours with `max_norm` against torch's `clip_grad_norm_` and fused step on DTensors.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from adamas.torch import AdamW

PROCESSES, ROUNDS = 2, 40
SCENARIOS = {"100 small tensors": [(64, 17)] * 100, "8 x 1 M": [(1024, 1024)] * 8}
FORMATS: list[dict[str, Any]] = [{}, {"state_dtype": "packed16"}, {"state_dtype": "packed12"}]


def parameters(shapes: list[tuple[int, int]], mesh: DeviceMesh) -> list[nn.Parameter]:
    """Return sharded parameters with random gradients."""
    params = []
    for shape in shapes:
        param = nn.Parameter(distribute_tensor(torch.randn(shape), mesh, [Shard(0)], src_data_rank=None))
        param.grad = distribute_tensor(torch.randn(shape), mesh, [Shard(0)], src_data_rank=None)
        params.append(param)
    return params


def shards(params: list[nn.Parameter]) -> list[nn.Parameter]:
    """This process's shards as plain parameters."""
    found = []
    for param in params:
        found.append(nn.Parameter(param.to_local().detach().clone()))  # pyright: ignore
        found[-1].grad = param.grad.to_local().clone()  # pyright: ignore
    return found


def clip_and_step(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """The phase in torch's own words."""
    nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step()


def medians(steps: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median time of each step, in seconds, of rounds in which all take turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 5):
        for name, step in steps.items():
            dist.barrier()
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    return {name: median(each[5:]) for name, each in times.items()}


def measure(rank: int, meeting: str) -> None:
    """Print the ratios, in the first process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES)
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for what, shapes in SCENARIOS.items():
        steps: dict[str, Callable[[], Any]] = {}
        steps["torch, shards"] = torch.optim.AdamW(shards(parameters(shapes, mesh)), fused=True).step
        clipped = parameters(shapes, mesh)
        fused = torch.optim.AdamW(clipped, fused=True)

        steps["torch, phase"] = partial(clip_and_step, clipped, fused)
        for options in FORMATS:
            name = options.get("state_dtype", "float32")
            steps[f"step, {name}"] = AdamW(parameters(shapes, mesh), **options).step
            steps[f"phase, {name}"] = AdamW(parameters(shapes, mesh), max_norm=1.0, **options).step
        found = medians(steps)
        for name, seconds in found.items():
            base = found["torch, phase" if "phase" in name else "torch, shards"]
            if rank == 0:
                print(f"{what:18} {name:16} {1e3 * seconds:8.3f} ms   {seconds / base:5.2f} x torch", flush=True)
    dist.barrier()
    os._exit(0)  # what unloads torch aborts now and then, over threads of gloo's


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(measure, (f"{folder}/meeting",), PROCESSES)
