"""The project's own rows, with the limits that a change must keep to."""

from __future__ import annotations

from adamas.bench.scenario import MEMORY, SHAPES, Scenario
from adamas.bench.shapes import parse_shapes

BEST_TORCH = "torch-fused"


def scenario(name: str, work: str, limits: dict[str, float] | None = None, dtype: str = "float32") -> Scenario:
    return Scenario(name, parse_shapes(SHAPES[name]), dtype, work, limits or {})


SCENARIOS = [
    scenario("48 tensors, 10 k", "phase", {BEST_TORCH: 1 / 8}),
    scenario("144 tensors, 0.6 M", "phase", {BEST_TORCH: 1 / 4}),
    scenario("144 tensors, 9.5 M", "phase", {BEST_TORCH: 1 / 1.85}),
    scenario("48 tensors, 10 k", "step", {BEST_TORCH: 0.20}),
    scenario("144 tensors, 0.6 M", "step", {BEST_TORCH: 0.50}),
    scenario("144 tensors, 9.5 M", "step"),
    scenario("16 x 1 M", "step", {BEST_TORCH: 1.05, MEMORY: 1.15}),
    scenario("16 x 1 M", "step", dtype="bfloat16"),
    scenario("16 x 1 M", "step", dtype="float16"),
    scenario("16 x 1 M", "step", dtype="float64"),
]
