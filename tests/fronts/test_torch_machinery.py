"""torch's own test machinery for optimizers, from its wheel: every error input, and our runs over all of its inputs."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

from adamas.torch import Adam, AdamW
from tests.conftest import needs_native

pytest.importorskip("expecttest", reason="torch's testing machinery needs expecttest")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_optimizers as machinery

INFOS = [
    machinery.OptimizerInfo(
        optimizer_class,
        optim_inputs_func=getattr(machinery, f"optim_inputs_func_{name}"),
        optim_error_inputs_func=getattr(machinery, f"optim_error_inputs_func_{name}"),
        supported_impls=("foreach", "differentiable", "fused"),
        has_capturable_arg=True,
        not_og_supported_flags=("foreach", "fused", "differentiable", "capturable", "maximize"),
    )
    for optimizer_class, name in ((Adam, "adam"), (AdamW, "adamw"))
]
THEIRS = {Adam: torch.optim.Adam, AdamW: torch.optim.AdamW}
by_name = pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)


@by_name
def test_error_inputs(info: Any) -> None:
    """Each raises what torch expects, in its words; there are at least the twelve of torch 2.13."""
    inputs = info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
    assert len(inputs) >= 12 or torch.__version__ < "2.13"
    for error in inputs:
        given = error.optimizer_error_input
        params = [torch.nn.Parameter(torch.randn(2, 3))] if given.params is None else given.params
        assert error.error_on is machinery.OptimizerErrorEnum.CONSTRUCTION_ERROR, given.desc
        if issubclass(error.error_type, Warning):
            with pytest.warns(error.error_type, match=error.error_regex):
                info.optim_cls(params, **given.kwargs)
        else:
            with pytest.raises(error.error_type, match=error.error_regex):
                info.optim_cls(params, **given.kwargs)


def inputs_of(info: Any, implementations: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Keyword arguments of torch's inputs, each with no flag and with each of the implementation flags."""
    plain = [given.kwargs for given in info.optim_inputs_func(device="cpu")]
    flagged = [{**kwargs, flag: True} for kwargs in plain for flag in implementations]
    return plain + flagged


def problem(optimizer_class: Any, **kwargs: Any) -> tuple[list[torch.nn.Parameter], Any]:
    random = torch.Generator().manual_seed(3)
    shapes = [(10, 5), (10,), (), (3, 0)]
    params = [torch.nn.Parameter(torch.randn(shape, generator=random, dtype=torch.float64)) for shape in shapes]
    return params, optimizer_class(params, **kwargs)


def descend(params: list[torch.nn.Parameter], optimizer: Any, steps: int) -> list[float]:
    losses = []
    sign = -1.0 if optimizer.param_groups[0]["maximize"] else 1.0
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sign * sum((param.square() + param.cos()).sum() for param in params)
        loss.backward()
        optimizer.step()
        losses.append(sign * loss.item())
    return losses


@by_name
def test_every_input_descends_and_equals_torch(info: Any) -> None:
    for kwargs in inputs_of(info, ("foreach",)):
        params, optimizer = problem(info.optim_cls, **kwargs)
        mirror, theirs = problem(THEIRS[info.optim_cls], **kwargs)
        losses, want = descend(params, optimizer, 30), descend(mirror, theirs, 30)
        assert losses[-1] < losses[0], kwargs
        assert losses == pytest.approx(want, rel=1e-12), kwargs


@needs_native
@by_name
def test_every_input_with_fused_equals_without(info: Any) -> None:
    for kwargs in inputs_of(info):
        runs = [problem(info.optim_cls, **kwargs, **flags) for flags in ({}, {"fused": True}, {"foreach": True})]
        losses = [descend(params, optimizer, 10) for params, optimizer in runs]
        assert losses[0] == losses[1], kwargs
        assert losses[0] == pytest.approx(losses[2], rel=1e-13), kwargs


@by_name
def test_state_dict_is_deterministic(info: Any) -> None:
    """A copy loaded half way arrives where the original does, bit for bit."""
    for kwargs in inputs_of(info):
        params, optimizer = problem(info.optim_cls, **kwargs)
        descend(params, optimizer, 5)
        other = [torch.nn.Parameter(param.detach().clone()) for param in params]
        loaded = info.optim_cls(other, **kwargs)
        loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert descend(params, optimizer, 5) == descend(other, loaded, 5)
        assert all(map(torch.equal, params, other))


@by_name
def test_flags_missing_from_old_groups_are_filled_in(info: Any) -> None:
    for kwargs in inputs_of(info):
        params, optimizer = problem(info.optim_cls, **kwargs)
        descend(params, optimizer, 2)
        saved = copy.deepcopy(optimizer.state_dict())
        for group in saved["param_groups"]:
            for flag in info.not_og_supported_flags:
                group.pop(flag)
        optimizer.load_state_dict(saved)
        descend(params, optimizer, 2)


@by_name
def test_zero_grad_and_empty_gradients(info: Any) -> None:
    """Without gradients nothing happens; with zero gradients and no decay nothing moves."""
    params, optimizer = problem(info.optim_cls, weight_decay=0.0)
    before = [param.detach().clone() for param in params]
    optimizer.zero_grad()
    optimizer.step()
    assert not any(optimizer.state.values())
    for param in params:
        param.grad = torch.zeros_like(param)
    optimizer.step()
    assert all(torch.equal(param.detach(), old) for param, old in zip(params, before, strict=True))


@by_name
def test_schedulers_of_the_machinery(info: Any) -> None:
    for make_scheduler in (
        lambda o: torch.optim.lr_scheduler.StepLR(o, gamma=0.9, step_size=10),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
    ):
        params, optimizer = problem(info.optim_cls, lr=0.1)
        scheduler = make_scheduler(optimizer)
        losses = []
        for _ in range(20):
            losses += descend(params, optimizer, 1)
            scheduler.step(*([losses[-1]] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))
        assert losses[-1] < losses[0]
