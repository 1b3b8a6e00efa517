"""The kernel that steps a bucket's tensors in one launch: it loads, decodes, steps, encodes and stores.

It writes parameters, moments, maxima, averages and, to zero them, gradients. Each program reads the addresses of one
tensor from the tables and takes some of its blocks through registers, once. Arguments are explained in `gpu/__init__`.
"""

from __future__ import annotations

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
    SKIP,
    START,
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


@triton.jit(do_not_specialize=["count", "first", "second"])
def step(tables, count, skip, scalars, first, second, OPT: tl.constexpr):
    """Step some blocks of a tensor.

    Args:
        tables: see `arguments.Tables`.
        count: the number of blocks of a program.
        skip: whether the step changes nothing; read only with `OPT.may_skip`.
        scalars: the step's factors, see `arguments.Scalars`.
        first: the first half of the key of random bits, an int32 number or a pointer to int64.
        second: the second half, an int32 number or a pointer to int64.
        OPT: see `arguments.Options`.
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
    # A row of 12-bit words may begin at any byte, unless all rows end where a block ends.
    aligned = are_aligned(at) & ((columns % WIDTH == 0) | (OPT.m_bits != 5))
    while block < last:
        start = in_row * columns + column
        left = tl.minimum(columns - column, WIDTH)
        index = start
        if OPT.sharded:
            index += tl.load(row + START) + in_row * tl.load(row + SKIP)
        place = (start, left, block, in_row, column, columns, index)
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
    """Return one half of the key of random bits, uint32."""
    if WHERE != 0:
        x = tl.load(x + which * (WHERE - 1))
    return x.to(tl.uint32)


@triton.jit
def step_block(at, place, given, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Step one block.

    `given` are the scalars, the number of the tensor's step, the two halves of the key of random bits, and whether
    nothing may change.
    """
    start, left, _, _, _, _, _ = place
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
    """Step and store the weights and all states but the average, and return the new weights."""
    start, left, _, _, _, _, index = place
    s, which, first, second, _ = given
    random = tl.zeros((WIDTH,), tl.uint32)
    if OPT.random:
        random = drawn(first, second, index, lane, OPT.huge)
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
        if OPT.where.step_size != 0:  # with lr = 0 no parameter may move, not even where the change is NaN
            value = tl.where(scalar(s.step_size, OPT.where.step_size, which) == 0, theta, value)
        store_weights(at, value, start, lane, left, OPT, WIDE)
        theta = value
    return theta


@triton.jit
def load_weights(at, start, lane, left, OPT: tl.constexpr, WIDE: tl.constexpr):
    """Load the weights as float32, with their low bits if they have them."""
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
    """Store float32 weights that the stored dtype holds exactly."""
    bits = bits_of(value)
    if OPT.master_bits:
        # The lower half, read as a signed number, is the difference to the rounded upper half.
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
    """Return the average of the stored weights after this step; with an averaging weight of 1 it is their copy."""
    weight = scalar(s.average, OPT.where.average, which)
    new = mean(old, theta, scalar(s.average_keep, OPT.where.average_keep, which), weight)
    return tl.where(weight == 1, theta, new)
