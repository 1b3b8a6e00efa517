"""The tables of a bucket on its device: which program steps which blocks of which tensor, and where they lie.

A table is never changed once it was made: a graph may have captured it (`adamas.kernels.capture`), and a step on
another stream may still be reading it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamas.formats.names import PACKED, rows_and_columns
from adamas.kernels.bucket import Storage
from adamas.kernels.capture import is_captured
from adamas.kernels.gpu.layout import BLOCK, TILE

# Programs are one warp each. A GPU holds a few thousand at a time: up to there each block has its own, beyond that up
# to sixteen blocks share one, and what a program does only once.
PROGRAMS, MOST_BLOCKS = 8192, 16
# States in the order of `layout`'s columns after the parameter; the words of packed moments stand for the first moment.
NAMES = (
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "ema",
    "param_low",
    "exp_avg_scale",
    "exp_avg_sq_low",
    "exp_avg_sq_high",
)


@dataclass(frozen=True)
class Cut:
    """How a bucket's tensors are cut into programs.

    Args:
        counts: how many elements each tensor has.
        columns: the length of its rows, within which its blocks lie.
        blocks: how many blocks it has.
        each: blocks of a program.
    """

    counts: list[int]
    columns: list[int]
    blocks: list[int]
    each: int

    @classmethod
    def of(cls, shapes: list[tuple[int, ...]], storage: Storage) -> Cut:
        """The cut for tensors of these shapes: only packed moments need blocks to begin anew in each row."""
        counts, columns, blocks = [], [], []
        for shape in shapes:
            rows, length = rows_and_columns(shape)
            counts.append(rows * length)
            if storage.moments not in PACKED or (length % BLOCK == 0 and storage.moments != "packed12"):
                rows, length = 1, rows * length
            columns.append(max(length, 1))
            blocks.append(rows * -(-length // BLOCK))
        return cls(counts, columns, blocks, min(MOST_BLOCKS, max(1, sum(blocks) // PROGRAMS)))

    def programs(self) -> list[int]:
        """How many programs step each tensor."""
        return [-(-blocks // self.each) for blocks in self.blocks]

    def tiles(self) -> list[int]:
        """How many programs square each tensor's gradient."""
        return [-(-count // TILE) for count in self.counts]

    def huge(self) -> bool:
        """Whether 32 bits do not number a tensor's elements."""
        return max(self.counts, default=0) >= 2**32


def upload(numbers: list[Any], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Numbers on a device, for which the host does not wait."""
    if is_captured(device):
        # A graph would copy from the host's memory anew at each replay. Addends travel in the launch itself.
        found = torch.zeros(len(numbers), dtype=dtype, device=device)
        torch._foreach_add_(list(found.unbind()), numbers)  # pyright: ignore[reportPrivateImportUsage]
        return found
    host = torch.from_numpy(np.array(numbers, dtype=str(dtype).removeprefix("torch.")))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def rows(addresses: list[list[int]], cut: Cut, which: list[int] | None, device: torch.device) -> Tensor:
    """The table of a bucket's tensors, 16 numbers for each, int64: see `layout`.

    Args:
        addresses: of each tensor's parameter and of the states that `NAMES` names, 0 where there is none.
        cut: of these tensors.
        which: the number of each tensor's step; None where there is but one.
        device: on which it is to lie.
    """
    table, first, tile = [], 0, 0
    for i, mine in enumerate(addresses):
        columns, blocks, count = cut.columns[i], cut.blocks[i], cut.counts[i]
        table += [*mine, columns, -(-columns // BLOCK), blocks, first, which[i] if which else 0, count, tile]
        first += -(-blocks // cut.each)
        tile += -(-count // TILE)
    return upload(table, device)


def owners(programs: list[int], device: torch.device) -> Tensor:
    """The tensor of each program, int32: made on the device, for a billion parameters have a quarter of a million."""
    numbers = torch.arange(len(programs), dtype=torch.int32, device=device)
    return numbers.repeat_interleave(upload(programs, device), output_size=sum(programs))
