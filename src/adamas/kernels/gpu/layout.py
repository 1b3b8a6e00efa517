"""Which elements of which tensor a program steps.

A tensor is cut into blocks of 256 elements, which begin anew in each of its rows where moments are packed. A program,
which is one warp, steps some blocks of one tensor, one after the other: a block's minima and maxima are then found
without leaving the warp. The table has a row of numbers for each tensor.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

BLOCK = 256
TILE = 8192  # elements of a gradient that one program squares

# Columns of the table: addresses, then sizes.
PARAM, EXP_AVG, EXP_AVG_SQ, MAX, EMA, LOW_BITS, SCALE, LOW, HIGH = (tl.constexpr(i) for i in range(9))
WORDS = EXP_AVG  # of packed moments
GRAD = tl.constexpr(9)  # in the tuple of addresses that a program has read
COLUMNS, PER_ROW, BLOCKS, FIRST, WHICH, COUNT, FIRST_TILE = (tl.constexpr(i) for i in range(9, 16))
ROW = tl.constexpr(16)  # numbers of a row: 128 B

WIDTH = tl.constexpr(BLOCK)
HALF = tl.constexpr(BLOCK // 2)


class Word(NamedTuple):
    """How parameters and gradients are stored.

    Args:
        param: "float32", "bfloat16" or "float16".
        word: as what they are loaded and stored; bfloat16 as int16, its patterns.
    """

    param: str
    word: tl.dtype


@triton.jit
def addresses(row, grad, OPT: tl.constexpr):
    """The addresses in a row of the table, read once, with the gradient's as the last; 0 for what there is not."""
    nothing = grad * 0
    packed: tl.constexpr = OPT.v_bits != 0
    return (
        tl.load(row + PARAM),
        tl.load(row + EXP_AVG),
        nothing if packed else tl.load(row + EXP_AVG_SQ),
        tl.load(row + MAX) if OPT.amsgrad else nothing,
        tl.load(row + EMA) if OPT.averages else nothing,
        tl.load(row + LOW_BITS) if OPT.master_bits else nothing,
        tl.load(row + SCALE) if packed else nothing,
        tl.load(row + LOW) if packed else nothing,
        tl.load(row + HIGH) if packed else nothing,
        grad,
    )


@triton.jit
def are_aligned(at):
    """Whether all arrays of elements begin at multiples of 16: loads may then be 16 bytes wide."""
    joined = at[PARAM] | at[EXP_AVG] | at[EXP_AVG_SQ] | at[MAX] | at[EMA] | at[LOW_BITS] | at[GRAD]
    return (joined & 15) == 0


@triton.jit
def lanes(left, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Which elements of a block the tile's 256 are; those from 256 on do not exist.

    12-bit words of a block of n are paired: word j's lower bits lie beside those of word j + ceil(n / 2). Lanes j and
    j + 128 are such a pair, so that the two meet in one place.
    """
    lane = tl.arange(0, WIDTH)
    if OPT.m_bits == 5 and not WIDE:
        half = (left + 1) // 2
        lane = tl.where(lane < HALF, tl.where(lane < half, lane, WIDTH), lane - HALF + half)
    return lane


@triton.jit
def elements(address, DTYPE: tl.constexpr, start, lane, WIDE: tl.constexpr):
    """Where a block's elements of one array lie.

    With WIDE, that many lie beside each other in one thread, and the first at a multiple of their bytes, or of 16. If
    arrays of different dtypes disagreed in that, values would have to move between threads.
    """
    first = address.to(tl.pointer_type(DTYPE)) + start
    if WIDE:
        first = tl.multiple_of(first, min(16, WIDE * (DTYPE.primitive_bitwidth // 8)))
    return first + lane


@triton.jit
def load(address, DTYPE: tl.constexpr, start, lane, left, WIDE: tl.constexpr):
    """A block's elements of one array, with zeros beyond its end; WIDE says that the block has all 256."""
    where = elements(address, DTYPE, start, lane, WIDE)
    if WIDE:
        return tl.load(where)
    else:
        return tl.load(where, mask=lane < left, other=0)


@triton.jit
def store(address, values, start, lane, left, WIDE: tl.constexpr):
    """Store a block's elements of one array, of the values' dtype; WIDE as for `load`."""
    where = elements(address, values.dtype, start, lane, WIDE)
    if WIDE:
        tl.store(where, values)
    else:
        tl.store(where, values, mask=lane < left)
