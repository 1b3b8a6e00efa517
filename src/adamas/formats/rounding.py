"""Stochastic rounding of float32 numbers to fewer bits: the mean over the random bits is the number itself.

A number lies between two storable ones; it is rounded up with a probability equal to its relative distance from the
lower one. Adding random bits below the place where a pattern is cut off does this: within a power of two patterns are
equally spaced in value, and powers of two can be stored. |rounded - x| is below the spacing: 2**-7 |x| for bfloat16 (7
stored bits of mantissa), 2**-15 |x| for 24 bits.
"""

from __future__ import annotations

from adamas.formats.arrays import INFINITY, MASK, Array, bits_of, cast, float_of, magnitude, namespace, word

QUIET = 0x400000


def bfloat16_bits(x: Array, random16: Array) -> Array:
    """Round stochastically to bfloat16 and return the 16-bit patterns; infinities and NaN keep their value."""
    return keep_nonfinite(bits_of(x), bits_of(x) + random16) >> 16


def keep_nonfinite(bits: Array, rounded: Array) -> Array:
    """Return `rounded`; where `bits` are an infinity or NaN, return the upper half of `bits`, with NaN made quiet."""
    size = magnitude(bits)
    nonfinite = (bits & word(0xFFFF0000, bits)) | cast(size > INFINITY, "int64") * QUIET
    return namespace(bits).where(size >= INFINITY, nonfinite, rounded)


def stepped(weight: Array, change: Array, random: Array, cut: int, smallest: int = 0) -> Array:
    """Return weight - change, with its lowest `cut` bits rounded away stochastically: the result is storable.

    Plain float32 would first round the difference to its own last place. A decay of 1e-6 a step is 8 to 17 units
    there: the error would be up to 6 %, at the same weight always in the same direction. So a random part of the
    spacing is subtracted from the change, which is small and therefore exact, before the difference is formed and cut:

        near  = weight - change                    its exponent gives the spacing
        part  = r * 2**(cut - 23) - 2**-24         r in [0, 1) from 23 bits; half a last place less, since the
                                                   difference is rounded to nearest before it is cut
        value = weight - (change - part * 2**exponent(near) * sign(near)), cut towards zero

    Without a change a storable weight keeps its value. A change towards zero of less than half of float32's last place
    (3e-8 to 6e-8 of the weight) has no effect, as on a float32 weight; a change away from zero has one.

    Args:
        weight: float32.
        change: float32.
        random: 32 random bits for each element; the upper 23 are used.
        cut: the number of dropped bits: 8 (24 remain), 16 (bfloat16), 13 (float16).
        smallest: the bit pattern of the number below which the spacing is constant: 2**-14 for float16.
    """
    xp = namespace(weight)
    near = bits_of(weight - change)
    sign, exponent = near & word(0x80000000, near), near & INFINITY
    power = float_of(sign | xp.clip(exponent, smallest, None))
    spacing, half = 2.0 ** (cut - 23), 2.0**-24
    part = float_of((random >> 9) | 0x3F800000) * spacing - (spacing + half)
    part = xp.clip(part, 2.0**-40, None)
    bits = bits_of(weight - (change - part * power))
    return float_of(bits & word(MASK ^ ((1 << cut) - 1), bits))


def float16_value(weight: Array, change: Array, random: Array) -> Array:
    """Return weight - change, rounded stochastically to a number that float16 can hold, as float32.

    Below 2**-14 the spacing is 2**-24. The result is infinite only where rounding to nearest gives infinity.
    """
    xp = namespace(weight)
    value = stepped(weight, change, random, 13, 113 << 23)
    value = xp.where(abs(value) < 65520.0, xp.clip(value, -65504.0, 65504.0), value)
    small = cast(cast(xp.where(abs(value) < 1, value, 0.0) * 2.0**24, "int32"), "float32") * 2.0**-24
    return xp.where(abs(value) < 2.0**-14, xp.copysign(small, value), value)
