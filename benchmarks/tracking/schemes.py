"""Every storage format in the experiment, ours in a table of their own."""

from __future__ import annotations

from math import prod

import numpy as np

from adamas.formats.moments import MOMENTS
from adamas.formats.random_bits import random_bits, step_key
from benchmarks.tracking import blockwise, grouped
from benchmarks.tracking.packed import packed
from benchmarks.tracking.rounding import store_bfloat16_nearest
from benchmarks.tracking.store import Moments, Scheme, Store


def stored(name: str) -> Store:
    """One of Adamas' own formats: rows of 1,024 elements, or one row where there are fewer."""

    def store(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
        columns = min(len(m), 1024)
        random = random_bits(step_key(0, step), np.arange(len(m))).reshape(-1, columns)
        found = MOMENTS[name].encode(m.reshape(-1, columns), v.reshape(-1, columns), random)
        m, v = MOMENTS[name].decode(found, columns)
        return m.ravel(), v.ravel()

    return store


def bytes_of(name: str) -> float:
    """Bytes a parameter of a matrix of 1,024 columns."""
    width = {"uint8": 1, "bfloat16": 2, "float32": 4}
    parts = MOMENTS[name].parts((1024, 1024)).values()
    return sum(prod(part.shape) * width[part.dtype] for part in parts) / 1024**2


def unchanged(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
    """float32 moments, stored as they are."""
    return m, v


OURS = {
    "float32": Scheme("float32", "two float32", "none", 8.0, "Adamas", unchanged),
    "bfloat16": Scheme("bfloat16", "two bfloat16", "unbiased", bytes_of("bfloat16"), "Adamas", stored("bfloat16")),
    "packed16": Scheme(
        "packed16", "9 bits v, 7 bits m", "unbiased", bytes_of("packed16"), "Adamas", stored("packed16")
    ),
    "packed12": Scheme(
        "packed12", "7 bits v, 5 bits m", "unbiased", bytes_of("packed12"), "Adamas", stored("packed12")
    ),
}
OTHERS = {
    "bfloat16-nearest": Scheme(
        "bfloat16 (torch fused)", "two bfloat16", "nearest", 4.0,
        "torch.optim on bfloat16 parameters", store_bfloat16_nearest,
    ),
    "bitsandbytes": Scheme(
        "8-bit (bitsandbytes, torchao)", "dynamic maps, blocks of 256", "nearest", 2 + 8 / blockwise.BLOCK,
        "arXiv:2110.02861", blockwise.store,
    ),
    "flashoptim": Scheme(
        "8-bit (flashoptim)", "linear sqrt(v), companded m, groups of 32", "nearest", 2 + 4 / grouped.GROUP,
        "arXiv:2602.23349", grouped.store,
    ),
    "packed16-nearest": Scheme(
        "packed16's grid, to nearest", "9 bits v, 7 bits m", "nearest", 2.05,
        "a control: packed16 but for the rounding", packed(9, 7, 256, unbiased=False),
    ),
}  # fmt: skip
SCHEMES = OURS | OTHERS
