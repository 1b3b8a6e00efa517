"""Weights in memory <-> float32: bfloat16, float16, and bfloat16 with the bits that it lacks.

`adamas.formats.rounding` and `adamas.formats.master` say what these functions do and why, bit for bit. A weight that a
function here returns is one that can be stored exactly.
"""

from __future__ import annotations

import triton
import triton.language as tl

from adamas.kernels.gpu.random_bits import bits_of, float_of, magnitude

INFINITY = tl.constexpr(0x7F800000)
HALVES = tl.constexpr(0xFFFF0000)
LEAST_NORMAL = tl.constexpr(113 << 23)  # float16's 2**-14, as float32's pattern
LARGEST = tl.constexpr(65504.0)  # of float16


@triton.jit
def unless_endless(bits, other):
    """`other`, or for an infinity or NaN the upper half of its own pattern, quiet."""
    size = magnitude(bits)
    endless = (bits & HALVES) | tl.where(size > INFINITY, 0x400000, 0).to(tl.uint32)
    return tl.where(size >= INFINITY, endless, other)


@triton.jit
def nearest_bfloat16(x):
    """The pattern, in the upper half, of a number rounded to bfloat16, halves to even."""
    bits = bits_of(x)
    up = (bits + 0x7FFF + ((bits >> 16) & 1)) & HALVES
    return tl.where(magnitude(bits) > INFINITY, (bits & HALVES) | 0x400000, up)


@triton.jit
def nearest24(x):
    """The pattern of a weight rounded to 24 bits, halves away from zero."""
    bits = bits_of(x)
    return tl.where(magnitude(bits) >= INFINITY, bits, (bits + 0x80) & 0xFFFFFF00)


@triton.jit
def stepped(weight, change, random, CUT: tl.constexpr, SMALLEST: tl.constexpr):
    """The difference weight - change without its lowest CUT bits, rounded without bias; see `formats.rounding.stepped`.

    Args:
        weight: float32.
        change: float32.
        random: 32 bits each, of which the upper 23 are used.
        CUT: bits dropped.
        SMALLEST: pattern of the number below which the spacing is that at this number.
    """
    SPACING: tl.constexpr = 1.0 / (1 << (23 - CUT))
    near = bits_of(weight - change)
    exponent = near & INFINITY
    power = (near & 0x80000000) | tl.maximum(exponent, tl.full((), SMALLEST, tl.uint32))
    part = float_of((random >> 9) | 0x3F800000) * SPACING - (SPACING + 5.9604644775390625e-08)
    # Integers: negative floats are negative ones, and part may be negative by half a last place.
    least = tl.full((), 87 << 23, tl.int32)  # 2**-40
    part = tl.maximum(part.to(tl.int32, bitcast=True), least).to(tl.float32, bitcast=True)
    bits = bits_of(weight - (change - part * float_of(power)))
    return float_of((bits >> CUT) << CUT)


@triton.jit
def stepped_float16(weight, change, random):
    """The same for float16, whose spacing below 2**-14 is 2**-24."""
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
    """The pattern of a weight, of its bfloat16's in the upper half and what that lacks, both as integers.

    Only where a weight was changed by hand are there low bits beside an infinity, or negative ones beside a zero.
    """
    bits = high + low
    return tl.where(magnitude(bits) >= INFINITY, high, bits)


@triton.jit
def moved(theta, change, random, OPT: tl.constexpr):
    """The weight after its change, rounded to what can be stored.

    Args:
        theta: float32.
        change: what is subtracted.
        random: the bits of `for_weights`.
        OPT: the kernel's options.
    """
    if OPT.stochastic and OPT.master_bits == 24:
        value = stepped(theta, change, random, 8, 0)
    elif OPT.stochastic and OPT.param == "bfloat16":
        value = stepped(theta, change, random, 16, 0)
    elif OPT.stochastic and OPT.param == "float16":
        value = stepped_float16(theta, change, random)
    else:
        value = theta - change
        if OPT.master_bits == 32:
            value = float_of(unless_endless(bits_of(value), bits_of(value)))
        elif OPT.master_bits == 24:
            bits = nearest24(value)
            value = float_of(unless_endless(bits, bits))
        elif OPT.param == "bfloat16":
            value = float_of(nearest_bfloat16(value))
        elif OPT.param == "float16":
            value = value.to(tl.float16).to(tl.float32)
    return value


@triton.jit
def widened(stored, OPT: tl.constexpr):
    """What is stored of parameters or gradients -> float32: bfloat16 comes as int16."""
    if OPT.param == "bfloat16":
        return float_of((stored.to(tl.int32) << 16).to(tl.uint32, bitcast=True))
    return stored.to(tl.float32)
