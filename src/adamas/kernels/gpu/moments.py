"""Moments in memory <-> float32: `adamas.formats.moments` and `adamas.formats.packed`, bit for bit."""

from __future__ import annotations

import triton
import triton.language as tl

from adamas.kernels.gpu.layout import EXP_AVG, EXP_AVG_SQ, HALF, HIGH, LOW, SCALE, WIDTH, WORDS, load, store
from adamas.kernels.gpu.random_bits import bits_of, float_of, magnitude, uniform
from adamas.kernels.gpu.weights import INFINITY, keep_nonfinite

QUIET_NAN = tl.constexpr(0x7FC00000)


@triton.jit
def load_moments(at, place, lane, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Load both moments of a block, float32, with zeros beyond the block's end."""
    start, left, block, _, _, _, _ = place
    if OPT.v_bits != 0:
        word = load_words(at, place, lane, OPT, WIDE)
        scale = tl.load(number(at[SCALE], block))
        low = bits_of(tl.load(number(at[LOW], block)))
        high = bits_of(tl.load(number(at[HIGH], block)))
        m, v = decoded(word, scale, low, high, OPT)
    elif OPT.moments == "bfloat16":
        m = float_of((load(at[EXP_AVG], tl.int16, start, lane, left, WIDE).to(tl.int32) << 16).to(tl.uint32))
        v = float_of((load(at[EXP_AVG_SQ], tl.int16, start, lane, left, WIDE).to(tl.int32) << 16).to(tl.uint32))
    else:
        m = load(at[EXP_AVG], tl.float32, start, lane, left, WIDE)
        v = load(at[EXP_AVG_SQ], tl.float32, start, lane, left, WIDE)
    return m, v


@triton.jit
def store_moments(at, place, lane, moments, random, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Encode both moments of a block with 32 random bits for each element, and store them."""
    start, left, block, _, _, _, _ = place
    m, v = moments
    if OPT.v_bits != 0:
        unit, code, low, high = encoded_v(m, v, random, OPT)
        if not WIDE:
            unit = tl.where(lane < left, unit, 0.0)
        steps, scale = encoded_m(unit, random, OPT)
        store_words(at, place, lane, (code << OPT.m_bits).to(tl.int32) | steps, OPT, WIDE)
        tl.store(number(at[SCALE], block), scale)
        tl.store(number(at[LOW], block), float_of(low))
        tl.store(number(at[HIGH], block), float_of(high))
    elif OPT.moments == "bfloat16":
        first = keep_nonfinite(bits_of(m), bits_of(m) + (random & 0xFFFF)) >> 16
        second = keep_nonfinite(bits_of(v), bits_of(v) + (random >> 16)) >> 16
        store(at[EXP_AVG], first.to(tl.int16), start, lane, left, WIDE)
        store(at[EXP_AVG_SQ], second.to(tl.int16), start, lane, left, WIDE)
    else:
        store(at[EXP_AVG], m, start, lane, left, WIDE)
        store(at[EXP_AVG_SQ], v, start, lane, left, WIDE)


@triton.jit
def number(address, block):
    """Return the address of one of the three numbers of a packed block."""
    return address.to(tl.pointer_type(tl.float32)) + block


@triton.jit
def spacing(low, high, OPT: tl.constexpr):
    """Return the spacing of v's grid in bit patterns, rounded up."""
    intervals = tl.full((), (1 << OPT.v_bits) - 2, tl.uint32)
    return tl.maximum((high - low + (intervals - 1)) // intervals, tl.full((), 1, tl.uint32))


@triton.jit
def root(bits):
    """Return the unit of m from the pattern of v: sqrt(v) to within 6 %, never 0."""
    return float_of((bits >> 1) + 0x1FC00000)


@triton.jit
def decoded(word, scale, low, high, OPT: tl.constexpr):
    """Return both moments of a block's words."""
    step = spacing(low, high, OPT)
    code = (word >> OPT.m_bits).to(tl.uint32)
    point = tl.minimum((low - step) + code * step, high)
    bits = tl.where(code == 0, 0, point).to(tl.uint32)
    steps = (word & ((1 << OPT.m_bits) - 1)) - (1 << (OPT.m_bits - 1))
    return (steps.to(tl.float32) * scale) * root(bits), float_of(bits)


@triton.jit
def encoded_v(m, v, random, OPT: tl.constexpr):
    """Return m in units of the root of the stored v, the codes of v, and the ends of v's grid as patterns."""
    # A NaN may be negative, and GPUs make other NaN patterns than CPUs.
    bits = tl.minimum(magnitude(bits_of(v)), tl.full((), QUIET_NAN, tl.uint32))
    high = tl.max(bits, axis=0)
    low = tl.min(bits - 1, axis=0) + 1  # zeros come last
    low = tl.where(high == 0, 0, low).to(tl.uint32)
    step = spacing(low, high, OPT)
    inverse_step = tl.div_rn(1.0, step.to(tl.int32).to(tl.float32))
    place = (bits - low).to(tl.int32, bitcast=True).to(tl.float32) * inverse_step
    code = (place.to(tl.int32) + 1).to(tl.uint32)  # the code of the point below
    under = (low - step) + code * step
    below = tl.minimum(under, high)
    above = tl.minimum(under + step, high)
    gap = float_of(above) - float_of(below)
    part = float_of(bits) - float_of(below)
    stays = part - uniform(random >> 16) * gap <= 0  # an infinity or NaN is rounded up, to itself
    point = tl.where(bits == 0, 0, tl.where(stays, below, above)).to(tl.uint32)
    code = tl.minimum(tl.where(stays, code, code + 1), tl.full((), (1 << OPT.v_bits) - 1, tl.uint32))
    code = tl.where(bits == 0, 0, code).to(tl.uint32)
    return tl.div_rn(m, root(point)), code, low, high


@triton.jit
def encoded_m(unit, random, OPT: tl.constexpr):
    """Return the codes of m, given in units of the root of v, and the scale of their grid."""
    MIDDLE: tl.constexpr = 1 << (OPT.m_bits - 1)
    top = float_of(tl.max(magnitude(bits_of(unit)), axis=0))
    inverse = tl.div_rn(MIDDLE - 1 - 0.000030517578125, tl.where(top == 0, 1.0, top))
    inverse = tl.where(magnitude(bits_of(inverse)) < INFINITY, inverse, 0.0)
    place = (unit * inverse + MIDDLE) + uniform(random & 0xFFFF)
    steps = tl.where(place == place, place, 0.0).to(tl.int32)  # NaN gets code 0
    return steps, tl.div_rn(top, MIDDLE - 1.0)


@triton.jit
def load_words(at, place, lane, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Load the words of a packed block, with zeros beyond its end."""
    start, left, _, row, column, columns, _ = place
    if OPT.m_bits == 7:
        words = load(at[WORDS], tl.int16, start, lane, left, WIDE).to(tl.int32) & 0xFFFF
    else:
        begin, halves = bytes_of(row, column, columns)
        place_of_pair = tl.arange(0, WIDTH) % HALF
        upper = load(at[WORDS], tl.uint8, begin, lane, left, WIDE).to(tl.int32)
        pair = load(at[WORDS], tl.uint8, halves, place_of_pair, (left + 1) // 2, WIDE).to(tl.int32)
        words = (upper << 4) | tl.where(tl.arange(0, WIDTH) < HALF, pair & 15, pair >> 4)
    return words


@triton.jit
def store_words(at, place, lane, words, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Store the words of a packed block."""
    start, left, _, row, column, columns, _ = place
    if OPT.m_bits == 7:
        store(at[WORDS], words.to(tl.int16), start, lane, left, WIDE)
    else:
        begin, halves = bytes_of(row, column, columns)
        store(at[WORDS], (words >> 4).to(tl.uint8), begin, lane, left, WIDE)
        lower = (words & 15) << tl.where(tl.arange(0, WIDTH) < HALF, 0, 4)
        if not WIDE:
            lower = tl.where(lane < left, lower, 0)
        pairs = tl.sum(tl.reshape(lower, (2, HALF)), axis=0)
        store(at[WORDS], pairs.to(tl.uint8), halves, tl.arange(0, HALF), (left + 1) // 2, WIDE)


@triton.jit
def bytes_of(row, column, columns):
    """Return where the upper 8 bits of a block's 12-bit words begin, and where the pairs of their lower 4 bits."""
    tail = columns % WIDTH
    first = row * (columns + columns // WIDTH * HALF + (tail + 1) // 2)
    return first + column, first + columns + column // 2
