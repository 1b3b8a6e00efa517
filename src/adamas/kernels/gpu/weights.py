"""Weights in memory <-> float32: bfloat16, float16, and bfloat16 with low bits.

`adamas.formats.rounding` and `adamas.formats.master` specify these functions bit for bit. Every weight that a function
here returns can be stored exactly.
"""

from __future__ import annotations

import triton
import triton.language as tl

from adamas.kernels.gpu.random_bits import bits_of, float_of, magnitude

INFINITY = tl.constexpr(0x7F800000)
HALVES = tl.constexpr(0xFFFF0000)
LEAST_NORMAL = tl.constexpr(113 << 23)  # the float32 pattern of 2**-14, float16's smallest normal number
LARGEST = tl.constexpr(65504.0)  # float16's largest number


@triton.jit
def keep_nonfinite(bits, rounded):
    """Return `rounded`; where `bits` are an infinity or NaN, return the upper half of `bits`, with NaN made quiet."""
    size = magnitude(bits)
    nonfinite = (bits & HALVES) | tl.where(size > INFINITY, 0x400000, 0).to(tl.uint32)
    return tl.where(size >= INFINITY, nonfinite, rounded)


@triton.jit
def nearest_bfloat16(x):
    """Round to bfloat16, halves to even, and return the pattern in the upper half."""
    bits = bits_of(x)
    up = (bits + 0x7FFF + ((bits >> 16) & 1)) & HALVES
    return tl.where(magnitude(bits) > INFINITY, (bits & HALVES) | 0x400000, up)


@triton.jit
def nearest24(x):
    """Round a weight to 24 bits, halves away from zero, and return the pattern."""
    bits = bits_of(x)
    return tl.where(magnitude(bits) >= INFINITY, bits, (bits + 0x80) & 0xFFFFFF00)


@triton.jit
def stepped(weight, change, random, CUT: tl.constexpr, SMALLEST: tl.constexpr):
    """Return weight - change, with its lowest CUT bits rounded away stochastically, as `formats.rounding.stepped`."""
    SPACING: tl.constexpr = 1.0 / (1 << (23 - CUT))
    near = bits_of(weight - change)
    exponent = near & INFINITY
    power = (near & 0x80000000) | tl.maximum(exponent, tl.full((), SMALLEST, tl.uint32))
    part = float_of((random >> 9) | 0x3F800000) * SPACING - (SPACING + 5.9604644775390625e-08)
    # As integers: the pattern of a negative float is negative, and part may be negative by half a last place.
    least = tl.full((), 87 << 23, tl.int32)  # 2**-40
    part = tl.maximum(part.to(tl.int32, bitcast=True), least).to(tl.float32, bitcast=True)
    bits = bits_of(weight - (change - part * float_of(power)))
    return float_of((bits >> CUT) << CUT)


@triton.jit
def stepped_float16(weight, change, random):
    """Return weight - change, rounded stochastically to float16: below 2**-14 its spacing is 2**-24."""
    value = stepped(weight, change, random, 13, LEAST_NORMAL)
    size = tl.abs(value)
    sign = bits_of(value) & 0x80000000
    most = float_of(sign | bits_of(tl.full((), LARGEST, tl.float32)))
    value = tl.where((size < 65520.0) & (size > LARGEST), most, value)
    is_small = tl.abs(value) < 0.00006103515625
    whole = (tl.where(is_small, value, 0.0) * 16777216.0).to(tl.int32)
    small = float_of(bits_of(whole.to(tl.float32) * 5.9604644775390625e-08) | sign)
    return tl.where(is_small, small, value)


@triton.jit
def joined(high, low):
    """Return the pattern of a weight from its bfloat16 pattern, in the upper half, and its low bits.

    Low bits that a user's write to the parameter left with an infinity, or with a zero, make no NaN.
    """
    bits = high + low
    return tl.where(magnitude(bits) >= INFINITY, high, bits)


@triton.jit
def moved(theta, change, random, OPT: tl.constexpr):
    """Return theta - change, rounded to the stored dtype; `random` are the bits of `for_weights`."""
    if OPT.stochastic and OPT.master_bits == 24:
        value = stepped(theta, change, random, 8, 0)
    elif OPT.stochastic and OPT.param == "bfloat16":
        value = stepped(theta, change, random, 16, 0)
    elif OPT.stochastic and OPT.param == "float16":
        value = stepped_float16(theta, change, random)
    else:
        value = theta - change
        if OPT.master_bits == 32:
            value = float_of(keep_nonfinite(bits_of(value), bits_of(value)))
        elif OPT.master_bits == 24:
            bits = nearest24(value)
            value = float_of(keep_nonfinite(bits, bits))
        elif OPT.param == "bfloat16":
            value = float_of(nearest_bfloat16(value))
        elif OPT.param == "float16":
            value = value.to(tl.float16).to(tl.float32)
    return value


@triton.jit
def widened(stored, OPT: tl.constexpr):
    """Convert stored parameters or gradients to float32; bfloat16 is given as int16."""
    if OPT.param == "bfloat16":
        return float_of((stored.to(tl.int32) << 16).to(tl.uint32, bitcast=True))
    return stored.to(tl.float32)
