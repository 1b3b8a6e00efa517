"""Blocks of 256 scaled by their largest value, on a dynamic 8-bit map, to nearest: bitsandbytes, and torchao.

Dettmers et al., 8-bit Optimizers via Block-wise Quantization (arXiv:2110.02861), section 2; the map's values as
bitsandbytes' `create_dynamic_map` documents them; rounding as in its CUDA kernels (on a CPU, `quantize_blockwise` puts
some values beside the nearest code). torchao has the same map, block, scale and rounding and is left out: the one
difference is the guard on m's sign, of 5.5e-7 of the block's largest.
"""

from __future__ import annotations

import numpy as np

from benchmarks.tracking.rounding import nearest
from benchmarks.tracking.store import Moments

BLOCK = 256
DECADES = 7


def dynamic_map(signed: bool) -> Moments:
    """256 ascending values: 0, 1, and seven decades below 1, each cut twice as finely as the one below it.

    A value stands in the middle of its part of a decade. Signed, a decade's parts are half as many, once for each sign.
    """
    values = [0.0, 1.0]
    for decade in range(DECADES):
        parts = 2 ** (decade if signed else decade + 1)
        middles = 0.1 + 0.9 * (np.arange(parts) + 0.5) / parts
        middles *= 10.0 ** (decade - DECADES + 1)
        values += [*middles, *(-middles if signed else [])]
    return np.sort(np.array(values, dtype=np.float32))


SIGNED, UNSIGNED = dynamic_map(signed=True), dynamic_map(signed=False)


def store(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
    """Both moments, each with a float32 scale a block."""
    unit, scale = scaled(m)
    codes = nearest(unit, SIGNED)
    codes -= (SIGNED[codes] == 0) & (unit < 0)  # the sign of m outlives rounding
    share, largest = scaled(v)
    return (SIGNED[codes] * scale).ravel(), (UNSIGNED[nearest(share, UNSIGNED)] * largest).ravel()


def scaled(x: Moments) -> tuple[Moments, Moments]:
    """Blocks divided by their largest absolute value, and that; blocks of zeros by 1."""
    rows = x.reshape(-1, BLOCK)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    largest[largest == 0] = 1
    return rows / largest, largest
