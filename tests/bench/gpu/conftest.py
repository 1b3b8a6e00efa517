from __future__ import annotations

from typing import Any

import pytest

from adamas.bench.clock import Effort
from adamas.bench.device import Cpu
from adamas.bench.harness import Harness
from adamas.bench.result import Result
from adamas.bench.row import Figures, Peak, Row, Side
from adamas.bench.scenario import Scenario
from benchmarks.gpu.plan import CHECKED, TINY, tasks_of

BRIEF = Effort(rounds=5, turn_seconds=1e-4)
SMI = {"driver_version": "580.1", "clocks.sm": "1980", "clocks.mem": "3201", "clocks.max.sm": "1980"}


def made_up(ratio: float = 0.5, memory_ratio: float = 1.1, **fields: Any) -> Row:
    """A finished row without measuring."""
    given: dict[str, Any] = {
        "scenario": "16 x 64 M",
        "work": "step",
        "dtype": "float32",
        "tensors": 16,
        "parameters": 2**30,
        "peer": "torch-fused",
        "versions": {"torch": "2.11.0"},
        "limit": 1.0,
        "memory_limit": 1 / 0.85,
        "format": "float32",
        "peer_dtype": "float32",
        "figures": Figures(
            Side(0.005, 2.5, 8.0, None, 3.0, "triton"),
            Side(0.005 / ratio, 5.0, 8.0, None, 0.1),
            ratio,
            ratio * 0.9,
            ratio * 1.1,
            memory_ratio,
        ),
    }
    return Row(**{**given, **fields})


def made_up_peak(later: float = 7.1, measured: bool = True, **fields: Any) -> Row:
    peak = Peak(fields.pop("first", later - 0.01), later, 7.05) if measured else None
    given = {"work": "peak", "peer": "adamas", "format": "24-bit masters, packed16", "limit": 7.2}
    return made_up(scenario="1 B transformer", figures=None, peak=peak, **{**given, **fields})


def made_up_result(rows: list[Row], complete: bool = True, dry: bool = False) -> Result:
    machine = {"processor": "NVIDIA H200", "smi": SMI, **({"dry": True} if dry else {})}
    return Result({"torch": "2.11.0"}, machine, 7, complete, rows, 200.0)


def task(shapes: str, work: str, form: str, peer: str, peer_dtype: str = "float32") -> Scenario:
    """One row of the plan at tiny size, without limits."""
    (found,) = (
        scenario
        for scenario, name in tasks_of(TINY, judged=False)
        if (scenario.name, scenario.work, scenario.format, name, scenario.peer_dtype)
        == (shapes, work, form, peer, peer_dtype)
    )
    return found


@pytest.fixture
def harness() -> Harness:
    """What measures on the CPU as on a GPU: checks and timings on tensors of their own."""
    return Harness(Cpu(), BRIEF, CHECKED)
