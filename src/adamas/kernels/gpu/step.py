"""The step of a bucket's tensors in one launch.

    param, moments, maximum, average, grad  <-  loaded, decoded, stepped, encoded, stored

Each program takes some blocks of one tensor through registers, once. Where they lie it finds in the tables.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from adamas.kernels.gpu.layout import (
    BLOCKS,
    COLUMNS,
    EMA,
    FIRST,
    GRAD,
    LOW_BITS,
    MAX,
    PARAM,
    PER_ROW,
    ROW,
    WHICH,
    WIDTH,
    addresses,
    are_aligned,
    lanes,
    load,
    store,
)
from adamas.kernels.gpu.moments import load_moments, store_moments
from adamas.kernels.gpu.random_bits import bits_of, drawn, float_of, for_weights
from adamas.kernels.gpu.rule import mean, scalar, updated
from adamas.kernels.gpu.weights import joined, moved, widened


class Tables(NamedTuple):
    """What is the same for many steps, on the device.

    Args:
        rows: addresses and sizes of each tensor, int64: see `layout`.
        grads: the addresses of their gradients, 0 where there is none, int64.
        owners: the tensor of each program, int32.
    """

    rows: Any
    grads: Any
    owners: Any


class Scalars(NamedTuple):
    """The factors of `adamas.scalars.StepScalars`: numbers rounded to float32, or float64 tensors.

    `average_keep` is 1 - average, rounded once.
    """

    grad_factor: Any
    l2: Any
    beta1: Any
    beta1_complement: Any
    beta2: Any
    beta2_complement: Any
    step_size: Any
    eps: Any
    eps_root: Any
    decay: Any
    max_factor: Any
    average: Any
    average_keep: Any


class Options(NamedTuple):
    """What a kernel is compiled for.

    Args:
        param: "float32", "bfloat16" or "float16": of parameters and gradients.
        word: as what they are loaded and stored; bfloat16 as int16, its patterns.
        moments: as in `adamas.kernels.bucket.Storage`.
        v_bits: of packed second moments, else 0.
        m_bits: of packed first moments, else 0.
        master_bits: 0 without master weights.
        stochastic: whether weights are rounded without bias.
        amsgrad: whether a maximum is kept.
        averages: whether an average is kept.
        scaled: whether grad_factor may be other than 1.
        l2: whether there is L2.
        decoupled: whether there is decoupled decay.
        cautious: whether that rests where update and weight have opposite signs.
        usual: whether beta1 >= 1/2 and eps_root = 0: the same bits without three operations.
        moves: whether parameters may change.
        zero_grad: whether gradients are zeroed.
        may_skip: whether a tensor says that nothing is to change.
        random: whether random bits are drawn.
        where: of each of `Scalars` and of the random key, see `rule.scalar`.
        huge: whether a tensor has 2**32 elements or more.
    """

    param: str
    word: tl.dtype
    moments: str
    v_bits: int
    m_bits: int
    master_bits: int
    stochastic: bool
    amsgrad: bool
    averages: bool
    scaled: bool
    l2: bool
    decoupled: bool
    cautious: bool
    usual: bool
    moves: bool
    zero_grad: bool
    may_skip: bool
    random: bool
    where: Scalars
    where_key: int
    huge: bool


@triton.jit(do_not_specialize=["count", "first", "second"])
def step(tables, count, skip, scalars, first, second, OPT: tl.constexpr):
    """Step some blocks of a tensor.

    Args:
        tables: see `Tables`.
        count: blocks of a program.
        skip: whether nothing is to change; read with `OPT.may_skip`.
        scalars: the step's factors.
        first: of the key of random bits, an int32 or a pointer to int64.
        second: likewise.
        OPT: what it is compiled for.
    """
    tensor = tl.load(tables.owners + tl.program_id(0)).to(tl.int64)
    row = tables.rows + tensor * ROW
    at = addresses(row, tl.load(tables.grads + tensor), OPT)
    stays = False
    if OPT.may_skip:
        stays = tl.load(skip) != 0
    which = tl.load(row + WHICH)
    given = (scalars, which, key(first, OPT.where_key, which), key(second, OPT.where_key, which), stays)
    columns = tl.load(row + COLUMNS)
    per_row = tl.load(row + PER_ROW)
    block = (tl.program_id(0) - tl.load(row + FIRST)) * count
    last = tl.minimum(block + count, tl.load(row + BLOCKS))
    in_row = block // per_row
    column = (block - in_row * per_row) * WIDTH
    # Rows of 12-bit words begin anywhere unless they end where a block does.
    aligned = are_aligned(at) & ((columns % WIDTH == 0) | (OPT.m_bits != 5))
    while block < last:
        start = in_row * columns + column
        left = tl.minimum(columns - column, WIDTH)
        place = (start, left, block, in_row, column, columns)
        if aligned & (left == WIDTH) & ((start & 15) == 0):
            step_block(at, place, given, OPT, 4 if OPT.param == "float32" else 8)
        else:
            step_block(at, place, given, OPT, 0)
        block += 1
        column += WIDTH
        if column >= columns:
            column = column * 0
            in_row += 1


@triton.jit
def key(x, WHERE: tl.constexpr, which):
    """A number of the key of random bits, uint32."""
    if WHERE != 0:
        x = tl.load(x + which * (WHERE - 1))
    return x.to(tl.uint32)


@triton.jit
def step_block(at, place, given, OPT: tl.constexpr, WIDE: tl.constexpr):
    """One block.

    Args:
        at: the addresses of the tensor's arrays.
        place: of the block: its first element, how many it has, its number; the row, the column and the row's length.
        given: the scalars, the number of the tensor's step, the key of random bits, whether all is to stay.
        OPT: the kernel's options.
        WIDE: whether the block has 256 elements and begins at a multiple of 16 bytes in each array.
    """
    start, left, _, _, _, _ = place
    scalars, which, _, _, stays = given
    lane = lanes(left, OPT, WIDE)
    if (at[GRAD] != 0) | OPT.averages:
        theta = load_weights(at, start, lane, left, OPT, WIDE)
        if at[GRAD] != 0:
            if not stays:
                g = widened(load(at[GRAD], OPT.word, start, lane, left, WIDE), OPT)
                theta = stepped_weights(at, place, lane, theta, g, given, OPT, WIDE)
            if OPT.zero_grad:
                store(at[GRAD], tl.zeros((WIDTH,), OPT.word), start, lane, left, WIDE)
        if OPT.averages & (not stays):
            old = load(at[EMA], tl.float32, start, lane, left, WIDE)
            new = averaged(old, theta, scalars, which, OPT)
            store(at[EMA], new, start, lane, left, WIDE)


@triton.jit
def stepped_weights(at, place, lane, theta, g, given, OPT: tl.constexpr, WIDE: tl.constexpr):
    """The weights after the step; they and all state but the average are stored."""
    start, left, _, _, _, _ = place
    s, which, first, second, _ = given
    random = tl.zeros((WIDTH,), tl.uint32)
    if OPT.random:
        random = drawn(first, second, start, lane, OPT.huge)
    m, v = load_moments(at, place, lane, OPT, WIDE)
    v_max = v
    if OPT.amsgrad:
        v_max = load(at[MAX], tl.float32, start, lane, left, WIDE)
    change, m, v, v_max = updated(theta, g, m, v, v_max, s, which, OPT)
    store_moments(at, place, lane, (m, v), random, OPT, WIDE)
    if OPT.amsgrad:
        store(at[MAX], v_max, start, lane, left, WIDE)
    if OPT.moves:
        value = moved(theta, change, for_weights(random), OPT)
        if OPT.where.step_size != 0:  # lr = 0 moves nothing, not even where the change is not a number
            value = tl.where(scalar(s.step_size, OPT.where.step_size, which) == 0, theta, value)
        store_weights(at, value, start, lane, left, OPT, WIDE)
        theta = value
    return theta


@triton.jit
def load_weights(at, start, lane, left, OPT: tl.constexpr, WIDE: tl.constexpr):
    """The weights, float32, with the low bits where there are some."""
    theta = widened(load(at[PARAM], OPT.word, start, lane, left, WIDE), OPT)
    if OPT.master_bits == 24:
        low = load(at[LOW_BITS], tl.int8, start, lane, left, WIDE).to(tl.int32) << 8
        theta = float_of(joined(bits_of(theta), low.to(tl.uint32)))
    elif OPT.master_bits == 32:
        low = load(at[LOW_BITS], tl.int16, start, lane, left, WIDE).to(tl.int32)
        theta = float_of(joined(bits_of(theta), low.to(tl.uint32)))
    return theta


@triton.jit
def store_weights(at, value, start, lane, left, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Store weights that can be stored exactly."""
    bits = bits_of(value)
    if OPT.master_bits:
        # The lower half, read as signed, is what the upper one lacks once it is rounded.
        store(at[PARAM], ((bits + 0x8000) >> 16).to(tl.int16), start, lane, left, WIDE)
        if OPT.master_bits == 24:
            store(at[LOW_BITS], (bits >> 8).to(tl.int8), start, lane, left, WIDE)
        else:
            store(at[LOW_BITS], bits.to(tl.int16), start, lane, left, WIDE)
    elif OPT.param == "bfloat16":
        store(at[PARAM], (bits >> 16).to(tl.int16), start, lane, left, WIDE)
    else:
        store(at[PARAM], value.to(OPT.word), start, lane, left, WIDE)


@triton.jit
def averaged(old, theta, s, which, OPT: tl.constexpr):
    """The average of the weights, as they are stored, after this step; with a weight of 1 it is their copy."""
    weight = scalar(s.average, OPT.where.average, which)
    new = mean(old, theta, scalar(s.average_keep, OPT.where.average_keep, which), weight)
    return tl.where(weight == 1, theta, new)
