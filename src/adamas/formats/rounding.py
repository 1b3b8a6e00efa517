"""Rounding float32 numbers to fewer bits without bias: the mean over the random bits is the number itself.

A number lies between two that can be stored; it goes up with a probability equal to its share of the way. Adding
random bits below the place where a pattern is cut off does just that: within a power of two patterns are equally spaced
in value, and powers of two can be stored. |rounded - x| < the spacing there: 2**-7 |x| for bfloat16 (7 stored bits of
mantissa), 2**-15 |x| for 24 bits.

`rest` is what float32 itself lost when x was computed: (param - x) - change for x = param - change. A decay of 1e-6 a
step is 8 to 17 units in float32's last place; rounding it to whole units would err by up to 6 %, at the same weight
always to the same side.
"""

from __future__ import annotations

from adamas.formats.arrays import INFINITY, Array, bits_of, cast, float_of, magnitude, namespace, uniform

SIGN, QUIET = 0x80000000, 0x400000
FINER = 8  # bits below float32's last place in which `rest` is counted


def rounded_bits(x: Array, random: Array, cut: int, rest: Array | None = None) -> Array:
    """The patterns of float32 numbers whose lowest `cut` bits are rounded away, up or down at random.

    Args:
        x: float32.
        random: random bits for each element, of which the lowest cut + 8 are used.
        cut: how many bits are dropped: 8 (24 stay) or 16 (bfloat16).
        rest: float32, to be added to x exactly; at most half a unit in x's last place.

    Returns:
        Patterns with `cut` zeros at the end; infinities and NaN stay what they are.
    """
    xp, bits = namespace(x), bits_of(x)
    size, low = magnitude(bits), (1 << cut) - 1
    total = ((bits & low) << FINER) + (random & ((1 << (cut + FINER)) - 1))
    if rest is not None:
        total = total + _units(rest, bits)
    up = (bits & ~low) + ((total >> (cut + FINER)) << cut)
    endless = (bits & ~low) | cast(size > INFINITY, "int64") * QUIET
    return xp.where(size >= INFINITY, endless, up)


def _units(rest: Array, bits: Array) -> Array:
    """`rest` away from zero, in 1/256 of the last place of the numbers that have these patterns, towards zero."""
    xp = namespace(rest)
    exponent = xp.clip(bits & INFINITY, 23 << 23, None)
    per_unit = float_of((277 << 23) - exponent)  # 1 / unit in the last place, a power of two
    units = cast(cast(rest * per_unit * 256.0, "int32"), "int64")
    return xp.where(bits >= SIGN, -units, units)


def bfloat16_bits(x: Array, random: Array, rest: Array | None = None) -> Array:
    """The 16-bit patterns of bfloat16 numbers, rounded without bias."""
    return rounded_bits(x, random, 16, rest) >> 16


def float16_value(x: Array, random: Array, rest: Array | None = None) -> Array:
    """float32 numbers that float16 can hold, rounded without bias; below 2**-14 float16's spacing is 2**-24."""
    xp = namespace(x)
    normal = float_of(rounded_bits(x, random, 13, rest))
    small = xp.floor(abs(x) * 2.0**24 + uniform(random, 13)) * 2.0**-24
    return xp.where(abs(x) < 2.0**-14, xp.copysign(small, x), normal)
