"""What is measured on a GPU, the most important first, with the limits that a change must keep to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from adamas.bench.scenario import Scenario, Shape, Work
from benchmarks.gpu.shapes import LARGE, MODEL, ONE, SHAPES, SMALL

FUSED, FOREACH, FLASH = "torch-fused", "torch-foreach", "flashoptim"
OURS = "adamas"
F32, PACKED16, BRIEF = "float32", "packed16", "bfloat16 moments"
LEAN, LEANEST, MASTERS24, MASTERS32 = (
    "24-bit masters, packed16",
    "24-bit masters, packed12",
    "24-bit masters",
    "32-bit masters",
)


@dataclass(frozen=True)
class Format:
    """How ours stores parameters and state.

    Attributes:
        dtype: of parameters and gradients.
        storage: what `AdamW` is given for it.
    """

    dtype: str
    storage: Mapping[str, Any] = field(default_factory=dict[str, Any])


FORMATS = {
    F32: Format("float32"),
    PACKED16: Format("float32", {"state_dtype": "packed16"}),
    BRIEF: Format("float32", {"state_dtype": "bfloat16"}),
    LEAN: Format("bfloat16", {"state_dtype": "packed16", "master_weight_bits": 24}),
    LEANEST: Format("bfloat16", {"state_dtype": "packed12", "master_weight_bits": 24}),
    MASTERS24: Format("bfloat16", {"master_weight_bits": 24}),
    MASTERS32: Format("bfloat16", {"master_weight_bits": 32}),
}


@dataclass(frozen=True)
class Comparison:
    """One of our formats beside a peer.

    Attributes:
        scenario: a key of `shapes.SHAPES`.
        work: "step" or "phase".
        format: a key of `FORMATS`.
        peer: its name.
        peer_dtype: of the peer's parameters: float32 where ours has as good weights in fewer bits.
    """

    scenario: str
    work: Work
    format: str
    peer: str
    peer_dtype: str = "float32"

    @property
    def limits(self) -> dict[str, float]:
        """Highest ratio of our time to the peer's, and lowest share of the copy bandwidth that ours is to reach."""
        limits: dict[str, float] = {}
        ratio = self._ratio()
        if ratio is not None:
            limits["ratio"] = ratio
        rated = (self.scenario, self.work, self.peer, self.peer_dtype) == (LARGE, "step", FUSED, "float32")
        if rated and self.format in (F32, PACKED16, LEAN):
            limits["bandwidth"] = 0.85
        return limits

    def _ratio(self) -> float | None:
        if self.peer == FLASH and self.format == LEAN:
            return 1 / 1.5
        if self.peer != FUSED:
            return None
        if self.scenario == SMALL:
            return 1 / 2
        if self.peer_dtype == "bfloat16" and self.format == MASTERS32:
            return None  # 26 bytes a weight have to move, and 14 of torch's, which keeps no masters
        if (self.scenario, self.work, self.format, self.peer_dtype) == (LARGE, "step", LEAN, "float32"):
            return 1 / 1.8
        return 1.0

    def ours(self, shapes: Mapping[str, tuple[Shape, ...]] = SHAPES) -> Scenario:
        """What ours is asked for."""
        form = FORMATS[self.format]
        return Scenario(self.scenario, shapes[self.scenario], form.dtype, self.work, storage=dict(form.storage))

    def theirs(self, shapes: Mapping[str, tuple[Shape, ...]] = SHAPES) -> Scenario:
        """What the peer is asked for."""
        return Scenario(self.scenario, shapes[self.scenario], self.peer_dtype, self.work)

    def __str__(self) -> str:
        beside = self.peer if self.peer_dtype == "float32" else f"{self.peer} in {self.peer_dtype}"
        return f"{self.scenario}, {self.work}, {self.format} beside {beside}"


@dataclass(frozen=True)
class Peak:
    """The memory of a training step of the transformer: parameters, gradients, state and what the step itself takes.

    Attributes:
        who: `OURS`, or a peer's name.
        format: a key of `FORMATS` for ours, a dtype of the parameters for a peer.
        released: whether gradients are released in backward: then there is one at a time.
    """

    who: str
    format: str
    released: bool = False

    @property
    def limit(self) -> float | None:
        """Bytes a weight, at the peak."""
        if (self.who, self.format) != (OURS, LEAN):
            return None
        if not self.released:
            return 7.2
        shapes = SHAPES[MODEL]
        return 5.2 + 2 * max(map(prod, shapes)) / sum(map(prod, shapes))  # and the largest gradient

    def scenario(self, shapes: Mapping[str, tuple[Shape, ...]] = SHAPES) -> Scenario:
        """What is stepped."""
        form = FORMATS[self.format] if self.who == OURS else Format(self.format)
        return Scenario(MODEL, shapes[MODEL], form.dtype, "step", storage=dict(form.storage))

    def __str__(self) -> str:
        released = ", gradients released" if self.released else ""
        return f"memory of {MODEL}, {self.who}, {self.format}{released}"


Task = Comparison | Peak


def plan() -> list[Task]:
    """All tasks: what has a limit first, then what a reader wants beside it."""
    return list(dict.fromkeys([*limited(), *wanted()]))


def limited() -> Iterator[Task]:
    """What the limits need."""
    yield Comparison(LARGE, "step", F32, FUSED)
    yield Comparison(LARGE, "step", LEAN, FUSED)
    yield Comparison(SMALL, "step", F32, FUSED)
    yield Comparison(SMALL, "phase", F32, FUSED)
    yield Comparison(LARGE, "step", PACKED16, FUSED)
    yield Comparison(LARGE, "step", LEAN, FLASH, "bfloat16")
    yield Peak(OURS, LEAN)
    yield Peak(OURS, LEAN, released=True)
    for work in ("step", "phase"):
        for form in (F32, LEAN):
            yield Comparison(MODEL, work, form, FUSED)


def wanted() -> Iterator[Task]:
    """What shows where the figures stand: losing rows are published too."""
    for form in (F32, PACKED16, LEAN):
        yield Comparison(LARGE, "phase", form, FUSED)
    for form in (BRIEF, LEANEST, MASTERS32):
        yield Comparison(LARGE, "step", form, FUSED)
    for form in (LEAN, LEANEST, MASTERS32):
        yield Comparison(LARGE, "step", form, FUSED, "bfloat16")
    for form in (F32, PACKED16, LEAN):
        yield Comparison(ONE, "step", form, FUSED)
    yield Comparison(SMALL, "step", MASTERS24, FUSED)
    yield Peak(FUSED, "float32")
    yield Peak(FUSED, "bfloat16")
    yield Peak(FLASH, "bfloat16")
    for scenario, work in ((LARGE, "step"), (MODEL, "phase"), (SMALL, "step"), (SMALL, "phase")):
        yield Comparison(scenario, work, F32, FOREACH)
    yield Comparison(MODEL, "step", LEAN, FLASH, "bfloat16")
    for scenario in (LARGE, SMALL):
        for peer in ("apex-fused", "optimi"):
            yield Comparison(scenario, "step", F32, peer)
    yield Comparison(LARGE, "step", PACKED16, "bitsandbytes-8bit")
    yield Comparison(LARGE, "step", LEAN, "bitsandbytes-8bit", "bfloat16")
    yield Comparison(LARGE, "step", PACKED16, "torchao-8bit")  # compiled for each shape: last
    yield Comparison(LARGE, "step", PACKED16, "torchao-4bit")
