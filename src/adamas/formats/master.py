"""Master weights: a bfloat16 parameter and its low bits together are a weight of 24 or 32 bits.

The parameter is the weight rounded to bfloat16, halves away from zero. The low bits are a signed integer of 8 or 16
bits, the difference to that rounded value, so that both together are exactly the weight. On float32's bit pattern w:

    high = (w + 0x8000) >> 16
    low = (w - (high << 16)) >> 8 with 24 bits, w - (high << 16) with 32 bits

These are integer operations only. With 32 bits nothing is lost: training equals float32 training bit for bit. With 24
bits the pattern is rounded to a multiple of 256, with a relative error below 2**-15, by default stochastically: with
rounding to nearest, a weight decay of lr * wd = 1e-5 a step keeps 77 % of its effect and one of 5e-6 none.
"""

from __future__ import annotations

from adamas.formats.arrays import INFINITY, MASK, Array, bits_of, cast, float_of, magnitude, namespace, word
from adamas.formats.rounding import keep_nonfinite

LOW_DTYPES = {24: "int8", 32: "int16"}


def join(high: Array, low: Array, width: int) -> Array:
    """Return the float32 weights of parameters and their low bits.

    Args:
        high: the bit patterns of the bfloat16 parameters.
        low: the low bits, signed integers.
        width: 24 or 32 bits.
    """
    upper = high << 16
    bits = upper + (cast(low, "int64") << (32 - width))
    bits = bits & word(MASK, bits)
    # A user's write to a parameter leaves the old low bits: with an infinity, or a zero and negative bits, they would
    # make a NaN.
    return float_of(namespace(bits).where(magnitude(bits) >= INFINITY, upper, bits))


def split(weight: Array, width: int) -> tuple[Array, Array]:
    """Return the patterns of the bfloat16 parameters, and the low bits: int8 for 24 bits, int16 for 32.

    Args:
        weight: float32; for 24 bits already rounded, by `nearest24` or `adamas.formats.rounding.stepped`.
        width: 24 or 32 bits.
    """
    bits = bits_of(weight)
    bits = keep_nonfinite(bits, bits)  # the parameter alone holds an infinity or NaN
    high = (bits + 0x8000) >> 16
    low = (bits - (high << 16)) >> (32 - width)
    return high & 0xFFFF, cast(low, LOW_DTYPES[width])


def nearest24(weight: Array) -> Array:
    """Round float32 weights to nearest 24 bits; a weight that would exceed the largest number becomes infinite."""
    bits = bits_of(weight)
    up = (bits + 0x80) & word(MASK ^ 0xFF, bits)
    return float_of(namespace(bits).where(magnitude(bits) >= INFINITY, bits, up))
