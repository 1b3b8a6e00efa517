"""What is measured on a GPU, the most important first, and the limits that a change must keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from adamas.bench.scenario import MEMORY, Scenario, Shape, Work

LARGE, ONE, MODEL, SMALL = "16 x 64 M", "1 x 1 G", "1 B transformer", "1,000 x 1 k"
FUSED, FOREACH, FLASH, APEX, OURS = "torch-fused", "torch-foreach", "flashoptim", "apex-fused", "adamas"
F32, BF16, PACKED16, MOMENTS16 = "float32", "bfloat16", "packed16", "bfloat16 moments"
MASTERS24, MASTERS32 = "24-bit masters", "32-bit masters"
LEAN, LEANEST = "24-bit masters, packed16", "24-bit masters, packed12"

# Our dtype and the options of `AdamW` for each format. A peer's row of memory names its dtype instead.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    F32: (F32, {}),
    BF16: (BF16, {}),
    PACKED16: (F32, {"state_dtype": "packed16"}),
    MOMENTS16: (F32, {"state_dtype": "bfloat16"}),
    LEAN: (BF16, {"state_dtype": "packed16", "master_weight_bits": 24}),
    LEANEST: (BF16, {"state_dtype": "packed12", "master_weight_bits": 24}),
    MASTERS24: (BF16, {"master_weight_bits": 24}),
    MASTERS32: (BF16, {"master_weight_bits": 32}),
}


def transformer(vocabulary: int = 32_000, width: int = 2048, layers: int = 18, hidden: int = 5632) -> tuple[Shape, ...]:
    """Return the shapes of a Llama-like decoder: 1.06 B parameters in 165 tensors.

    Each layer has the projections q, k, v and o, those of the gated feed-forward block (gate, up, down) and two norms.
    An embedding, a norm at the end and a head that is not tied to the embedding come on top. `hidden` is the width
    inside of the feed-forward blocks.
    """
    attention = ((width, width),) * 4
    feed_forward = ((hidden, width), (hidden, width), (width, hidden))
    layer = (*attention, *feed_forward, (width,), (width,))
    return ((vocabulary, width), *layer * layers, (width,), (vocabulary, width))


SHAPES: dict[str, tuple[Shape, ...]] = {
    LARGE: ((8192, 8192),) * 16,
    ONE: ((32_768, 32_768),),
    MODEL: transformer(),
    SMALL: ((32, 32),) * 1000,
}
# The same kinds of tensors with few elements, for `--dry-run`.
TINY: dict[str, tuple[Shape, ...]] = {
    LARGE: ((64, 128),) * 4,
    ONE: ((128, 256),),
    MODEL: transformer(vocabulary=80, width=64, layers=2, hidden=96),
    SMALL: ((4, 8),) * 20,
}
# The tensors on which implementations are checked, together less than 1 M elements: rows that no block divides, a
# vector and a single element. A billion weights would take minutes in float64.
CHECKED: tuple[Shape, ...] = ((512, 1024), (255, 257), (64, 4097), (333,), (1,))

# Shapes, work, our format, peer, and the dtype of the peer's parameters. Rows with limits come first. A peer in float32
# beside ours in bfloat16 has weights of about the same quality.
Task = tuple[str, Work, str, str, str]
PLAN: list[Task] = [
    (LARGE, "step", F32, FUSED, F32),
    (LARGE, "step", LEAN, FUSED, F32),
    (SMALL, "step", F32, FUSED, F32),
    (SMALL, "phase", F32, FUSED, F32),
    (LARGE, "step", PACKED16, FUSED, F32),
    (LARGE, "step", LEAN, FLASH, BF16),
    (MODEL, "peak", LEAN, OURS, F32),
    (MODEL, "released peak", LEAN, OURS, F32),
    (MODEL, "step", F32, FUSED, F32),
    (MODEL, "step", LEAN, FUSED, F32),
    (MODEL, "phase", F32, FUSED, F32),
    (MODEL, "phase", LEAN, FUSED, F32),
    *((LARGE, "phase", form, FUSED, F32) for form in (F32, PACKED16, LEAN)),
    *((LARGE, "step", form, FUSED, F32) for form in (MOMENTS16, LEANEST, MASTERS32)),
    *((LARGE, "step", form, FUSED, BF16) for form in (LEAN, LEANEST, MASTERS32)),
    *((ONE, "step", form, FUSED, F32) for form in (F32, PACKED16, LEAN)),
    (SMALL, "step", MASTERS24, FUSED, F32),
    (MODEL, "peak", F32, FUSED, F32),
    (MODEL, "peak", BF16, FUSED, BF16),
    (MODEL, "peak", BF16, FLASH, BF16),
    (LARGE, "step", F32, FOREACH, F32),
    (MODEL, "phase", F32, FOREACH, F32),
    (SMALL, "step", F32, FOREACH, F32),
    (SMALL, "phase", F32, FOREACH, F32),
    (MODEL, "step", LEAN, FLASH, BF16),
    *((shapes, "step", F32, peer, F32) for shapes in (LARGE, SMALL) for peer in (APEX, "optimi")),
    (LARGE, "step", PACKED16, "bitsandbytes-8bit", F32),
    (LARGE, "step", LEAN, "bitsandbytes-8bit", BF16),
    (LARGE, "step", PACKED16, "torchao-8bit", F32),  # torchao compiles for each shape, and so comes last
    (LARGE, "step", PACKED16, "torchao-4bit", F32),
]


def tasks_of(shapes: Mapping[str, tuple[Shape, ...]] = SHAPES, judged: bool = True) -> list[tuple[Scenario, str]]:
    """Return the plan as scenarios with their peers; limits only where figures mean something."""
    tasks: list[tuple[Scenario, str]] = []
    for name, work, form, peer, peer_dtype in PLAN:
        dtype, storage = FORMATS[form]
        held = limits((name, work, form, peer, peer_dtype)) if judged else {}
        clock = "host" if name == SMALL else "device"
        scenario = Scenario(name, shapes[name], dtype, work, held, storage)
        tasks.append((replace(scenario, format=form, peer_dtype=peer_dtype, clock=clock), peer))
    return tasks


def limits(task: Task) -> dict[str, float]:
    """Return the highest ratio to the peer's time and to that of moving the same bytes, or the most bytes a weight."""
    shapes, work, form, peer, peer_dtype = task
    if peer == OURS:
        largest = max(map(prod, SHAPES[MODEL])) / sum(map(prod, SHAPES[MODEL]))
        return {OURS: 7.2 if work == "peak" else 5.2 + 2 * largest}  # released: one gradient at a time is there
    if peer == FLASH and form == LEAN:
        return {FLASH: 1 / 1.5}
    # torch keeps no masters beside bfloat16: it moves 14 bytes a weight, and 32-bit masters move 26.
    if peer != FUSED or work == "peak" or (form, peer_dtype) == (MASTERS32, BF16):
        return {}
    large_step = (shapes, work, peer_dtype) == (LARGE, "step", F32)
    ratio = 1 / 2 if shapes == SMALL else 1 / 1.8 if large_step and form == LEAN else 1.0
    memory = {MEMORY: 1 / 0.85} if large_step and form in (F32, PACKED16, LEAN) else {}
    return {FUSED: ratio, **memory}
