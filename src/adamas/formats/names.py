"""What is said of the formats without loading them: their parts' names, and which tensors are worth it."""

from __future__ import annotations

from math import prod

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
