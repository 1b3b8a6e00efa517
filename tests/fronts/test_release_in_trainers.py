"""`release_gradients` in trainers, and in several processes: it is right, or raises and names the remedy."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
import torch.distributed as dist
from torch import nn

from adamas.torch import AdamW, outside_clipping, release_gradients
from tests.fronts.test_phase import identical
from tests.fronts.training import Digest, batches, by_accelerate, by_fabric, by_lightning, by_transformers, fresh

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainers: deprecations, missing loggers, few workers

OPTIONS: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.0}  # the Trainer decides weight decay by itself
CLIPPED = r"set optimizer\.max_norm = 0\.05"
ACCUMULATED = r"optimizer\.step\(\) was not called since.*accumulate\(\)"


def by_hand(accumulate: int, clip: float | None) -> list[torch.Tensor]:
    """The weights after a loop of our own with `accumulate()` and `max_norm`."""
    model = fresh()
    optimizer = AdamW(model.parameters(), max_norm=clip, **OPTIONS)
    handle = release_gradients(model, optimizer)
    for number, (rows,) in enumerate(batches(), 1):
        last = number % accumulate == 0
        with contextlib.nullcontext() if last else handle.accumulate():
            (model(rows) / accumulate).backward()
        if last:
            optimizer.step(zero_grad=True)
    assert int(optimizer.state[model.net[0].weight]["step"]) == len(batches()) // accumulate
    return list(model.parameters())


# --- the adapters: the same bits as a loop by hand ------------------------------------------------------------------


def released_by(trainer: str, **how: Any) -> Digest:
    """A training whose trainer has the adapter; Accelerate needs only what `prepare` returned."""
    if trainer == "lightning":
        from adamas.torch.trainers.lightning import ReleaseGradients

        return by_lightning(AdamW, OPTIONS, callbacks=[ReleaseGradients()], **how)
    if trainer == "transformers":
        from adamas.torch.trainers.transformers import ReleaseGradients as ForTransformers

        return by_transformers(AdamW, OPTIONS, callbacks=[ForTransformers()], **how)
    options = {**OPTIONS, "max_norm": how.get("clip")}
    return by_accelerate(AdamW, options, prepared=release_gradients, **how)


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, 0.05)])
@pytest.mark.parametrize("trainer", ["lightning", "transformers", "accelerate"])
def test_adapters_hand_over_accumulation_and_clipping(
    trainer: str, accumulate: int, clip: float | None, tmp_path: Path
) -> None:
    """Each with the bits of a loop by hand; trainers accumulate a mean, of which halves are exact."""
    got = released_by(trainer, accumulate=accumulate, clip=clip, folder=tmp_path)
    assert all(param.grad is None for param in got.model.parameters())
    assert identical(list(got.model.parameters()), by_hand(accumulate, clip))
    if trainer == "transformers":  # it logs the norm that the optimizer measured
        assert all(norm > 0 for norm in got.norms)
        assert len(got.norms) == len(batches()) // accumulate


def test_lightning_settings_that_backward_cannot_follow_are_refused() -> None:
    from adamas.torch.trainers.lightning import ReleaseGradients

    with pytest.raises(ValueError, match="gradient_clip_algorithm='value': backward clips the norm"):
        by_lightning(AdamW, OPTIONS, callbacks=[ReleaseGradients()], clip=0.1, gradient_clip_algorithm="value")
    with pytest.raises(ValueError, match="automatic_optimization=False"):
        by_lightning(AdamW, OPTIONS, callbacks=[ReleaseGradients()], automatic=False)


# --- without an adapter: an error -----------------------------------------------------------------------------------


def releasing(model: nn.Module, optimizer: Any) -> Any:
    """Release as a user would who does not think of the trainer: with the optimizer itself."""
    return release_gradients(model, getattr(optimizer, "optimizer", optimizer))


@pytest.mark.parametrize("train", [by_accelerate, by_fabric, by_lightning, by_transformers])
@pytest.mark.parametrize(("how", "message"), [({"accumulate": 3}, ACCUMULATED), ({"clip": 0.05}, CLIPPED)])
def test_a_trainer_that_accumulates_or_clips_by_itself_is_noticed(
    train: Callable[..., Digest], how: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=message):
        train(AdamW, OPTIONS, prepared=releasing, folder=tmp_path, **how)


def test_a_trainer_that_only_measures_the_norm_gets_it_or_an_error(tmp_path: Path) -> None:
    """transformers measures with an infinite limit; the norm that is gone would be logged as 0."""
    with pytest.raises(RuntimeError, match=r"set optimizer\.max_norm = inf"):
        by_transformers(AdamW, OPTIONS, prepared=releasing, folder=tmp_path)
    measured = {**OPTIONS, "max_norm": math.inf}
    assert all(by_transformers(AdamW, measured, prepared=releasing, folder=tmp_path).norms)


def small() -> tuple[nn.Linear, AdamW]:
    model = nn.Linear(3, 1)
    return model, AdamW(model.parameters(), lr=0.1)


def test_a_loop_that_clips_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_clipping, "_releases", WeakSet())  # no other test's release is in use
    model, optimizer = small()
    handle = release_gradients(model, optimizer)
    utils = torch.nn.utils
    model(torch.ones(1, 3)).sum().backward()
    for call, message in (
        (lambda: utils.clip_grad_norm_(model.parameters(), 0.05), CLIPPED),
        (lambda: utils.clip_grad_norm_(model.weight, 0.05, 1.0), "only the 2-norm"),
        (lambda: utils.clip_grad_norm_(model.weight, 0.05, norm_type=math.inf), "only the 2-norm"),
        (lambda: utils.clip_grad_value_(model.parameters(), 0.05), "single values cannot be clipped"),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
    optimizer.step()
    optimizer.max_norm = 0.05
    model(torch.ones(1, 3)).sum().backward()
    assert float(utils.clip_grad_norm_(model.parameters(), 0.05)) == pytest.approx(2.0)  # ones, of 3 weights and a bias
    with pytest.raises(RuntimeError, match=r"max_norm = 0\.01"):
        utils.clip_grad_norm_(model.parameters(), 0.01)
    optimizer.step()
    (model(torch.ones(1, 3)).sum() * math.inf).backward()
    assert float(utils.clip_grad_norm_(model.parameters(), 0.05)) == math.inf
    with pytest.raises(RuntimeError, match="the norm of the gradients is inf"):
        utils.clip_grad_norm_(model.parameters(), 0.05, error_if_nonfinite=True)
    other = nn.Linear(3, 1)  # of which no backward steps anything
    other(torch.ones(1, 3)).sum().backward()
    assert float(utils.clip_grad_norm_(other.parameters(), 1.0)) == pytest.approx(2.0)
    utils.clip_grad_value_(other.parameters(), 0.1)
    assert float(other.weight.grad.max()) == pytest.approx(0.1)
    handle.remove()
    assert utils.clip_grad_norm_ is utils.clip_grad.clip_grad_norm_
    assert utils.clip_grad_value_ is utils.clip_grad.clip_grad_value_


def test_a_second_backward_before_the_step_is_noticed() -> None:
    """Accumulation without `accumulate()`, and the loss of a generator that reaches its critic."""
    model, optimizer = small()
    release_gradients(model, optimizer)
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(RuntimeError, match=ACCUMULATED):
        model(torch.ones(1, 3)).sum().backward()
    assert optimizer.state[model.weight]["step"] == 1
    model(torch.ones(1, 3)).sum().backward()  # the loop went on after the error
    optimizer.step()
    assert optimizer.state[model.weight]["step"] == 2


def test_a_gradient_that_comes_back_is_noticed() -> None:
    """As DistributedDataParallel writes it at the end of backward."""
    model, optimizer = small()
    release_gradients(model, optimizer)
    model(torch.ones(1, 3)).sum().backward()
    model.weight.grad = torch.ones(1, 3)
    with pytest.raises(RuntimeError, match=r"it has a gradient again: DistributedDataParallel"):
        optimizer.step()


# --- several processes ----------------------------------------------------------------------------------------------


def joined(meeting_point: str, rank: int, processes: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=processes)


def flat(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


def flat_with_originals(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)


def sharded(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    return fully_shard(model)


def wrapped_too_late(rank: int, meeting_point: str) -> None:
    """Run in each process: models wrapped after the release, or not at all."""
    torch.set_num_threads(1)
    ddp = nn.parallel.DistributedDataParallel
    joined(f"{meeting_point} {rank}", 0, 1)
    with pytest.raises(RuntimeError, match="it has a gradient again: DistributedDataParallel"):
        train(ddp)
    with pytest.raises(ValueError, match="FSDP replaces parameters: wrap first"):
        train(sharded)
    dist.destroy_process_group()
    joined(meeting_point, rank, 2)
    for wrap in (ddp, sharded, flat, flat_with_originals, lambda model: model):
        with pytest.raises(RuntimeError, match=r"in one of 2 processes.*step after backward, without release"):
            train(wrap)
        dist.barrier()
    os._exit(0)  # torch sometimes aborts while it unloads, over threads of gloo's


def train(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model, optimizer = small()
    release_gradients(model, optimizer)
    whole = wrap(model)
    whole(torch.ones(1, 3)).sum().backward()
    optimizer.step()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo")
def test_models_wrapped_after_the_release_are_noticed(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(wrapped_too_late, (str(tmp_path / "meeting"),), 2)
