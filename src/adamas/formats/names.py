"""What the rest of the library asks about formats without loading the codecs: names, and how a parameter is stored."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

# The stored arrays of each format, in the kernels' order; `adamas.formats.moments` says what is in them.
BITS = {"packed16": (9, 7), "packed12": (7, 5)}  # of v and of m in a packed word
PACKED = tuple(BITS)
GRIDS = ("exp_avg_scale", "exp_avg_sq_low", "exp_avg_sq_high")
WIDE = ("exp_avg", "exp_avg_sq")
PARTS = {"wide": WIDE, "bfloat16": WIDE, "float16": WIDE, **{name: (name, *GRIDS) for name in PACKED}}

SMALLEST, NARROWEST = 4096, 64  # elements of a tensor, and of a row, below which moments stay float32


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """A shape with all but its first dimension as one.

    Example:
        >>> rows_and_columns((8, 3, 5)), rows_and_columns((7,)), rows_and_columns(())
        ((8, 15), (7, 1), (1, 1))
    """
    return (shape[0] if shape else 1), prod(shape[1:])


def is_large(shape: tuple[int, ...]) -> bool:
    """Whether moments of such a parameter are worth storing in fewer bits; one-dimensional ones have rows of 1."""
    return prod(shape) >= SMALLEST and rows_and_columns(shape)[1] >= NARROWEST


class Storage(NamedTuple):
    """How the moments and the weight of a parameter are stored.

    Args:
        moments: "wide" for float32, or the dtype of a wider parameter; else a format of `adamas.formats.moments`.
        master_bits: 24 or 32 where a bfloat16 parameter is the upper part of a longer weight.
        stochastic: whether a weight of 16 or 24 bits is rounded without bias instead of to nearest.
    """

    moments: str = "wide"
    master_bits: int | None = None
    stochastic: bool = False

    @property
    def random(self) -> bool:
        """Whether a step draws random bits."""
        return self.moments in ("bfloat16", "packed16", "packed12") or (self.stochastic and self.master_bits != 32)

    @property
    def plain(self) -> bool:
        """Whether moments are wide, and weights are rounded to nearest without a master."""
        return self == PLAIN


PLAIN = Storage()


def state_names(amsgrad: bool, averages: bool, storage: Storage = PLAIN) -> tuple[str, ...]:
    """The keys of the tensors in a state that a step writes, in the kernels' order; `step` is not among them."""
    return (
        *PARTS[storage.moments],
        *(("param_low",) if storage.master_bits else ()),
        *(("max_exp_avg_sq",) if amsgrad else ()),
        *(("ema",) if averages else ()),
    )
