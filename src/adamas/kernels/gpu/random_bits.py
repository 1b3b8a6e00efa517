"""The random bits of `adamas.formats.random_bits`, and bit patterns, for elements in registers."""

from __future__ import annotations

import triton
import triton.language as tl

GOLDEN = tl.constexpr(0x9E3779B9)
MIX = tl.constexpr(0x846CA68B)


@triton.jit
def bits_of(x):
    """Return the bit patterns of float32 numbers, uint32."""
    return x.to(tl.uint32, bitcast=True)


@triton.jit
def float_of(bits):
    """Return the float32 numbers that have these bit patterns."""
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def magnitude(bits):
    """Return bit patterns of float32 without the sign."""
    return bits & 0x7FFFFFFF


@triton.jit
def drawn(first, second, start, lane, HUGE: tl.constexpr):
    """Return 32 random bits for each element, from the two halves of the step's key, uint32.

    A block's first element has the index `start` in its parameter, int64, and `lane`, int32, counts from there. HUGE
    tells whether an index may be 2**32 or more.
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
    """Return the bits that round the weights, derived from the bits that round their moments."""
    return random * tl.full((), GOLDEN, tl.uint32)


@triton.jit
def uniform(bits16):
    """Return (k + 1/2) / 2**16 for 16-bit numbers k, which become the mantissa of a float in [1, 2)."""
    return float_of(bits16 * 128 + 0x3F800040) - 1.0
