"""The formats in the experiment, published ones and ours: functions from moments to what is left of them when stored.

A store takes m, v and the step, which chooses the random bits where a format has some. `SCHEMES` is the table of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from adamas.formats.moments import MOMENTS
from adamas.formats.random_bits import random_bits, step_key

Moments = NDArray[np.float32]  # one-dimensional
Store = Callable[[Moments, Moments, int], tuple[Moments, Moments]]

BLOCK, DECADES = 256, 7  # of the 8-bit format of bitsandbytes
GROUP, FLOOR = 32, np.float32(1e-12)  # of flashoptim's
HALF = 0x80008000  # random bits that round both moments of our formats to nearest


def scaled(x: Moments, size: int) -> tuple[Moments, Moments]:
    """Return blocks divided by their largest absolute value, and these values; blocks of zeros are divided by 1."""
    rows = x.reshape(-1, size)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    largest[largest == 0] = 1
    return rows / largest, largest


def bfloat16_to_nearest(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
    """Store as torch's fused Adam does for bfloat16 parameters: computed in float32, rounded once, ties to even."""

    def rounded(x: Moments) -> Moments:
        bits = x.view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return ((bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)).view(np.float32)

    return rounded(m), rounded(v)


def dynamic_map(signed: bool) -> Moments:
    """Return 256 ascending values: 0, 1, and seven decades below 1, each cut twice as finely as the one below it.

    Each value is the middle of its part of a decade. With signs, a decade has half as many parts for each sign.
    """
    values = [0.0, 1.0]
    for decade in range(DECADES):
        parts = 2 ** (decade if signed else decade + 1)
        middles = 0.1 + 0.9 * (np.arange(parts) + 0.5) / parts
        middles *= 10.0 ** (decade - DECADES + 1)
        values += [*middles, *(-middles if signed else [])]
    return np.sort(np.array(values, dtype=np.float32))


SIGNED, UNSIGNED = dynamic_map(signed=True), dynamic_map(signed=False)


def blockwise(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
    """Store as bitsandbytes does: on a dynamic 8-bit map, to nearest, with a float32 scale for each block of 256.

    Dettmers et al., 8-bit Optimizers via Block-wise Quantization (arXiv:2110.02861), section 2; the map's values as
    bitsandbytes' `create_dynamic_map` documents them; rounding as in its CUDA kernels (on a CPU, `quantize_blockwise`
    puts some values beside the nearest code). torchao has the same map, block, scale and rounding; it differs in the
    guard on m's sign alone, by 5.5e-7 of the block's largest value.
    """

    def nearest(x: Moments, grid: Moments) -> NDArray[np.intp]:
        return np.searchsorted((grid[1:] + grid[:-1]) / 2, x)

    unit, scale = scaled(m, BLOCK)
    codes = nearest(unit, SIGNED)
    codes -= (SIGNED[codes] == 0) & (unit < 0)  # the sign of m outlives rounding
    share, largest = scaled(v, BLOCK)
    return (SIGNED[codes] * scale).ravel(), (UNSIGNED[nearest(share, UNSIGNED)] * largest).ravel()


def grouped(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
    """Store as flashoptim does: sqrt(v) linear and m companded by softsign, 8 bits each, to nearest, in groups of 32.

    Gonzalez Ortiz et al., FlashOptim (arXiv:2602.23349), algorithms 2 and 3; rounding, the scale's floor of 1e-12 and
    its float16 as in version 0.1, which divides by the float32 scale and multiplies by the stored one.
    """

    def in_groups(x: Moments) -> tuple[Moments, Moments]:
        rows = x.reshape(-1, GROUP)
        largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), FLOOR)
        return rows / largest, largest.astype(np.float16).astype(np.float32)

    unit, scale = in_groups(m)
    bent = np.floor(127 * (2 * unit / (1 + np.abs(unit))) + np.float32(0.5)) / np.float32(127)
    root, largest = in_groups(np.sqrt(v))
    root = np.floor(255 * root + np.float32(0.5)) / np.float32(255) * largest
    return (bent / (2 - np.abs(bent)) * scale).ravel(), np.square(root).ravel()


@dataclass(frozen=True)
class Scheme:
    """A way to store both moments.

    Attributes:
        label: name in figures and tables.
        rounding: "none", "nearest" or "unbiased".
        bytes: bytes a parameter of both moments and their scales.
        store: the format as a function.
    """

    label: str
    rounding: str
    bytes: float
    store: Store


def ours(name: str, label: str | None = None, to_nearest: bool = False) -> Scheme:
    """Return one of Adamas' own formats: rows of 1,024 elements, or one row where there are fewer."""

    def store(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
        columns = min(len(m), 1024)
        random = np.full(len(m), HALF) if to_nearest else random_bits(step_key(0, step), np.arange(len(m)))
        found = MOMENTS[name].encode(m.reshape(-1, columns), v.reshape(-1, columns), random.reshape(-1, columns))
        m, v = MOMENTS[name].decode(found, columns)
        return m.ravel(), v.ravel()

    width = {"uint8": 1, "bfloat16": 2, "float32": 4}
    parts = MOMENTS[name].parts((1024, 1024)).values()
    bytes_ = sum(prod(part.shape) * width[part.dtype] for part in parts) / 1024**2
    return Scheme(label or name, "nearest" if to_nearest else "unbiased", bytes_, store)


OURS = {
    "float32": Scheme("float32", "none", 8.0, lambda m, v, step: (m, v)),
    **{name: ours(name) for name in ("bfloat16", "packed16", "packed12")},
}
OTHERS = {
    "bfloat16-nearest": Scheme("bfloat16 (torch fused)", "nearest", 4.0, bfloat16_to_nearest),
    "bitsandbytes": Scheme("8-bit (bitsandbytes, torchao)", "nearest", 2 + 8 / BLOCK, blockwise),
    "flashoptim": Scheme("8-bit (flashoptim)", "nearest", 2 + 4 / GROUP, grouped),
    "packed16-nearest": ours("packed16", "packed16's grid, to nearest", to_nearest=True),  # a control
}
SCHEMES = OURS | OTHERS
