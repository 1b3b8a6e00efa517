"""Parameters sharded over two processes: one norm, one verdict, one average, as if they were whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from adamas.torch import AdamW

PROCESSES = 2


def compare(rank: int, meeting_point: str) -> None:
    """Run in each process: a sharded optimizer beside a whole one, with one step that only one process sees fail."""
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=PROCESSES)
    try:
        mesh = init_device_mesh("cpu", (PROCESSES,))
        random = torch.Generator().manual_seed(0)
        values, draws = ([torch.randn(shape, generator=random) for shape in ((5, 3), (7,))] for _ in range(2))

        def sharded(tensor: torch.Tensor) -> torch.Tensor:
            return distribute_tensor(tensor, mesh, [Shard(0)])

        parts = [torch.nn.Parameter(sharded(value)) for value in values]
        whole = [torch.nn.Parameter(value.clone()) for value in values]
        options: dict[str, Any] = {"lr": 0.1, "max_norm": 0.5, "ema_decay": 0.9, "skip_nonfinite": True}
        ours, plain = AdamW(parts, **options), AdamW(whole, **options)
        for step in range(4):
            for part, mirror, draw in zip(parts, whole, draws, strict=True):
                mirror.grad = draw * (step + 1)
                if step == 2 and mirror.ndim == 1:
                    mirror.grad[-1] = float("nan")  # in the last process's shard
                part.grad = sharded(mirror.grad)
            ours.step()
            plain.step()
            if step != 2:
                assert ours.grad_norm == pytest.approx(plain.grad_norm, rel=1e-12)
        assert ours.skipped_steps == plain.skipped_steps == 1
        for part, mirror in zip(parts, whole, strict=True):
            torch.testing.assert_close(part.full_tensor(), mirror.detach())
            torch.testing.assert_close(ours.state[part]["ema"].full_tensor(), plain.state[mirror]["ema"])
        briefly(sharded, values, draws)
        dist.barrier()  # nobody leaves while another waits for them
    finally:
        dist.destroy_process_group()
    os._exit(0)  # what unloads torch aborts now and then, over threads of gloo's


def briefly(sharded: Callable[[Tensor], Tensor], values: list[Tensor], draws: list[Tensor]) -> None:
    """bfloat16 weights, rounded by bits that know the element's place in the whole: the same bits as unsharded."""
    parts = [nn.Parameter(sharded(value.bfloat16())) for value in values]
    whole = [nn.Parameter(value.bfloat16()) for value in values]
    ours, plain = AdamW(parts, lr=0.1), AdamW(whole, lr=0.1, kernel="eager")
    for step in range(4):
        for part, mirror, draw in zip(parts, whole, draws, strict=True):
            mirror.grad = (draw * (step + 1)).bfloat16()
            part.grad = sharded(mirror.grad)
        ours.step()
        plain.step()
    for part, mirror in zip(parts, whole, strict=True):
        assert torch.equal(part.full_tensor(), mirror.detach())  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"parameter 0 is a DTensor: moments in fewer bits"):
        AdamW([nn.Parameter(sharded(torch.randn(64, 64)))], state_dtype="packed16")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, of its launcher
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo")
def test_clipping_skipping_and_averaging_of_shards(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(compare, (str(tmp_path / "meeting"),), PROCESSES)
