"""Master weights: a bfloat16 parameter and the bits that it lacks make a weight of 24 or 32 bits.

The parameter is the weight rounded to bfloat16, halves away from zero; the rest, a signed integer of 8 or 16 bits,
says how far that was off, so both together are the weight exactly:

    high = (w + 0x8000) >> 16           low = (w - (high << 16)) >> 8  or, with 32 bits,  w - (high << 16)

on float32's pattern w. Integers only, no exponents and no division. With 32 bits nothing is lost: training is that in
float32, bit for bit. With 24 bits the pattern is rounded to a multiple of 256, relative error below 2**-15, without
bias by default: rounded to nearest, a weight decay of lr * wd = 1e-5 a step keeps 77 % of its effect and one of 5e-6
none.
"""

from __future__ import annotations

from adamas.formats.arrays import INFINITY, MASK, Array, bits_of, cast, float_of, magnitude, namespace, word
from adamas.formats.rounding import endless_or

LOW_DTYPES = {24: "int8", 32: "int16"}


def join(high: Array, low: Array, width: int) -> Array:
    """The weights, float32.

    Args:
        high: the patterns of the bfloat16 parameters.
        low: what they lack, signed integers.
        width: 24 or 32 bits.
    """
    upper = high << 16
    bits = upper + (cast(low, "int64") << (32 - width))
    bits = bits & word(MASK, bits)
    # Only where a weight was changed by hand are there low bits beside an infinity, or negative ones beside a zero.
    return float_of(namespace(bits).where(magnitude(bits) >= INFINITY, upper, bits))


def split(weight: Array, width: int) -> tuple[Array, Array]:
    """Patterns of the bfloat16 parameters, and what they lack: int8 for 24 bits, int16 for 32.

    Args:
        weight: float32; what is beyond 24 bits of it, where only so many are kept, is lost: see `nearest24` and
            `adamas.formats.rounding.stepped`.
        width: 24 or 32 bits.
    """
    bits = bits_of(weight)
    bits = endless_or(bits, bits)  # of these the parameter alone has all
    high = (bits + 0x8000) >> 16
    low = (bits - (high << 16)) >> (32 - width)
    return high & 0xFFFF, cast(low, LOW_DTYPES[width])


def nearest24(weight: Array) -> Array:
    """Weights rounded to nearest 24 bits; what lies beyond the largest number becomes infinite."""
    bits = bits_of(weight)
    up = (bits + 0x80) & word(MASK ^ 0xFF, bits)
    return float_of(namespace(bits).where(magnitude(bits) >= INFINITY, bits, up))
