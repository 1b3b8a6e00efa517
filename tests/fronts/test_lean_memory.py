"""How much memory training takes, as the operating system counts it, in a process of its own.

Resident anonymous memory (`RssAnon`: without files, such as the code of libraries that is touched for the first time)
and the highest resident memory of each step (`VmHWM`, which writing 5 to `clear_refs` sets back), both beyond those
after a small model of the same kind has trained: thread pools and the like are there then. glibc maps tensors of this
size one by one and gives them back when they are freed, so resident memory follows the tensors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import adamas
from adamas.formats import stored
from adamas.kernels.bucket import Storage
from tests.conftest import needs_native

MIB = 2**20
WIDTH, LAYERS = 4096, 6
LARGEST_GRADIENT = 2 * WIDTH * WIDTH
BATCH = 2
# Inputs and outputs of every layer, and gradients of two of them, with a float32 copy for the loss.
ACTIVATIONS = BATCH * WIDTH * (2 * (2 * LAYERS + 3) + 4)
# Pages at the edges of each tensor, small tensors' heap, code touched for the first time: 1 MiB where measured. Less
# than half of the largest gradient, so that holding two would be noticed.
SLACK = 12 * MIB

PROGRAM = """
import gc, json, sys
import torch
from torch import nn
from adamas.torch import AdamW, release_gradients

torch.set_num_threads(1)
width, layers, batch, release, options = json.loads(sys.argv[1])


def memory(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def reset_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def train(width, layers, steps):
    with torch.device("meta"):
        model = nn.Sequential(*(part for _ in range(layers) for part in (nn.Linear(width, width), nn.LayerNorm(width))))
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    for param in model.parameters():
        nn.init.normal_(param, std=0.01)
    optimizer = AdamW(model.parameters(), lr=1e-4, **options)
    if release:
        release_gradients(model, optimizer)
    peaks = []
    for _ in range(steps):
        reset_peak()
        optimizer.zero_grad()
        model(torch.ones(batch, width, dtype=torch.bfloat16)).float().square().mean().backward()
        optimizer.step()
        peaks.append(memory("VmHWM"))
    return model, optimizer, peaks


def workspace():
    '''What torch itself takes to run a layer of this width: on processors without bfloat16, a gradient in float32.'''
    layer = nn.Linear(width, width, dtype=torch.bfloat16)
    x = torch.ones(batch, width, dtype=torch.bfloat16, requires_grad=True)
    before = memory("VmRSS")
    reset_peak()
    _, gradient = torch.autograd.grad(layer(x).float().sum(), [x, layer.weight])
    return memory("VmHWM") - before - gradient.nbytes


train(256, 2, 3)
extra = [workspace() for _ in range(2)][-1]
gc.collect()
before, before_all = memory("RssAnon"), memory("VmRSS")
model, optimizer, peaks = train(width, layers, 2)
tensors = [x for state in optimizer.state.values() for x in state.values()]
tensors = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
params = list(model.parameters())
print(json.dumps({
    "resident": memory("RssAnon") - before,
    "peak": max(peaks) - before_all,
    "workspace": extra,
    "numel": sum(param.numel() for param in params),
    "params": sum(param.nbytes for param in params),
    "grads": sum(param.grad.nbytes for param in params if param.grad is not None),
    "states": sum(tensors.values()),
    "state_bytes": optimizer.state_bytes(),
    "kernels": sorted({kernel for _, kernel, _ in optimizer.kernel_choices()}),
}))
"""


def can_measure() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return "RssAnon:" in Path("/proc/self/status").read_text()


def measured(release: bool, **options: Any) -> dict[str, Any]:
    arguments = json.dumps([WIDTH, LAYERS, BATCH, release, options])
    package = Path(adamas.__file__).parents[1]  # the one that is tested here, whatever other tests let theirs find
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(package)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# (options, whether gradients are released, bytes a parameter: weight, gradient, state)
CASES = [
    ({"state_dtype": "packed16"}, False, 7.1),
    ({"state_dtype": "packed16", "max_norm": 1.0, "skip_nonfinite": True}, True, 5.1),
    ({"state_dtype": "packed12"}, False, 6.6),
    ({"state_dtype": "packed12"}, True, 4.6),
    ({"state_dtype": "packed16", "ema_decay": 0.9}, True, 9.1),
]


@needs_native
@pytest.mark.skipif(not can_measure(), reason="no /proc/self/clear_refs, status")
@pytest.mark.parametrize(("options", "release", "limit"), CASES)
def test_bytes_a_parameter(options: dict[str, Any], release: bool, limit: float) -> None:
    found = measured(release, master_weight_bits=24, **options)
    assert found["numel"] > 100e6
    assert found["kernels"] == ["native"]
    assert found["states"] == found["state_bytes"]
    assert found["grads"] == (0 if release else found["params"])
    tensors = found["params"] + found["grads"] + found["states"]
    assert abs(found["resident"] - tensors) < SLACK, "what is resident is what the tensors hold"
    assert found["resident"] <= limit * found["numel"], f"{found['resident'] / found['numel']:.3f} B a parameter"
    gradient = LARGEST_GRADIENT if release else 0  # where they are kept, all of them are in `tensors`
    above = found["peak"] - tensors - gradient - found["workspace"]
    assert above <= ACTIVATIONS + SLACK, f"{above / MIB:.1f} MiB above tensors, gradient and workspace, {found}"


@pytest.mark.parametrize("bits", [None, 24, 32])
@pytest.mark.parametrize("shape", [(), (0, 5), (3, 4), (700, 100), (2, 30_000), (50_001,), (9, 100, 40)])
def test_a_weight_written_in_pieces(shape: tuple[int, ...], bits: int | None) -> None:
    param, storage = torch.randn(shape).bfloat16(), Storage("wide", bits)
    state = {key: torch.randint(0, 100, size).to(dtype) for key, (dtype, size) in stored.parts(storage, param).items()}
    found = stored.write_weight(torch.full(shape, torch.nan), storage, state, param)
    assert torch.equal(found, stored.weight(storage, state, param))
