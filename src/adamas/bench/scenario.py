"""What is stepped: shapes of parameters, their dtype, and whether a step or a whole phase is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any, Literal

Shape = tuple[int, ...]
Work = Literal["step", "phase"]

DTYPES = ("float32", "bfloat16", "float16", "float64")
MEMORY = "memory"  # in `Scenario.limits`: the limit beside the memory pass, which is no peer

# Named in the words of their tables; in the notation of `--shapes`.
SHAPES = {
    "48 tensors, 10 k": "24x(20,20) 24x(16)",
    "144 tensors, 0.6 M": "72x(128,64) 72x(128)",
    "144 tensors, 9.5 M": "72x(512,256) 72x(512)",
    "16 x 1 M": "16x(1024,1024)",
}


@dataclass(frozen=True)
class Scenario:
    """Parameters and what is done with them.

    Attributes:
        name: for tables.
        shapes: of the parameters, one after another.
        dtype: of parameters and gradients, in torch's words.
        work: "step", or "phase": all that a loop does between backward and the next batch (clip the global norm of
            the gradients, step, update the average of the weights, clear the gradients).
        limits: highest allowed ratio of our time to a peer's, by the peer's name, or to the memory pass's.
        storage: how ours stores state and weights: `state_dtype`, `master_weight_bits`, `stochastic_rounding`.
        peers: names of those it is measured beside; empty for all.
    """

    name: str
    shapes: tuple[Shape, ...]
    dtype: str = "float32"
    work: Work = "step"
    limits: Mapping[str, float] = field(default_factory=dict[str, float])
    storage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not measured; the known ones are: {', '.join(DTYPES)}")
        if not self.parameters:
            raise ValueError(f"shapes={list(self.shapes)} hold no parameter: there is nothing to step")

    @property
    def lossy(self) -> bool:
        """Whether ours stores moments in fewer bits, and so follows the rule only in the mean."""
        return self.storage.get("state_dtype", "float32") not in ("float32", "param")

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(prod(shape) for shape in self.shapes)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scenario:
        """From plain data."""
        fields = dict(data)
        fields["shapes"] = tuple(tuple(shape) for shape in data["shapes"])
        fields["peers"] = tuple(data["peers"])
        return cls(**fields)
