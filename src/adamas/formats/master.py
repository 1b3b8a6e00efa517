"""Master weights: a bfloat16 parameter and the bits that it lacks make a weight of 24 or 32 bits.

The parameter is the weight rounded to bfloat16, halves away from zero; the rest, a signed integer of 8 or 16 bits,
says how far that was off, so both together are the weight exactly:

    high = (w + 0x8000) >> 16           low = (w - (high << 16)) >> 8  or, with 32 bits,  w - (high << 16)

on float32's pattern w. Integers only, no exponents and no division. With 32 bits nothing is lost: training is that in
float32, bit for bit. With 24 bits the pattern is rounded to a multiple of 256, relative error below 2**-15, without bias
by default: rounded to nearest, a weight decay of lr * wd = 1e-5 a step keeps 77 % of its effect and one of 5e-6 none.
"""

from __future__ import annotations

from adamas.formats.arrays import INFINITY, MASK, Array, bits_of, cast, float_of, magnitude, namespace
from adamas.formats.rounding import QUIET, rounded_bits

LOW_DTYPES = {24: "int8", 32: "int16"}


def join(high: Array, low: Array, width: int) -> Array:
    """The weights, float32.

    Args:
        high: the patterns of the bfloat16 parameters.
        low: what they lack, signed integers.
        width: 24 or 32 bits.
    """
    return float_of(((high << 16) + (cast(low, "int64") << (32 - width))) & MASK)


def split(weight: Array, width: int, random: Array | None = None, rest: Array | None = None) -> tuple[Array, Array]:
    """Patterns of the bfloat16 parameters, and what they lack: int8 for 24 bits, int16 for 32.

    Args:
        weight: float32.
        width: 24 or 32 bits.
        random: random bits for each element: 24 bits are reached without bias; None rounds to nearest.
        rest: what float32 lost of the weight: see `adamas.formats.rounding`.
    """
    bits = bits_of(weight)
    if width == 24:
        bits = _nearest(bits) if random is None else rounded_bits(weight, random, 8, rest)
    # Of infinities and NaN the parameter alone has all; a NaN that sits in the low bits must not become infinite.
    endless = magnitude(bits) >= INFINITY
    nan = magnitude(bits) > INFINITY
    bits = namespace(weight).where(endless, (bits & 0xFFFF0000) | cast(nan, "int64") * QUIET, bits)
    high = (bits + 0x8000) >> 16
    low = (bits - (high << 16)) >> (32 - width)
    return high & 0xFFFF, cast(low, LOW_DTYPES[width])


def _nearest(bits: Array) -> Array:
    """Rounded to a multiple of 256; what lies beyond the largest number becomes infinite."""
    up = (bits + 0x80) & ~0xFF
    return namespace(bits).where(magnitude(bits) >= INFINITY, bits, up)
