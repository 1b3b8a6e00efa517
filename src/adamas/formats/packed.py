"""Both moments of a parameter in one word: v on a logarithmic grid, and m in units of sqrt(v).

Each row of the parameter (of its first dimension) is cut into blocks of 256 elements. Each block has its own grid.

**v** lies on a grid from the smallest positive to the largest value of its block, equally spaced in float32's bit
patterns. A pattern is a piecewise linear logarithm, so the spacing is relative, and finding a place on the grid takes
an integer subtraction and one multiplication. Code 0 is exactly zero, and no other value has it. With n intervals and k
octaves in the block the spacing is at most k/n * v: 16 octaves and 9 bits give 3.1 %, 7 bits 13 %. v is rounded to one
of its two neighbours, to the upper one with a probability equal to its relative distance *in value* from the lower one,
so the mean of the stored values is v.

**m** is stored as m / S on a linear grid from -top to top of the block. S is float_of((bits(v) >> 1) + 2**29 - 2**22),
which is sqrt(v) to within [1, 1.0607] and takes one shift and one addition. The error of m is below top / 63 (7 bits)
or top / 15 (5 bits) in units of S, and so in units of the step itself: the rounding of v cannot enlarge an element's
step. S is computed from the *stored* v, and is never 0. By Cauchy and Schwarz, |m| / sqrt(v) is at most
sqrt((1-b1)^2 / ((1-b2) (1 - b1^2/b2))), 7.3 for (.9, .999), so top is never far from a typical step.

A block with an infinite or NaN m decodes to m that are all infinite or NaN, and spoils no other block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from adamas.formats.arrays import INFINITY, Array, bits_of, cast, float_of, magnitude, namespace, uniform

BLOCK = 256


class Grid(NamedTuple):
    """The number of bits of each moment."""

    v_bits: int
    m_bits: int

    @property
    def intervals(self) -> int:
        """Return the number of intervals of v's grid: code 0 is zero, codes 1 to 2**v_bits - 1 are its points."""
        return 2**self.v_bits - 2

    @property
    def middle(self) -> int:
        """Return the code of m = 0."""
        return 2 ** (self.m_bits - 1)

    @property
    def most(self) -> float:
        """Return the place of a block's largest |m|: a little under middle - 1, so that no rounding exceeds it."""
        return self.middle - 1 - 2.0**-15


class Codes(NamedTuple):
    """Encoded blocks of both moments: codes shaped (..., block), the other arrays (..., 1)."""

    v: Array
    m: Array
    v_low: Array  # the smallest positive v, float32
    v_high: Array  # the largest v
    m_scale: Array  # one step of m's grid, in units of S


@np.errstate(invalid="ignore", over="ignore")  # a block may hold infinities and NaN
def encode(grid: Grid, m: Array, v: Array, random: Array) -> Codes:
    """Encode blocks along the last dimension.

    Args:
        grid: the number of bits of each moment.
        m: first moments, float32.
        v: second moments, float32, >= 0.
        random: 32 random bits an element: the upper 16 round v, the lower 16 round m.
    """
    xp = namespace(v)
    bits = magnitude(bits_of(v))
    high = xp.amax(bits, axis=-1, keepdims=True)
    low = xp.amin(xp.where(bits == 0, high, bits), axis=-1, keepdims=True)
    spacing = _spacing(low, high, grid)
    place = cast(cast(bits - low, "float32") * (1.0 / cast(spacing, "float32")), "int32")
    place = xp.clip(cast(place, "int64"), 0, None)
    below = float_of(xp.minimum(low + place * spacing, high))
    above = float_of(xp.minimum(low + place * spacing + spacing, high))
    over = (float_of(bits) - below) - uniform(random >> 16, 16) * (above - below)
    up = ~(over <= 0)  # an infinity or NaN is rounded up, to itself
    v_codes = xp.where(bits == 0, 0, xp.clip(place + 1 + cast(up, "int64"), None, grid.intervals + 1))
    unit = m / _root(_points(v_codes, low, high, spacing))
    top = float_of(xp.amax(magnitude(bits_of(unit)), axis=-1, keepdims=True))
    # torch divides a number by an array with a reciprocal, which rounds twice: so two arrays are divided.
    scaled = unit * _finite(xp.full_like(top, grid.most) / xp.where(top == 0, 1.0, top))
    m_codes = cast(cast((scaled + grid.middle) + uniform(random, 16), "int32"), "int64")
    m_codes = xp.where(scaled == scaled, m_codes, 0)
    return Codes(v_codes, m_codes, float_of(low), float_of(high), top / xp.full_like(top, grid.middle - 1))


@np.errstate(invalid="ignore", over="ignore")
def decode(grid: Grid, codes: Codes) -> tuple[Array, Array]:
    """Return both float32 moments of encoded blocks."""
    low, high = bits_of(codes.v_low), bits_of(codes.v_high)
    bits = _points(codes.v, low, high, _spacing(low, high, grid))
    m = (cast(cast(codes.m, "int32") - grid.middle, "float32") * codes.m_scale) * _root(bits)
    return m, float_of(bits)


def _spacing(low: Array, high: Array, grid: Grid) -> Array:
    """Return the spacing of v's grid in bit patterns, rounded up: the last interval may be shorter or empty."""
    return namespace(low).clip((high - low + (grid.intervals - 1)) // grid.intervals, 1, None)


def _points(codes: Array, low: Array, high: Array, spacing: Array) -> Array:
    """Return the bit patterns of v's codes."""
    xp = namespace(codes)
    return xp.where(codes == 0, 0, xp.minimum(low + (codes - 1) * spacing, high))


def _root(bits: Array) -> Array:
    """Return the unit of m from the pattern of v: sqrt(v) to within 6 %."""
    return float_of((bits >> 1) + 0x1FC00000)


def _finite(x: Array) -> Array:
    """Replace infinities and NaN by zero."""
    return namespace(x).where(magnitude(bits_of(x)) < INFINITY, x, 0.0)
