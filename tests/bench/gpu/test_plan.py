"""What is measured on a GPU, and its limits."""

from __future__ import annotations

from math import prod

import pytest

from adamas.bench.peers import PEERS
from benchmarks.gpu.plan import (
    F32,
    FLASH,
    FORMATS,
    FUSED,
    LEAN,
    MASTERS32,
    OURS,
    PACKED16,
    Comparison,
    Peak,
    limited,
    plan,
)
from benchmarks.gpu.shapes import LARGE, MODEL, ONE, SHAPES, SMALL, TINY, TWIN, transformer


def test_the_transformer_has_a_billion_parameters() -> None:
    shapes = transformer()
    assert sum(map(prod, shapes)) == 2 * 32_000 * 2048 + 2048 + 18 * (4 * 2048**2 + 3 * 2048 * 5632 + 2 * 2048)
    assert 1.0e9 < sum(map(prod, shapes)) < 1.2e9
    assert len(shapes) == 3 + 18 * 9


def test_scenarios_are_as_large_as_their_names_say() -> None:
    assert sum(map(prod, SHAPES[LARGE])) == sum(map(prod, SHAPES[ONE])) == 2**30
    assert (len(SHAPES[LARGE]), len(SHAPES[ONE]), len(SHAPES[SMALL])) == (16, 1, 1000)
    assert {prod(shape) for shape in SHAPES[SMALL]} == {1024}
    assert TINY.keys() == SHAPES.keys()
    assert sum(map(prod, TWIN)) <= 2**20


def test_the_plan_begins_with_what_has_limits_and_repeats_nothing() -> None:
    tasks = plan()
    assert len(set(tasks)) == len(tasks)
    first = list(limited())
    assert tasks[: len(first)] == first
    assert all(task.limits if isinstance(task, Comparison) else task.limit for task in first)


def test_every_format_and_scenario_is_in_the_plan() -> None:
    comparisons = [task for task in plan() if isinstance(task, Comparison)]
    assert {task.format for task in comparisons} == FORMATS.keys()
    assert {task.scenario for task in comparisons} == SHAPES.keys()
    assert {task.peer for task in comparisons} <= PEERS.keys()
    assert {(MODEL, "phase"), (LARGE, "phase"), (SMALL, "phase")} <= {
        (task.scenario, task.work) for task in comparisons
    }


@pytest.mark.parametrize(
    ("task", "limits"),
    [
        (Comparison(LARGE, "step", F32, FUSED), {"ratio": 1.0, "bandwidth": 0.85}),
        (Comparison(LARGE, "step", PACKED16, FUSED), {"ratio": 1.0, "bandwidth": 0.85}),
        (Comparison(LARGE, "step", LEAN, FUSED), {"ratio": 1 / 1.8, "bandwidth": 0.85}),
        (Comparison(LARGE, "step", LEAN, FUSED, "bfloat16"), {"ratio": 1.0}),
        (Comparison(LARGE, "step", LEAN, FLASH, "bfloat16"), {"ratio": 1 / 1.5}),
        (Comparison(LARGE, "step", MASTERS32, FUSED, "bfloat16"), {}),
        (Comparison(LARGE, "step", F32, "torch-foreach"), {}),
        (Comparison(LARGE, "phase", F32, FUSED), {"ratio": 1.0}),
        (Comparison(SMALL, "phase", F32, FUSED), {"ratio": 0.5}),
        (Comparison(MODEL, "phase", LEAN, FUSED), {"ratio": 1.0}),
    ],
    ids=str,
)
def test_limits(task: Comparison, limits: dict[str, float]) -> None:
    assert task.limits == limits


def test_limits_of_memory() -> None:
    assert Peak(OURS, LEAN).limit == 7.2
    released = Peak(OURS, LEAN, released=True).limit
    assert released == pytest.approx(5.2 + 2 * 32_000 * 2048 / sum(map(prod, transformer())))
    assert Peak(FUSED, "float32").limit is None
