"""The tables of a bucket on its device: the addresses of its tensors, and the blocks of each program.

A table never changes: a graph may have captured it (`adamas.kernels.capture`), and a step on another stream may still
be reading it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamas.formats.names import PACKED, rows_and_columns
from adamas.formats.random_bits import Place
from adamas.kernels.bucket import Storage
from adamas.kernels.capture import is_captured

BLOCK = 256  # elements of a block
TILE = 8192  # elements of a gradient that one program squares
# A program is one warp, and a GPU holds a few thousand at a time. Up to this number each block has its own program;
# beyond it up to sixteen blocks share one, and the work that a program does once.
PROGRAMS, MOST_BLOCKS = 8192, 16
# States in the order of `layout`'s columns after the parameter; packed words take the column of the first moment.
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
    """How a bucket's tensors are cut into programs."""

    counts: list[int]  # the elements of each tensor
    columns: list[int]  # the length of each tensor's rows; no block crosses the end of a row
    blocks: list[int]  # the blocks of each tensor
    each: int  # the blocks of a program
    places: list[Place]  # the place of each tensor in its whole parameter

    @classmethod
    def of(cls, shapes: list[tuple[int, ...]], storage: Storage, places: list[Place] | None = None) -> Cut:
        """Return the cut for tensors of these shapes; without packed moments a tensor counts as one row.

        No block crosses the end of a run of a shard, where the next element has another than the next index.
        """
        counts, columns, blocks = [], [], []
        places = places or [Place()] * len(shapes)
        for shape, place in zip(shapes, places, strict=True):
            rows, length = rows_and_columns(shape)
            counts.append(rows * length)
            if place.skip:
                rows, length = rows * length // place.run, place.run
            elif storage.moments not in PACKED or (length % BLOCK == 0 and storage.moments != "packed12"):
                rows, length = 1, rows * length
            columns.append(max(length, 1))
            blocks.append(rows * -(-length // BLOCK))
        return cls(counts, columns, blocks, min(MOST_BLOCKS, max(1, sum(blocks) // PROGRAMS)), places)

    def programs(self) -> list[int]:
        """Return how many programs step each tensor."""
        return [-(-blocks // self.each) for blocks in self.blocks]

    def tiles(self) -> list[int]:
        """Return how many programs square each tensor's gradient."""
        return [-(-count // TILE) for count in self.counts]

    def huge(self) -> bool:
        """Return whether an element has a larger index in its parameter than 32 bits can hold."""
        ends = [place.after(count).first for place, count in zip(self.places, self.counts, strict=True)]
        return max(ends, default=0) >= 2**32


def upload(numbers: list[Any], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """Return numbers as a tensor on a device, without waiting for the copy."""
    if is_captured(device):
        # A graph would copy from the host's memory again at each replay. Addends are arguments of the launch itself.
        found = torch.zeros(len(numbers), dtype=dtype, device=device)
        torch._foreach_add_(list(found.unbind()), numbers)  # pyright: ignore[reportPrivateImportUsage]
        return found
    host = torch.from_numpy(np.array(numbers, dtype=str(dtype).removeprefix("torch.")))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def rows(addresses: list[list[int]], cut: Cut, which: list[int] | None, device: torch.device) -> Tensor:
    """Return the table of a bucket's tensors, 18 int64 numbers for each: see `layout`.

    Args:
        addresses: for each tensor the addresses of the parameter and of the states in `NAMES`; 0 for a missing one.
        cut: how the tensors are cut.
        which: the number of each tensor's step; None where there is one step.
        device: the device for the table.
    """
    table, first, tile = [], 0, 0
    for i, mine in enumerate(addresses):
        columns, blocks, count = cut.columns[i], cut.blocks[i], cut.counts[i]
        table += [*mine, columns, -(-columns // BLOCK), blocks, first, which[i] if which else 0, count, tile]
        table += [cut.places[i].first, cut.places[i].skip]
        first += -(-blocks // cut.each)
        tile += -(-count // TILE)
    return upload(table, device)


def owners(programs: list[int], device: torch.device) -> Tensor:
    """Return the tensor of each program, int32, made on the device: a billion parameters need 250,000 programs."""
    numbers = torch.arange(len(programs), dtype=torch.int32, device=device)
    return numbers.repeat_interleave(upload(programs, device), output_size=sum(programs))
