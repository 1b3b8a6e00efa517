from __future__ import annotations

from typing import Any

import pytest

from adamas.bench.measure import Effort
from benchmarks.gpu.compare import Bench
from benchmarks.gpu.machine import Cpu
from benchmarks.gpu.result import Result
from benchmarks.gpu.row import Figures, PeakBytes, PeakRow, Row, Side
from benchmarks.gpu.shapes import TINY

BRIEF = Effort(rounds=5, turn_seconds=1e-4)
SMI = {"driver_version": "580.1", "clocks.sm": "1980", "clocks.mem": "3201", "clocks.max.sm": "1980"}


def made_up(ratio: float = 0.5, bandwidth: float = 0.9, **fields: Any) -> Row:
    """A finished row without measuring."""
    given: dict[str, Any] = {
        "scenario": "16 x 64 M",
        "work": "step",
        "tensors": 16,
        "parameters": 2**30,
        "format": "float32",
        "peer": "torch-fused",
        "peer_dtype": "float32",
        "clock": "device",
        "limits": {"ratio": 1.0, "bandwidth": 0.85},
        "figures": Figures(
            Side(0.005, None, 3.0, 2.5, 8.0, bandwidth, "triton"),
            Side(0.005 / ratio, None, 0.1, 5.0, 8.0, bandwidth * ratio),
            ratio,
            ratio * 0.9,
            ratio * 1.1,
        ),
    }
    return Row(**{**given, **fields})


def made_up_peak(later: float = 7.1, **fields: Any) -> PeakRow:
    given: dict[str, Any] = {"limit": 7.2, "figures": PeakBytes(later - 0.01, later, 7.05)}
    return PeakRow("1 B transformer", 10**9, "adamas", "24-bit masters, packed16", False, **{**given, **fields})


def made_up_result(rows: list[Row], peaks: list[PeakRow], complete: bool = True, dry: bool = False) -> Result:
    device = {"name": "NVIDIA H200", "smi": SMI}
    ceilings = {"copy_bandwidth": 4.3e12, "matrix_rate": 7.9e14}
    return Result(dry, complete, 200.0, 7, {"torch": "2.11.0"}, device, ceilings, rows, peaks)


@pytest.fixture
def bench() -> Bench:
    """What measures on the CPU, at next to no size."""
    return Bench(Cpu(), BRIEF, 1e9, TINY, judged=False)
