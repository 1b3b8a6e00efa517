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
    dcp.load(found, checkpoint_id=folder / "step-10")
    model.load_state_dict(found["model"])
    set_optimizer_state_dict(model, optimizer, found["optim"])
    sharding.train(model, optimizer, grads, range(10, 20))
    sharding.assert_equal(sharding.everything(model, optimizer), sharding.unsharded("packed16 + 24", 20))
    assert torch.is_tensor(model.even)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"state_dtype": "packed16", "master_weight_bits": 24},
    {"state_dtype": "packed12", "ema_decay": 0.9},
    {"state_dtype": "bfloat16", "master_weight_bits": 32},
]


@pytest.mark.parametrize("after", range(len(OPTIONS)))
@pytest.mark.parametrize("before", range(len(OPTIONS)))
def test_the_planner_converts_as_load_state_dict_does(before: int, after: int, tmp_path: Path) -> None:
    """Every option may be turned on or off at resume, in one process here."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    from adamas.torch import AdamW, LoadPlanner

    torch.manual_seed(0)
    model = torch.nn.Linear(128, 70).bfloat16()
    saved = AdamW(model.parameters(), lr=0.01, **OPTIONS[before])
    for _ in range(3):
        model(torch.randn(5, 128).bfloat16()).square().mean().backward()
        saved.step(zero_grad=True)
    ours, expected = (AdamW(model.parameters(), **OPTIONS[after]) for _ in range(2))
    dcp.save({"optim": get_optimizer_state_dict(model, saved)}, checkpoint_id=tmp_path)
    found = {"optim": get_optimizer_state_dict(model, ours)}
    dcp.load(found, checkpoint_id=tmp_path, planner=LoadPlanner())
    set_optimizer_state_dict(model, ours, found["optim"])
    expected.load_state_dict(saved.state_dict())
    assert ours.param_groups[0]["lr"] == 0.01
    for param in model.parameters():
        assert ours.state[param].keys() == expected.state[param].keys()
        for name, tensor in ours.state[param].items():
            assert torch.equal(tensor, expected.state[param][name]), name
