"""The scenarios: which tensors are stepped, how they are stored, and beside which peers; a user's own shapes too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

from torch import nn

from adamas import user_code

Shape = tuple[int, ...]
Work = Literal["step", "ten steps", "phase", "peak", "released peak"]

DTYPES = ("float32", "bfloat16", "float16", "float64")
PEAKS = ("peak", "released peak")  # the kinds of work that measure memory instead of time
# Keys of `Scenario.limits`: of our time to that of moving the same bytes, and of our first call to the peer's.
MEMORY, FIRST = "memory", "first"
STEPS = 10  # of the work "ten steps"

TERM = re.compile(r"(?:(\d+)x)?\(([\d, ]*)\)")  # a term in the notation of shapes
# The built-in lists of shapes by the names that tables show, in the notation of `--shapes`.
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
        name: the name that tables show.
        shapes: shapes of the parameters, one after another.
        dtype: dtype of our parameters and gradients, in torch's words.
        work: "step"; "ten steps", in one function where the framework compiles loops; "phase", which is all that a
            loop does between backward and the next batch (clip the global norm of the gradients, step, update the
            average of the weights, clear the gradients); "peak", the most memory of a step; or "released peak", the
            same where gradients are released in backward.
        limits: highest allowed ratio of our time to a peer's, by the peer's name, or to that of the memory pass.
        storage: options of `AdamW` for our state and weights: `state_dtype`, `master_weight_bits`,
            `stochastic_rounding`.
        peers: names of the peers to compare with; empty for all.
        format: name of our storage in tables; None where the dtype says it.
        peer_dtype: dtype of the peer's parameters and gradients; None where it is ours.
        clock: "device", or "host" where the host takes longer than the device; on a CPU both are the same.
    """

    name: str
    shapes: tuple[Shape, ...]
    dtype: str = "float32"
    work: Work = "step"
    limits: Mapping[str, float] = field(default_factory=dict[str, float])
    storage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    peers: tuple[str, ...] = ()
    format: str | None = None
    peer_dtype: str | None = None
    clock: Literal["device", "host"] = "device"

    def __post_init__(self) -> None:
        """Refuse scenarios that cannot be measured."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r} is not measured; the known ones are: {', '.join(DTYPES)}")
        if not self.parameters:
            raise ValueError(f"shapes={list(self.shapes)} hold no parameter: there is nothing to step")

    @property
    def lossy(self) -> bool:
        """Whether our moments have fewer bits than float32, so that we follow the rule only in the mean."""
        return self.storage.get("state_dtype", "float32") not in ("float32", "param")

    @property
    def parameters(self) -> int:
        """Number of weights in all tensors."""
        return sum(prod(shape) for shape in self.shapes)

    @property
    def theirs(self) -> Scenario:
        """The scenario that the peer is asked for: the same shapes and work in the peer's dtype."""
        return replace(self, dtype=self.peer_dtype or self.dtype, storage={})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scenario:
        """Return the scenario of fields that went through JSON."""
        fields = dict(data)
        fields["shapes"] = tuple(tuple(shape) for shape in data["shapes"])
        fields["peers"] = tuple(data["peers"])
        return cls(**fields)


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """Return the shapes that a text lists.

    Raises:
        ValueError: `text` is no list of shapes; the message shows one.

    Example:
        >>> parse_shapes("2x(20,20) (16)")
        ((20, 20), (20, 20), (16,))
    """
    shapes: list[Shape] = []
    rest = TERM.sub(" ", text).split()
    if rest or not TERM.search(text):
        raise ValueError(
            f"shapes={text!r}: {rest[0] if rest else 'nothing'!r} is no shape; write count x (sizes), separated by "
            "spaces, as in '24x(20,20) 24x(16)'"
        )
    for count, sizes in TERM.findall(text):
        shape = tuple(int(size) for size in sizes.replace(",", " ").split())
        shapes += [shape] * (int(count) if count else 1)
    return tuple(shapes)


def model_shapes(where: str) -> tuple[Shape, ...]:
    """Return the shapes of the trainable parameters of the model that a function makes.

    Args:
        where: "path/to/file.py:factory" or "package.module:factory"; the function takes no arguments and returns an
            nn.Module.

    Raises:
        ValueError: the function is missing, or it does not return a model with trainable parameters.
    """
    factory = user_code.function(where, "model", "an nn.Module")
    name = where.rpartition(":")[2]
    try:
        model = factory()
    except Exception as error:
        raise ValueError(
            f"model={where!r}: {name}() raised {type(error).__name__}: {error}; it is called without arguments"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={where!r}: {name}() returned a {type(model).__name__}; it must return an nn.Module")
    shapes = tuple(tuple(param.shape) for param in model.parameters() if param.requires_grad)
    if not shapes:
        raise ValueError(f"model={where!r}: the model has no trainable parameter; there is nothing to step")
    return shapes
