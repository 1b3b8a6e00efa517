"""A schedule of weight decay: closed forms, resuming, beside learning-rate schedulers, and what a step really uses."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from adamas.torch import Adam, AdamW, WeightDecaySchedule

OPTIMIZERS = [Adam, AdamW, torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD]
T = 8
SHAPES: dict[str, dict[str, Any]] = {
    "constant": {},
    "linear": {"end": 0.4, "total_steps": T},
    "cosine": {"end": 0.4, "total_steps": T},
    "inverse_lr": {},
}
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "OneCycleLR": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=T + 4),
    "CosineAnnealingLR": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=T),
    "LambdaLR": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 4)),
    "ExponentialLR": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.7),
}


def optimizer_of(optimizer_class: Any = AdamW, weight_decays: tuple[float, ...] = (0.04,), **options: Any) -> Any:
    groups = [{"params": [torch.nn.Parameter(torch.ones(3))], "weight_decay": decay} for decay in weight_decays]
    return optimizer_class(groups, **{"lr": 0.1, **options})


def shrink(optimizer: Any) -> list[float]:
    """What one step with zero gradients multiplies each group's weights by."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.data.fill_(1.0)
            param.grad = torch.zeros_like(param)
    optimizer.step()
    return [group["params"][0][0].item() for group in optimizer.param_groups]


@pytest.mark.parametrize("optimizer_class", OPTIMIZERS)
@pytest.mark.parametrize(
    ("shape", "arguments", "closed_form"),
    [
        ("constant", {}, lambda t: 0.04),
        ("linear", {"end": 0.4, "total_steps": T}, lambda t: 0.04 + 0.36 * min(t, T) / T),
        # DINO's table: final + (base - final) (1 + cos(pi t / T)) / 2
        ("cosine", {"end": 0.4, "total_steps": T}, lambda t: 0.4 - 0.18 * (1 + math.cos(math.pi * min(t, T) / T))),
        ("cosine", {"end": 0.0, "total_steps": T}, lambda t: 0.02 * (1 + math.cos(math.pi * min(t, T) / T))),
        (lambda t: 0.5**t, {}, lambda t: 0.04 * 0.5**t),
    ],
    ids=["constant", "linear", "cosine up", "cosine down", "function"],
)
def test_closed_forms(optimizer_class: Any, shape: Any, arguments: dict[str, Any], closed_form: Any) -> None:
    optimizer = optimizer_of(optimizer_class)
    schedule = WeightDecaySchedule(optimizer, shape, **arguments)
    for t in range(T + 3):
        (value,) = schedule.get_last_weight_decay()
        # 0.04 + 0.36 x against 0.4 - 0.36 (1 - x): four roundings of numbers below 0.5
        assert value == pytest.approx(closed_form(t), abs=4 * 2.0**-54)
        assert optimizer.param_groups[0]["weight_decay"] == value
        schedule.step()


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_it_begins_and_ends_exactly_and_never_turns(shape: str) -> None:
    for start, end in ((0.1, 0.3), (0.3, 0.1), (1e-300, 1e300), (0.7, 0.0)):
        optimizer = optimizer_of(weight_decays=(start,))
        schedule = WeightDecaySchedule(optimizer, shape, end=end, total_steps=97)
        values = schedule.get_last_weight_decay()
        for _ in range(100):
            schedule.step()
            values += schedule.get_last_weight_decay()
        assert values[0] == start
        assert values[97:] == [end] * 4
        assert values == sorted(values, reverse=end < start)


@pytest.mark.parametrize("shape", SHAPES)
def test_groups_have_their_own_start_and_those_without_decay_keep_none(shape: str) -> None:
    optimizer = optimizer_of(weight_decays=(0.04, 0.0, 0.2))
    alone = [optimizer_of(weight_decays=(decay,)) for decay in (0.04, 0.2)]
    schedule = WeightDecaySchedule(optimizer, shape, **SHAPES[shape])
    others = [WeightDecaySchedule(each, shape, **SHAPES[shape]) for each in alone]
    for t in range(T):
        for each in (optimizer, *alone):
            each.param_groups[0]["lr"] = 0.1 / (t + 1)
        optimizer.param_groups[2]["lr"] = 0.1 / (t + 1)
        for each in (schedule, *others):
            each.step()
        first, none, third = schedule.get_last_weight_decay()
        assert none == 0.0
        assert [first, third] == [each.get_last_weight_decay()[0] for each in others]


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("before", [True, False], ids=["made before the scheduler", "made after it"])
def test_the_product_stays_the_same(name: str, before: bool) -> None:
    """lr_t * wd_t is within three roundings of where it started, whatever moves lr; a rate of zero keeps the last."""
    optimizer = optimizer_of(weight_decays=(0.04, 0.5))
    if before and name != "OneCycleLR":  # it writes another rate when it is made: then its own start is meant
        schedule = WeightDecaySchedule(optimizer, "inverse_lr")
        scheduler = SCHEDULERS[name](optimizer)
    else:
        scheduler = SCHEDULERS[name](optimizer)
        schedule = WeightDecaySchedule(optimizer, "inverse_lr")
    lr = optimizer.param_groups[0]["initial_lr"]
    moved = set()
    for _ in range(T):
        optimizer.step()
        scheduler.step()
        before_it = schedule.get_last_weight_decay()
        schedule.step()
        for group, start, last in zip(optimizer.param_groups, (0.04, 0.5), before_it, strict=True):
            moved.add(group["lr"])
            if group["lr"] == 0.0:
                assert group["weight_decay"] == last > 0
            else:
                assert group["lr"] * group["weight_decay"] == pytest.approx(lr * start, rel=2**-51)
    assert len(moved) >= 3


def test_a_warm_up_from_zero_decays_as_the_base_rate_does() -> None:
    """At rate zero there is nothing to divide by: the value given stays until the rate is above it."""
    optimizer = optimizer_of()
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: step / 4)
    schedule = WeightDecaySchedule(optimizer, "inverse_lr")
    assert schedule.get_last_weight_decay() == [0.04]
    for step in range(1, 5):
        optimizer.step()
        scheduler.step()
        schedule.step()
        assert schedule.get_last_weight_decay()[0] == pytest.approx(0.04 * 4 / step)


def test_a_rate_too_small_to_divide_by_keeps_the_last_value() -> None:
    optimizer = optimizer_of()
    schedule = WeightDecaySchedule(optimizer, "inverse_lr")
    for lr, want in ((0.05, 0.08), (5e-324, 0.08), (0.0, 0.08), (0.2, 0.02)):
        optimizer.param_groups[0]["lr"] = lr
        schedule.step()
        assert schedule.get_last_weight_decay()[0] == pytest.approx(want)
        assert math.isfinite(optimizer.param_groups[0]["weight_decay"])


@pytest.mark.parametrize("lr", [torch.tensor(0.1, dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)])
def test_a_tensor_rate_is_read(lr: torch.Tensor) -> None:
    optimizer = optimizer_of(lr=lr)
    schedule = WeightDecaySchedule(optimizer, "inverse_lr")
    lr.mul_(0.5)
    schedule.step()
    assert schedule.get_last_weight_decay() == [0.04 * 0.1 / 0.05]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", ["lr", "independent"])
def test_a_step_uses_what_the_schedule_wrote(decay: str, shape: str, scheduler: str) -> None:
    """A weight of one without gradient becomes 1 - lr wd, or 1 - wd lr/base_lr, rounded once to float32."""
    base = 0.1
    optimizer = optimizer_of(weight_decays=(0.04, 0.0), decay=decay, lr=base)
    rates = SCHEDULERS[scheduler](optimizer)
    schedule = WeightDecaySchedule(optimizer, shape, **SHAPES[shape])
    for _ in range(T):
        group = optimizer.param_groups[0]
        lr, weight_decay = Fraction(group["lr"]), Fraction(group["weight_decay"])
        part = lr * weight_decay if decay == "lr" else weight_decay * lr / Fraction(base)
        with_decay, without = shrink(optimizer)
        assert without == 1.0
        assert with_decay == pytest.approx(float(1 - part), abs=2.0**-24)  # 1 - x lies in [.5, 1]: ULP 2^-24
        rates.step()
        schedule.step()


def test_the_same_factor_at_each_step_of_independent_decay() -> None:
    optimizer = optimizer_of(decay="independent")
    rates = lr_scheduler.CosineAnnealingLR(optimizer, T_max=T)
    schedule = WeightDecaySchedule(optimizer, "inverse_lr")
    for _ in range(T - 1):
        assert shrink(optimizer)[0] == pytest.approx(0.96, abs=2.0**-24)
        rates.step()
        schedule.step()


@pytest.mark.parametrize("shape", [*SHAPES, "function"])
@pytest.mark.parametrize("optimizer_first", [True, False])
def test_a_resumed_run_is_the_uninterrupted_one(shape: str, optimizer_first: bool) -> None:
    def fresh() -> tuple[Any, Any, Any]:
        optimizer = optimizer_of(weight_decays=(0.04, 0.0, 0.3))
        rates = lr_scheduler.CosineAnnealingLR(optimizer, T_max=T)
        what: Any = (lambda step: 1 / (1 + step)) if shape == "function" else shape
        return optimizer, rates, WeightDecaySchedule(optimizer, what, **SHAPES.get(shape, {}))

    def train(parts: tuple[Any, Any, Any], steps: int) -> list[Any]:
        trace = []
        for _ in range(steps):
            trace.append((shrink(parts[0]), parts[2].get_last_weight_decay()))
            parts[1].step()
            parts[2].step()
        return trace

    whole = train(fresh(), 2 * T)
    stopped = fresh()
    assert train(stopped, T) == whole[:T]  # of a cosine rate, which is zero here
    file = io.BytesIO()
    torch.save([part.state_dict() for part in stopped], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    parts = fresh()
    order = (0, 1, 2) if optimizer_first else (2, 1, 0)
    for i in order:
        parts[i].load_state_dict(saved[i])
    assert train(parts, T) == whole[T:]


def test_the_state_is_plain_numbers() -> None:
    optimizer = optimizer_of(weight_decays=(0.04, 0.5))
    schedule = WeightDecaySchedule(optimizer, "cosine", end=0.4, total_steps=T)
    schedule.step()
    state = schedule.state_dict()
    assert type(state["step"]) is int
    for key in ("base_weight_decays", "base_lrs", "last_weight_decays"):
        assert [type(value) for value in state[key]] == [float, float]
    state["last_weight_decays"][0] = 7.0  # a copy
    assert schedule.get_last_weight_decay()[0] < 1


def test_construction_decides_shape_and_length() -> None:
    """Loading carries the place on, not the plan: a run may be made longer."""
    first = WeightDecaySchedule(optimizer_of(), "linear", end=0.4, total_steps=4)
    for _ in range(4):
        first.step()
    longer = WeightDecaySchedule(optimizer_of(), "linear", end=0.4, total_steps=8)
    longer.load_state_dict(first.state_dict())
    assert longer.get_last_weight_decay() == [0.4]
    longer.step()
    assert longer.get_last_weight_decay() == [pytest.approx(0.04 + 0.36 * 5 / 8)]


def test_the_place_of_one_shape_is_that_of_another() -> None:
    """A run may be continued with another shape: the starting values are saved whatever the shape reads of them."""
    first = WeightDecaySchedule(optimizer_of(), "linear", end=0.4, total_steps=4)
    first.step()
    optimizer = optimizer_of()
    second = WeightDecaySchedule(optimizer, "inverse_lr")
    second.load_state_dict(first.state_dict())
    optimizer.param_groups[0]["lr"] = 0.05
    second.step()
    assert second.get_last_weight_decay() == [0.08]


def test_a_group_added_later_starts_where_it_is() -> None:
    optimizer = optimizer_of()
    schedule = WeightDecaySchedule(optimizer, lambda step: 1 / (1 + step))
    schedule.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "weight_decay": 0.3})
    assert schedule.get_last_weight_decay() == [0.02]
    schedule.step()
    assert schedule.get_last_weight_decay() == [pytest.approx(0.04 / 3), pytest.approx(0.3 / 3)]
    other = optimizer_of(weight_decays=(0.04, 0.3))
    loaded = WeightDecaySchedule(other, lambda step: 1 / (1 + step))
    loaded.load_state_dict(schedule.state_dict())
    assert [group["weight_decay"] for group in other.param_groups] == schedule.get_last_weight_decay()


def test_a_removed_group_is_refused_and_changes_nothing() -> None:
    """The group behind it would silently get its starting value."""
    optimizer = optimizer_of(weight_decays=(0.04, 0.2))
    schedule = WeightDecaySchedule(optimizer, "linear", end=0.4, total_steps=4)
    del optimizer.param_groups[0]
    message = (
        r"the optimizer has 1 parameter groups, and the schedule was made for 2: .* Make a new WeightDecaySchedule"
    )
    with pytest.raises(ValueError, match=message):
        schedule.step()
    assert schedule.state_dict()["step"] == 0
    assert optimizer.param_groups[0]["weight_decay"] == 0.2
    WeightDecaySchedule(optimizer, "linear", end=0.4, total_steps=4).step()


def test_copies_are_their_own() -> None:
    optimizer = optimizer_of()
    schedule = WeightDecaySchedule(optimizer, "linear", end=0.4, total_steps=4)
    other = copy.deepcopy(schedule)
    other.step()
    assert schedule.get_last_weight_decay() == [0.04]
    assert optimizer.param_groups[0]["weight_decay"] == 0.04
    assert other.optimizer.param_groups[0]["weight_decay"] > 0.04


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ("cosin", {"end": 0.0, "total_steps": 3}, r"shape='cosin' must be one of 'constant', 'linear', 'cosine', 'inv"),
        (None, {}, "shape=None must be one of"),
        ("cosine", {"total_steps": 3}, "end=None must be the weight decay"),
        ("cosine", {"end": -0.1, "total_steps": 3}, "end=-0.1 must be a finite number >= 0"),
        ("linear", {"end": math.inf, "total_steps": 3}, "end=inf must be a finite number >= 0"),
        ("linear", {"end": math.nan, "total_steps": 3}, "end=nan must be a finite number >= 0"),
        ("linear", {"end": "0.1", "total_steps": 3}, "end='0.1' must be a finite number >= 0"),
        ("linear", {"end": 0.1}, "total_steps=None must be an integer > 0"),
        ("linear", {"end": 0.1, "total_steps": 0}, "total_steps=0 must be an integer > 0"),
        ("linear", {"end": 0.1, "total_steps": -3}, "total_steps=-3 must be an integer > 0"),
        ("linear", {"end": 0.1, "total_steps": 2.5}, "total_steps=2.5 must be an integer > 0"),
        ("linear", {"end": 0.1, "total_steps": True}, "total_steps=True must be an integer > 0"),
        ("constant", {"end": 0.1}, "end=0.1 is read by 'linear' and 'cosine', not by 'constant'"),
        ("inverse_lr", {"total_steps": 3}, "total_steps=3 is read by 'linear' and 'cosine', not by 'inverse_lr'"),
        (lambda step: -1.0, {}, "the factor at step 0=-1.0 must be a finite number >= 0"),
        (lambda step: None, {}, "the factor at step 0=None must be a finite number >= 0"),
    ],
)
def test_refusals(shape: Any, arguments: dict[str, Any], message: str) -> None:
    optimizer = optimizer_of()
    with pytest.raises(ValueError, match=message):
        WeightDecaySchedule(optimizer, shape, **arguments)
    assert optimizer.param_groups[0]["weight_decay"] == 0.04


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(0.1), "a tensor, which must be a number"),
        (-0.1, "weight_decay=-0.1 must be a finite number >= 0"),
        (None, "weight_decay=None must be a finite number >= 0"),
    ],
)
def test_groups_that_cannot_be_scheduled_are_refused(value: Any, message: str) -> None:
    optimizer = optimizer_of(weight_decays=(0.04, 0.1))
    optimizer.param_groups[1]["weight_decay"] = value
    with pytest.raises(ValueError, match=f"group 1 has .*{message}"):
        WeightDecaySchedule(optimizer, lambda step: 0.5)
    assert optimizer.param_groups[0]["weight_decay"] == 0.04


def test_an_optimizer_that_does_not_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="group 0 has no weight_decay"):
        WeightDecaySchedule(torch.optim.LBFGS([torch.nn.Parameter(torch.ones(2))]))


def test_a_start_without_a_rate_is_refused_where_the_product_is_kept() -> None:
    with pytest.raises(ValueError, match=r"group 0 starts from lr=0.0, which must be > 0 for 'inverse_lr'"):
        WeightDecaySchedule(optimizer_of(lr=0.0), "inverse_lr")
    WeightDecaySchedule(optimizer_of(lr=0.0), "cosine", end=0.0, total_steps=3)
    optimizer = optimizer_of(weight_decays=(0.04, 0.0))
    optimizer.param_groups[1]["lr"] = 0.0  # a group at rest that does not decay has no product to keep
    assert WeightDecaySchedule(optimizer, "inverse_lr").get_last_weight_decay() == [0.04, 0.0]


def test_a_schedule_of_nothing_warns() -> None:
    with pytest.warns(UserWarning, match="no group has a weight_decay > 0"):
        schedule = WeightDecaySchedule(optimizer_of(weight_decays=(0.0, 0.0)), "cosine", end=0.1, total_steps=3)
    schedule.step()
    assert schedule.get_last_weight_decay() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"step": -1}, "step=-1 in the schedule's state must be an integer >= 0"),
        ({"step": 1.5}, "step=1.5 in the schedule's state must be an integer >= 0"),
        ({"base_weight_decays": [0.1, 0.2]}, "base_weight_decays in the schedule's state has 2 values"),
        ({"last_weight_decays": [math.nan]}, "last_weight_decays in the schedule's state=nan must be a finite number"),
        ({"base_lrs": None}, "the schedule's state lacks base_lrs"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(damage: dict[str, Any], message: str) -> None:
    optimizer = optimizer_of()
    schedule = WeightDecaySchedule(optimizer, "linear", end=0.4, total_steps=4)
    before = schedule.state_dict()
    schedule.step()
    state = {key: value for key, value in {**schedule.state_dict(), **damage}.items() if value is not None}
    schedule.load_state_dict(before)
    with pytest.raises(ValueError, match=message):
        schedule.load_state_dict(state)
    assert schedule.state_dict() == before
    assert optimizer.param_groups[0]["weight_decay"] == 0.04


def test_a_refused_factor_leaves_the_last_step() -> None:
    optimizer = optimizer_of(weight_decays=(0.04, 0.2))
    schedule = WeightDecaySchedule(optimizer, lambda step: 1.0 - step)
    schedule.step()
    with pytest.raises(ValueError, match=r"the factor at step 2=-1.0 must be a finite number >= 0"):
        schedule.step()
    assert schedule.state_dict()["step"] == 1
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.0]
