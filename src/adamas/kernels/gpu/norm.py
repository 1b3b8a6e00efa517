"""The kernel that sums the squares of a bucket's gradients, in one launch."""

from __future__ import annotations

import triton
import triton.language as tl

from adamas.kernels.gpu.layout import COUNT, FIRST_TILE, ROW, load
from adamas.kernels.gpu.table import TILE
from adamas.kernels.gpu.weights import widened

SIZE = tl.constexpr(TILE)


@triton.jit
def squares(tables, sums, OPT: tl.constexpr):
    """Write the sum of the squares of each program's tile of a gradient, added in float64, in a fixed order.

    Args:
        tables: see `arguments.Tables`, with the owners of tiles.
        sums: a float64 number for each program; 0 for a missing gradient.
        OPT: see `arguments.Word`.
    """
    tensor = tl.load(tables.owners + tl.program_id(0)).to(tl.int64)
    row = tables.rows + tensor * ROW
    grad = tl.load(tables.grads + tensor)
    start = (tl.program_id(0) - tl.load(row + FIRST_TILE)) * SIZE
    left = tl.load(row + COUNT) - start
    lane = tl.arange(0, SIZE)
    sum = tl.zeros((), tl.float64)
    if grad != 0:
        if ((grad & 15) == 0) & (left >= SIZE):
            g = widened(load(grad, OPT.word, start, lane, left, 4), OPT).to(tl.float64)
            sum = tl.sum(g * g, axis=0)
        else:
            g = widened(load(grad, OPT.word, start, lane, left, 0), OPT).to(tl.float64)
            sum = tl.sum(g * g, axis=0)
    tl.store(sums + tl.program_id(0), sum)
