"""What the device can do at most, measured in each run: move bytes in its memory, and multiply matrices."""

from __future__ import annotations

import statistics
import time

import torch

from adamas.bench.measure import Party
from benchmarks.gpu.machine import Machine

REPEATS = 20
WARM_UP = 0.3  # seconds, in which an idle device raises its clocks


def copy_bandwidth(machine: Machine, size: int) -> float:
    """Bytes a second of a copy of `size` bytes, those read and those written: the median of some."""
    source = torch.empty(size // 4, device=machine.device).normal_()
    target = torch.empty_like(source)
    return 2 * size / _median(machine, Party(lambda: target.copy_(source)))


def matrix_rate(machine: Machine, size: int) -> float:
    """Operations a second of a product of random square bfloat16 matrices: the median of some."""
    a, b = (torch.empty(size, size, dtype=torch.bfloat16, device=machine.device).normal_() for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / _median(machine, Party(lambda: torch.mm(a, b, out=out)))


def _median(machine: Machine, party: Party) -> float:
    start = time.perf_counter()
    while time.perf_counter() - start < (WARM_UP if machine.device.type == "cuda" else 0):
        party.call()
        machine.synchronize()
    return statistics.median(machine.seconds(party, REPEATS))
