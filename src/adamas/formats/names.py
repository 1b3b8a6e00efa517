"""Names and sizes of the storage formats, for modules that must not load the codecs."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

BITS = {"packed16": (9, 7), "packed12": (7, 5)}  # bits of v and of m in a packed word
PACKED = tuple(BITS)
GRIDS = ("exp_avg_scale", "exp_avg_sq_low", "exp_avg_sq_high")
WIDE = ("exp_avg", "exp_avg_sq")
# The stored arrays of each format, in the kernels' order; `adamas.formats.moments` defines their contents.
PARTS = {"wide": WIDE, "bfloat16": WIDE, "float16": WIDE, **{name: (name, *GRIDS) for name in PACKED}}

# Moments stay float32 in tensors with fewer elements than SMALLEST, or with rows shorter than NARROWEST. Each row has a
# block of its own, whose grids take 12 bytes: rows of 8 take 3.5 bytes a parameter in packed16, of 64 2.19. A tensor of
# one dimension is one row: below SMALLEST_FLAT a bias or the weight of a norm, above it a flat buffer of many layers.
SMALLEST, NARROWEST, SMALLEST_FLAT = 4096, 8, 65536


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of a matrix that keeps the first dimension and joins all others; one dimension is one row.

    Example:
        >>> rows_and_columns((8, 3, 5)), rows_and_columns((7,)), rows_and_columns(())
        ((8, 15), (1, 7), (1, 1))
    """
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))


class Storage(NamedTuple):
    """How the moments and the weight of a parameter are stored."""

    moments: str = "wide"  # "wide" is float32, or the dtype of a wider parameter; otherwise a format of `moments.py`
    master_bits: int | None = None  # 24 or 32 where a bfloat16 parameter is the upper part of a longer weight
    stochastic: bool = False  # a weight of 16 or 24 bits is rounded stochastically instead of to nearest

    @property
    def random(self) -> bool:
        """Whether a step draws random bits."""
        return self.moments in ("bfloat16", "packed16", "packed12") or (self.stochastic and self.master_bits != 32)

    @property
    def plain(self) -> bool:
        """Whether moments are wide, weights are rounded to nearest, and there are no master weights."""
        return self == PLAIN


PLAIN = Storage()
STATE_DTYPES = ("float32", "bfloat16", "packed16", "packed12", "param")
FULL = ("float32", "param")  # values of state_dtype that do not ask for fewer bits than the parameter has
HALF = ("bfloat16", "float16")  # parameters whose weights or moments may be rounded


class Request(NamedTuple):
    """How a user asks that moments and weights are stored: the options of these names."""

    state_dtype: str = "float32"
    master_weight_bits: int | None = None
    stochastic_rounding: bool | None = None


def storage_for(dtype: str, shape: tuple[int, ...], asked: Request, sharded: bool = False) -> Storage:
    """Return the storage of a parameter of this dtype and shape: `why_wide` says where it is not as asked for."""
    moments = "wide"
    if asked.state_dtype == "param" and dtype in HALF:
        moments = dtype
    elif asked.state_dtype not in FULL and why_wide(dtype, shape, sharded) is None:
        moments = asked.state_dtype
    master_bits = asked.master_weight_bits if dtype == "bfloat16" else None
    rounds = asked.stochastic_rounding in (None, True) and dtype in HALF
    return Storage(moments, master_bits, rounds and master_bits != 32)


def why_wide(dtype: str, shape: tuple[int, ...], sharded: bool = False) -> str | None:
    """Return why moments stay float32 or wider although fewer bits are asked for; None where they do not.

    A single row is not cut into blocks where the parameter is sharded, because the shards would cut the blocks.
    """
    if dtype not in ("float32", *HALF):
        return f"{dtype} parameters"
    if prod(shape) < SMALLEST:
        return f"fewer than {SMALLEST:,} elements"
    if len(shape) == 1:
        if sharded:
            return "one dimension, sharded"
        return f"one dimension under {SMALLEST_FLAT:,} elements" if prod(shape) < SMALLEST_FLAT else None
    return f"rows under {NARROWEST} elements" if rows_and_columns(shape)[1] < NARROWEST else None


def state_names(amsgrad: bool, averages: bool, storage: Storage = PLAIN) -> tuple[str, ...]:
    """Return the keys of the state's tensors that a step writes, in the kernels' order, without "step"."""
    return (
        *PARTS[storage.moments],
        *(("param_low",) if storage.master_bits else ()),
        *(("max_exp_avg_sq",) if amsgrad else ()),
        *(("ema",) if averages else ()),
    )
