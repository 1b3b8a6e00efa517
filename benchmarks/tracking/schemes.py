"""Every storage format in the experiment, ours in a table of their own."""

from __future__ import annotations

from benchmarks.tracking import blockwise, grouped
from benchmarks.tracking.packed import packed
from benchmarks.tracking.rounding import bfloat16, store_bfloat16_nearest
from benchmarks.tracking.store import Moments, Scheme


def unchanged(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
    """float32 moments, stored as they are."""
    return m, v


OURS = {
    "float32": Scheme("float32", "two float32", "none", 8.0, "Adamas", unchanged),
    "bfloat16": Scheme("bfloat16", "two bfloat16", "unbiased", 4.0, "Adamas", bfloat16()),
    "packed16": Scheme("packed16", "9 bits v, 7 bits m", "unbiased", 2.05, "Adamas", packed(9, 7, 256)),
    "packed12": Scheme("packed12", "7 bits v, 5 bits m", "unbiased", 1.56, "Adamas", packed(7, 5, 128)),
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
