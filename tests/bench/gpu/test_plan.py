"""What is measured on a GPU, and its limits."""

from __future__ import annotations

from math import prod

import pytest

from adamas.bench.peers import PEERS
from adamas.bench.scenario import MEMORY
from benchmarks.gpu.plan import (
    BF16,
    CHECKED,
    F32,
    FLASH,
    FOREACH,
    FORMATS,
    FUSED,
    LARGE,
    LEAN,
    MASTERS32,
    MODEL,
    ONE,
    OURS,
    PACKED16,
    PLAN,
    SHAPES,
    SMALL,
    TINY,
    Task,
    limits,
    tasks_of,
    transformer,
)


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
    assert sum(map(prod, CHECKED)) <= 2**20


def test_the_plan_begins_with_what_has_limits_and_repeats_nothing() -> None:
    assert len(set(PLAN)) == len(PLAN) == 41
    assert all(limits(task) for task in PLAN[:12])
    assert {(MODEL, "peak"), (MODEL, "released peak")} <= {task[:2] for task in PLAN[:12]}


def test_every_format_and_shape_is_in_the_plan() -> None:
    assert {task[2] for task in PLAN} == FORMATS.keys()
    assert {task[0] for task in PLAN} == SHAPES.keys()
    assert {task[3] for task in PLAN} <= {*PEERS, OURS}
    assert {(MODEL, "phase"), (LARGE, "phase"), (SMALL, "phase")} <= {task[:2] for task in PLAN}


def test_a_task_is_a_scenario_with_a_peer() -> None:
    (first, peer), (second, _) = tasks_of()[:2]
    assert (first.name, first.dtype, peer, first.limits) == (LARGE, F32, FUSED, limits(PLAN[0]))
    assert (second.dtype, second.theirs.dtype, second.format, second.lossy) == (BF16, F32, LEAN, True)
    assert second.theirs.storage == {}
    assert {scenario.clock for scenario, _ in tasks_of() if scenario.name == SMALL} == {"host"}
    assert {scenario.clock for scenario, _ in tasks_of() if scenario.name != SMALL} == {"device"}
    assert not any(scenario.limits for scenario, _ in tasks_of(TINY, judged=False))


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ((LARGE, "step", F32, FUSED, F32), {FUSED: 1.0, MEMORY: 1 / 0.85}),
        ((LARGE, "step", PACKED16, FUSED, F32), {FUSED: 1.0, MEMORY: 1 / 0.85}),
        ((LARGE, "step", LEAN, FUSED, F32), {FUSED: 1 / 1.8, MEMORY: 1 / 0.85}),
        ((LARGE, "step", LEAN, FUSED, BF16), {FUSED: 1.0}),
        ((LARGE, "step", LEAN, FLASH, BF16), {FLASH: 1 / 1.5}),
        ((LARGE, "step", MASTERS32, FUSED, BF16), {}),
        ((LARGE, "step", F32, FOREACH, F32), {}),
        ((LARGE, "phase", F32, FUSED, F32), {FUSED: 1.0}),
        ((SMALL, "phase", F32, FUSED, F32), {FUSED: 0.5}),
        ((MODEL, "phase", LEAN, FUSED, F32), {FUSED: 1.0}),
        ((MODEL, "peak", LEAN, OURS, F32), {OURS: 7.2}),
        ((MODEL, "peak", F32, FUSED, F32), {}),
    ],
    ids=str,
)
def test_limits(task: Task, wanted: dict[str, float]) -> None:
    assert task in PLAN
    assert limits(task) == wanted


def test_the_limit_of_released_gradients_has_room_for_the_largest() -> None:
    largest = 2 * 32_000 * 2048 / sum(map(prod, transformer()))
    assert limits((MODEL, "released peak", LEAN, OURS, F32)) == {OURS: pytest.approx(5.2 + largest)}
