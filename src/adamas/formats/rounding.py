"""Rounding float32 numbers to fewer bits without bias: the mean over the random bits is the number itself.

A number lies between two that can be stored; it goes up with a probability equal to its share of the way. Adding
random bits below the place where a pattern is cut off does just that: within a power of two patterns are equally spaced
in value, and powers of two can be stored. |rounded - x| < the spacing: 2**-7 |x| for bfloat16 (7 stored bits of
mantissa), 2**-15 |x| for 24 bits.
"""

from __future__ import annotations

from adamas.formats.arrays import INFINITY, MASK, Array, bits_of, cast, float_of, magnitude, namespace, word

QUIET = 0x400000


def bfloat16_bits(x: Array, random16: Array) -> Array:
    """The 16-bit patterns of bfloat16 numbers; infinities and NaN stay what they are."""
    return endless_or(bits_of(x), bits_of(x) + random16) >> 16


def endless_or(bits: Array, other: Array) -> Array:
    """`other`, or where `bits` are an infinity or NaN their upper half, NaN made quiet."""
    size = magnitude(bits)
    endless = (bits & word(0xFFFF0000, bits)) | cast(size > INFINITY, "int64") * QUIET
    return namespace(bits).where(size >= INFINITY, endless, other)


def stepped(weight: Array, change: Array, random: Array, cut: int, smallest: int = 0) -> Array:
    """The difference weight - change, its lowest `cut` bits rounded away without bias: it can be stored as it is.

    float32 would first round the difference to its own last place. A decay of 1e-6 a step is 8 to 17 units there:
    that errs by up to 6 %, at the same weight always to the same side. So a random part of the spacing is taken from
    the change, which is small and therefore exact, before the difference is formed and cut off:

        near  = weight - change                    whose exponent gives the spacing
        part  = r * 2**(cut - 23) - 2**-24         r in [0, 1) from 23 bits; half a last place less, since the
                                                   difference is rounded to nearest before it is cut off
        value = weight - (change - part * 2**exponent(near) * sign(near)), cut off towards zero

    Without a change the weight stays as it is, if it can be stored. A change towards zero of less than half of
    float32's last place (3e-8 to 6e-8 of the weight) has no effect, as on a float32 weight; one away from zero acts.

    Args:
        weight: float32.
        change: float32.
        random: 32 random bits for each element, of which the upper 23 are used.
        cut: how many bits are dropped: 8 (24 stay), 16 (bfloat16), 13 (float16).
        smallest: pattern of the number below which the spacing is that at this number: float16's 2**-14.
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
    """The difference as a float32 number that float16 can hold, without bias; below 2**-14 its spacing is 2**-24."""
    xp = namespace(weight)
    value = stepped(weight, change, random, 13, 113 << 23)
    value = xp.where(abs(value) < 65520.0, xp.clip(value, -65504.0, 65504.0), value)  # infinite where nearest is
    small = cast(cast(xp.where(abs(value) < 1, value, 0.0) * 2.0**24, "int32"), "float32") * 2.0**-24
    return xp.where(abs(value) < 2.0**-14, xp.copysign(small, value), value)
