"""What timm's optimizer and scheduler tests ask for, without timm, which needs torchvision: `lr_scale` and its like."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamas.torch import Adam, AdamW, WeightDecaySchedule, param_groups

PAIRS = [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)]
both = pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["adam", "adamw"])
CLOSE: dict[str, float] = {"rtol": 1e-9, "atol": 1e-11}  # float64: rounding in another order only


class TimmSchedule:
    """As timm's schedulers act: they keep `initial_lr` in the group, and write lr = value * the group's `lr_scale`.

    Called with the epoch once an epoch and with the number of updates after each update.
    """

    def __init__(self, optimizer: Any, value: Callable[[int], float], *, by_update: bool) -> None:
        self.optimizer, self.value, self.by_update = optimizer, value, by_update
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.write(0)

    def write(self, t: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.value(t) * group.get("lr_scale", 1.0)

    def step(self, epoch: int) -> None:
        if not self.by_update:
            self.write(epoch)

    def step_update(self, updates: int) -> None:
        if self.by_update:
            self.write(updates)


def warm_cosine(t: int, warm: int = 3, total: int = 15) -> float:
    return (t + 1) / warm if t < warm else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t / total))


def vision_model() -> nn.Sequential:
    torch.manual_seed(0)
    # no bias before a batch norm, which undoes it: its gradient would be rounding, which Adam makes whole steps of
    layers = [nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 1)]
    return nn.Sequential(*layers).double()


def layer_decay_groups(model: nn.Module, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """As timm's `param_groups_layer_decay`: a group for each layer and decay, with `lr_scale` and `param_names`."""
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    depth = len(list(model.children()))
    for name, param in model.named_parameters():
        layer, decays = int(name.split(".")[0]), param.ndim > 1
        group = groups.setdefault(
            (layer, decays),
            {
                "lr_scale": layer_decay ** (depth - 1 - layer),
                "weight_decay": weight_decay if decays else 0.0,
                "param_names": [],
                "params": [],
            },
        )
        group["param_names"].append(name)
        group["params"].append(param)
    return list(groups.values())


def loss_of(model: nn.Module, step: int) -> Tensor:
    rows = torch.randn(6, 2, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    return (model(rows) - rows.sum(dim=1, keepdim=True)).square().mean()


def train(model: nn.Module, optimizer: Any, schedule: TimmSchedule | None, steps: int, first: int = 0) -> list[float]:
    losses = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if schedule is not None:
            schedule.step_update(step + 1)
            if (step + 1) % 5 == 0:
                schedule.step((step + 1) // 5)
    return losses


@both
@pytest.mark.parametrize("by_update", [False, True])
def test_layer_wise_rates_under_a_schedule(by_update: bool, ours: Any, theirs: Any) -> None:
    results = []
    for optimizer_class in (ours, theirs):
        model = vision_model()
        optimizer = optimizer_class(layer_decay_groups(model, 0.05, 0.75), lr=0.05)
        schedule = TimmSchedule(optimizer, warm_cosine, by_update=by_update)
        train(model, optimizer, schedule, 15)
        results.append([*model.parameters()])
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([rates[-1] * group["lr_scale"] for group in optimizer.param_groups])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)


@both
@pytest.mark.parametrize("when", [0, 7])
def test_a_checkpoint_of_such_groups_goes_on(when: int, ours: Any, theirs: Any) -> None:
    """timm's `--resume`: `lr_scale`, `initial_lr` and names travel in the groups; into ours from torch's too."""

    def fresh(optimizer_class: Any) -> tuple[nn.Module, Any, TimmSchedule]:
        model = vision_model()
        optimizer = optimizer_class(layer_decay_groups(model, 0.05, 0.75), lr=0.05)
        return model, optimizer, TimmSchedule(optimizer, warm_cosine, by_update=True)

    whole = fresh(ours)
    train(*whole, 14)
    for source, exact in ((ours, True), (theirs, False)):
        stopped, resumed = fresh(source), fresh(ours)
        train(*stopped, when)
        resumed[0].load_state_dict(stopped[0].state_dict())
        resumed[1].load_state_dict(copy.deepcopy(stopped[1].state_dict()))
        for group, saved in zip(resumed[1].param_groups, stopped[1].param_groups, strict=True):
            for key in ("lr_scale", "initial_lr", "param_names", "lr", "weight_decay"):
                assert group[key] == saved[key]
        train(*resumed, 14 - when, first=when)
        for mine, other in zip(resumed[0].parameters(), whole[0].parameters(), strict=True):
            if exact:
                assert torch.equal(mine, other)
            else:
                torch.testing.assert_close(mine, other, **CLOSE)


@both
def test_the_loss_falls_at_every_step(ours: Any, theirs: Any) -> None:
    """timm's `_test_model`: two sigmoid layers, twenty steps, each lower than the one before."""
    for optimizer_class in (ours, theirs):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid(), nn.Linear(3, 1), nn.Sigmoid())
        optimizer = optimizer_class(model.parameters(), lr=5e-2)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = model(torch.linspace(0.1, 0.6, 6).reshape(3, 2)).sum()
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
        assert losses == sorted(losses, reverse=True)


@both
@pytest.mark.parametrize("strided", [False, True])
def test_groups_of_one_tensor_and_a_rate_of_their_own(strided: bool, ours: Any, theirs: Any) -> None:
    results = []
    for optimizer_class in (ours, theirs):
        random = torch.Generator().manual_seed(0)
        weight, bias = (torch.randn(*shape, 2, generator=random) for shape in ((10, 5), (10,)))
        weight, bias = (x[..., 0] if strided else x[..., 0].contiguous() for x in (weight, bias))
        weight, bias = nn.Parameter(weight), nn.Parameter(bias)
        optimizer = optimizer_class([{"params": [weight]}, {"params": bias, "lr": 1e-2}], lr=1e-3)
        first = last = 0.0
        for step in range(200):
            optimizer.zero_grad()
            loss = (weight.mv(torch.arange(5.0)) + bias).square().sum()
            loss.backward()
            optimizer.step()
            first, last = (loss.item() if step == 0 else first), loss.item()
        assert last < first
        results.append([weight.detach(), bias.detach()])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)  # float32, 200 steps


def test_look_ahead_keeps_slow_weights_in_the_state() -> None:
    """timm's Lookahead wraps an optimizer: it shares `state` and `param_groups`, and adds a tensor of its own there."""
    results = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        model = vision_model()
        optimizer = optimizer_class(model.parameters(), lr=0.05)
        for step in range(12):
            train(model, optimizer, None, 1, first=step)
            if (step + 1) % 4:
                continue
            for param in model.parameters():
                state = optimizer.state[param]
                slow = state.setdefault("lookahead_slow_buff", param.detach().clone())
                slow.lerp_(param.detach(), 0.5)
                param.data.copy_(slow)
        fresh_model = vision_model()
        fresh_model.load_state_dict(model.state_dict())
        fresh = optimizer_class(fresh_model.parameters(), lr=0.05)
        fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for param, other in zip(model.parameters(), fresh_model.parameters(), strict=True):
            kept = fresh.state[other]["lookahead_slow_buff"]
            assert torch.equal(kept, optimizer.state[param]["lookahead_slow_buff"])
        train(fresh_model, fresh, None, 2, first=12)
        results.append(list(fresh_model.parameters()))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)


def test_our_groups_place_what_timms_place() -> None:
    """Its rule is `ndim <= 1 or a bias`: on a model of linear layers and batch norms ours is the same."""
    model = vision_model()
    optimizer = AdamW(param_groups(model, weight_decay=0.05))
    decaying = [param for group in optimizer.param_groups if group["weight_decay"] for param in group["params"]]
    assert set(map(id, decaying)) == {id(param) for param in model.parameters() if param.ndim > 1}


def test_dinos_schedule_of_weight_decay_beside_a_timm_schedule() -> None:
    """DINO writes a table of cosines into the groups that decay, by hand: the same values from the schedule."""
    table = [0.4 + 0.5 * (0.04 - 0.4) * (1 + math.cos(math.pi * i / 15)) for i in range(15)]
    results = []
    for by_hand in (True, False):
        model = vision_model()
        groups = [
            {"params": [param for param in model.parameters() if param.ndim > 1], "weight_decay": 0.04},
            {"params": [param for param in model.parameters() if param.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = AdamW(groups, lr=0.05)
        rates = TimmSchedule(optimizer, warm_cosine, by_update=True)
        decay = None if by_hand else WeightDecaySchedule(optimizer, "cosine", end=0.4, total_steps=15)
        for step, value in enumerate(table):
            if by_hand:
                optimizer.param_groups[0]["weight_decay"] = value
            train(model, optimizer, None, 1, first=step)
            rates.step_update(step + 1)
            if decay is not None:
                decay.step()
        results.append(list(model.parameters()))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)
