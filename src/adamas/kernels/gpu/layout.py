"""The elements of a program, and how it loads and stores them.

A tensor is cut into blocks of 256 elements; where moments are packed, each row starts a new block. A program, which is
one warp, steps some blocks of one tensor, one after the other: the minima and maxima of a block are then found within
the warp. The table has a row of numbers for each tensor.
"""

from __future__ import annotations

import triton
import triton.language as tl

from adamas.kernels.gpu.table import BLOCK

# Columns of the table: addresses, then sizes.
PARAM, EXP_AVG, EXP_AVG_SQ, MAX, EMA, LOW_BITS, SCALE, LOW, HIGH = (tl.constexpr(i) for i in range(9))
WORDS = EXP_AVG  # the words of packed moments
GRAD = tl.constexpr(9)  # the index of the gradient among the addresses that a program has read
COLUMNS, PER_ROW, BLOCKS, FIRST, WHICH, COUNT, FIRST_TILE, START, SKIP = (tl.constexpr(i) for i in range(9, 18))
ROW = tl.constexpr(18)  # numbers in a row of the table: 144 B

WIDTH = tl.constexpr(BLOCK)
HALF = tl.constexpr(BLOCK // 2)


@triton.jit
def addresses(row, grad, OPT: tl.constexpr):
    """Return the addresses in a row of the table, then that of the gradient; 0 for a missing array."""
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
    """Return whether all arrays of elements begin at multiples of 16: loads may then be 16 bytes wide."""
    joined = at[PARAM] | at[EXP_AVG] | at[EXP_AVG_SQ] | at[MAX] | at[EMA] | at[LOW_BITS] | at[GRAD]
    return (joined & 15) == 0


@triton.jit
def lanes(left, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Return which elements of a block the 256 lanes hold; elements from 256 on do not exist.

    In a block of n 12-bit words, the lower bits of words j and j + ceil(n / 2) share a byte. Lanes j and j + 128 hold
    this pair, so that one thread can combine them.
    """
    lane = tl.arange(0, WIDTH)
    if OPT.m_bits == 5 and not WIDE:
        half = (left + 1) // 2
        lane = tl.where(lane < HALF, tl.where(lane < half, lane, WIDTH), lane - HALF + half)
    return lane


@triton.jit
def elements(address, DTYPE: tl.constexpr, start, lane, WIDE: tl.constexpr):
    """Return the addresses of a block's elements in one array.

    With WIDE, a thread holds that many adjacent elements, the first at a multiple of their bytes, or of 16. This number
    is the same for arrays of all dtypes: otherwise values would have to move between threads.
    """
    first = address.to(tl.pointer_type(DTYPE)) + start
    if WIDE:
        first = tl.multiple_of(first, min(16, WIDE * (DTYPE.primitive_bitwidth // 8)))
    return first + lane


@triton.jit
def load(address, DTYPE: tl.constexpr, start, lane, left, WIDE: tl.constexpr):
    """Load a block's elements of one array, with zeros beyond the block's end."""
    where = elements(address, DTYPE, start, lane, WIDE)
    if WIDE:
        return tl.load(where)
    else:
        return tl.load(where, mask=lane < left, other=0)


@triton.jit
def store(address, values, start, lane, left, WIDE: tl.constexpr):
    """Store a block's elements in one array of the values' dtype."""
    where = elements(address, values.dtype, start, lane, WIDE)
    if WIDE:
        tl.store(where, values)
    else:
        tl.store(where, values, mask=lane < left)
