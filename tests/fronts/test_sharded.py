"""Parameters sharded over processes train and save as whole ones do, bit for bit: see `sharding.py` for the checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # torch's own, of its launcher and of dcp without processes
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo"),
]
sharding: Any = pytest.importorskip("tests.fronts.sharding") if dist.is_available() else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which four processes ran all checks."""
    path = tmp_path_factory.mktemp("sharded")
    sharding.start(path)
    return path


@pytest.mark.parametrize("check", sharding.CHECKS if sharding else [], ids=lambda check: check.__name__)
def test_sharded(check: Callable[..., Any], folder: Path) -> None:
    for rank in range(sharding.PROCESSES):
        result = folder / f"{check.__name__}.{rank}"
        assert result.exists(), "an earlier check did not end"
        assert not result.read_text(), result.read_text()


def test_a_killed_process_leaves_the_checkpoint_before(folder: Path) -> None:
    """It has its name, it is whole, and it goes on as an uninterrupted run."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    assert [path.name for path in folder.glob("step-*")] == ["step-10"]
    assert (folder / "unfinished-14").exists()
    model, optimizer, grads = sharding.made(None, sharding.FORMATS["packed16 + 24"])
    found = {"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer)}
    dcp.load(found, checkpoint_id=folder / "step-10", no_dist=True)
    model.load_state_dict(found["model"])
    set_optimizer_state_dict(model, optimizer, found["optim"])
    sharding.train(model, optimizer, grads, range(10, 20))
    sharding.assert_equal(sharding.everything(model, optimizer), sharding.unsharded("packed16 + 24", 20))
    assert torch.is_tensor(model.even)
