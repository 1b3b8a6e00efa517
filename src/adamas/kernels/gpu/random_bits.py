"""The random bits of `adamas.formats.random_bits`, for uint32 elements in registers."""

from __future__ import annotations

import triton
import triton.language as tl

GOLDEN = tl.constexpr(0x9E3779B9)
MIX = tl.constexpr(0x846CA68B)


@triton.jit
def words(bits):
    """Integers of 32 bits as unsigned ones."""
    return bits.to(tl.uint32, bitcast=True)


@triton.jit
def bits_of(x):
    """The patterns of float32 numbers."""
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def float_of(bits):
    """The float32 numbers of patterns."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def magnitude(bits):
    """Patterns without their sign."""
    return bits & 0x7FFFFFFF


@triton.jit
def drawn(first, second, start, lane, HUGE: tl.constexpr):
    """32 random bits for each element.

    Args:
        first: of the step's key, uint32.
        second: likewise.
        start: the place in the parameter of a block's first element, int64.
        lane: the elements, counted from there, int32.
        HUGE: whether a place may be 2**32 or more.
    """
    golden = tl.full((), GOLDEN, tl.uint32)
    if HUGE:
        index = start + lane
        x = first + index.to(tl.uint32) * golden
        x = x ^ (x >> 15) ^ (second + (index >> 32).to(tl.uint32) * golden)
    else:
        x = (first + start.to(tl.uint32) * golden) + lane.to(tl.uint32) * golden
        x = x ^ (x >> 15) ^ second
    x = x * tl.full((), MIX, tl.uint32)
    return x ^ (x >> 16)


@triton.jit
def for_weights(random):
    """The bits that round the weights whose moments these bits round."""
    return random * tl.full((), GOLDEN, tl.uint32)


@triton.jit
def uniform(bits16):
    """(k + 1/2) / 2**16 for numbers of 16 bits: put into the mantissa of a float in [1, 2)."""
    return float_of(bits16 * 128 + 0x3F800040) - 1.0
