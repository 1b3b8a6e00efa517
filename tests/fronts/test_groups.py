"""Bad values, near-miss keys and wrong tensors: an error with the value, the rule and the fix; nothing is touched."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from adamas.torch import Adam, AdamW
from tests.conftest import needs_native

BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"lr": -1}, "Invalid learning rate: -1 .lr must be finite and >= 0"),
    ({"lr": math.nan}, "Invalid learning rate: nan"),
    ({"lr": math.inf}, "Invalid learning rate: inf"),
    ({"lr": "0.1"}, "Invalid learning rate: '0.1' is a str"),
    ({"lr": None}, "Invalid learning rate: None"),
    ({"lr": torch.tensor(-1.0)}, "Invalid learning rate"),
    ({"lr": torch.tensor([0.1, 0.1])}, "Tensor lr must be 1-element"),
    ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0 .betas must lie in"),
    ({"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
    ({"betas": (0.9, math.nan)}, "Invalid beta parameter at index 1: nan"),
    ({"betas": 0.9}, "must be a pair"),
    ({"betas": (0.9,)}, "must be a pair"),
    ({"eps": -1e-8}, "Invalid epsilon value: -1e-08"),
    ({"eps": math.nan}, "Invalid epsilon value: nan"),
    ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
    ({"weight_decay": math.inf}, "Invalid weight_decay value: inf"),
    ({"amsgrad": "yes"}, "amsgrad='yes' must be True or False"),
    ({"fused": "no"}, "fused='no' must be None, True or False"),
    ({"foreach": "no"}, "foreach='no' must be None, True or False"),
    ({"kernel": "bogus"}, "kernel='bogus' must be None"),
    ({"kernel": "native", "foreach": True}, "contradicts"),
    ({"kernel": "eager", "fused": True}, "contradicts"),
]


def param() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(3))


@pytest.mark.parametrize("optimizer_class", [Adam, AdamW])
@pytest.mark.parametrize(("values", "message"), BAD_VALUES, ids=lambda value: str(value)[:40])
def test_bad_values_are_refused_everywhere(optimizer_class: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer_class([param()], **values)
    with pytest.raises(ValueError, match=message):
        optimizer_class([{"params": [param()], **values}])
    weight = param()
    optimizer = optimizer_class([weight])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [param()], **values})
    assert len(optimizer.param_groups) == 1
    # Written into a live group, by a scheduler say: refused at the step, which changes nothing.
    weight.grad = torch.ones(3)
    optimizer.step()
    before, state = weight.detach().clone(), copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.param_groups[0].update(values)
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert torch.equal(weight.detach(), before)
    assert all(torch.equal(value, state[0][key]) for key, value in optimizer.state_dict()["state"][0].items())


@pytest.mark.parametrize("value", [0, 1, np.float64(0.1), np.float32(0.1), torch.tensor(0.1), torch.tensor([0.1])])
def test_numbers_of_other_libraries_are_taken(value: Any) -> None:
    weight = param()
    optimizer = AdamW([weight], lr=value, weight_decay=np.float32(0.1), betas=(np.float64(0.9), 0.99))
    weight.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((3,), 1 - float(value) * (1 + 0.1)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"decay": "independent", "weight_decay": 0.1}, {"amsgrad": True}])
def test_a_rate_that_a_schedule_writes_steps_as_a_group_read_afresh(options: dict[str, Any]) -> None:
    """The rate alone is read anew then, whatever number it is written as; all else is as it was."""
    weights, optimizers = [], []
    for _ in range(2):
        weights.append(torch.nn.Parameter(torch.ones(3, dtype=torch.float64)))
        optimizers.append(AdamW([weights[-1]], lr=0.1, **options))
    for rate in (0.1, 0.05, np.float64(0.025), np.float32(0.01), 0, 1, torch.tensor(0.3), 0.2):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.arange(1.0, 4.0, dtype=torch.float64)
            optimizer.param_groups[0]["lr"] = rate
        optimizers[1]._conductor.plan = None
        for optimizer in optimizers:
            optimizer.step()
        assert torch.equal(weights[0].detach(), weights[1].detach()), rate


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("wieght_decay", "weight_decay"), ("weight_deacy", "weight_decay"), ("weightdecay", "weight_decay"),
        ("weight-decay", "weight_decay"), ("beta", "betas"), ("LR", "lr"), ("amsgard", "amsgrad"),
        ("maximise", "maximize"), ("Betas", "betas"), ("epss", "eps"), ("for_each", "foreach"),
    ],
)  # fmt: skip
def test_near_misses_of_known_keys_are_refused(key: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"{key!r} is not known: did you mean {meant!r}"):
        AdamW([{"params": [param()], key: 0.1}])


FOREIGN = ["lr_scale", "name", "layer_id", "wd_mult", "group_name", "weight_decay_multiplier", "beta3", "eps2", "lrs"]


@pytest.mark.parametrize("key", FOREIGN)
def test_other_foreign_keys_are_kept_and_left_alone(key: str) -> None:
    weight = param()
    optimizer = AdamW([{"params": [weight], key: "mine"}])
    weight.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.param_groups[0][key] == "mine"
    assert optimizer.state_dict()["param_groups"][0][key] == "mine"


@pytest.mark.parametrize("optimizer_class", [Adam, AdamW])
def test_one_beta_as_a_tensor_is_refused_at_construction_as_in_torch(optimizer_class: Any) -> None:
    """Between steps it is taken: OneCycleLR and CyclicLR write a number beside a tensor."""
    mixed = (0.9, torch.tensor(0.9))
    with pytest.raises(ValueError, match="betas must be either both floats or both Tensors"):
        optimizer_class([param()], betas=mixed)
    with pytest.raises(ValueError, match="betas must be either both floats or both Tensors"):
        optimizer_class([{"params": [param()], "betas": mixed}])
    weights, betas = [param(), param()], (mixed, (0.9, 0.9))
    for weight, each in zip(weights, betas, strict=True):
        optimizer = optimizer_class([weight])
        optimizer.param_groups[0]["betas"] = each
        for value in (1.0, -2.0):
            weight.grad = torch.full((3,), value)
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=0)  # the tensor is float32


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_frozen_integer_parameters_are_kept_and_left_alone(dtype: torch.dtype) -> None:
    """As the quantised base of a QLoRA model: torch takes them, and no step touches them."""
    weight, base = param(), torch.nn.Parameter(torch.ones(5000, 70).to(dtype), requires_grad=False)
    before = base.clone()
    for options in ({}, {"state_dtype": "packed16"}, {"ema_decay": 0.9}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packed16, which a tensor of three elements does not get
            optimizer = AdamW([("weight", weight), ("base", base)], **options)
            weight.grad = torch.ones(3)
            optimizer.step()
        assert torch.equal(base, before)
        assert base not in optimizer.state


@pytest.mark.parametrize("bad", ["moment on another device", "moment of another shape"])
def test_states_that_do_not_fit_are_refused(bad: str) -> None:
    weights = [param(), param()]
    optimizer = AdamW(weights)
    for weight in weights:
        weight.grad = torch.ones(3)
    optimizer.step()
    before = weights[0].detach().clone()
    wrong = torch.zeros(3, device="meta") if "device" in bad else torch.zeros(4)
    optimizer.state[weights[1]]["exp_avg"] = wrong
    with pytest.raises(ValueError, match="exp_avg of parameter 1 of group 0"):
        optimizer.step()
    assert torch.equal(weights[0].detach(), before)
    assert optimizer.state[weights[0]]["step"] == 1


def test_expanded_parameters_are_refused() -> None:
    weight = torch.nn.Parameter(torch.ones(1, 3).expand(2, 3))
    optimizer = AdamW([weight])
    weight.grad = torch.ones(2, 3)
    with pytest.raises(ValueError, match="expanded"):
        optimizer.step()


def test_parameters_on_several_devices_are_stepped_where_they_are() -> None:
    here, there = param(), torch.nn.Parameter(torch.ones(3, device="meta"))
    optimizer = AdamW([here, there])
    here.grad, there.grad = torch.ones(3), torch.ones(3, device="meta")
    optimizer.step()
    assert here[0] < 1
    assert optimizer.state[there]["exp_avg"].device.type == "meta"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"kernel": "cuda"},
            ValueError,
            "kernel='cuda' must be None .automatic. or one of 'native', 'triton', 'eager'",
        ),
        ({"kernel": "native", "foreach": True}, ValueError, "contradicts"),
        ({"kernel": "eager", "fused": True}, ValueError, "contradicts"),
        ({"fused": True, "foreach": True}, RuntimeError, "`fused` and `foreach` cannot be `True` together"),
        ({"fused": True, "differentiable": True}, RuntimeError, "`fused` does not support `differentiable`"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AdamW([param()], **options)


@needs_native
@pytest.mark.parametrize("options", [{"kernel": "native"}, {"fused": True}])
def test_a_demanded_kernel_does_not_fall_back(options: dict[str, Any]) -> None:
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = AdamW([weight], **options)
    weight.grad = torch.ones_like(weight)
    with pytest.raises(RuntimeError, match=r"cannot be met: torch.complex64 has no native kernel"):
        optimizer.step()
    assert not optimizer.state


def test_independent_decay_wants_its_weight_decay_given() -> None:
    with pytest.raises(ValueError, match="needs weight_decay given"):
        AdamW([param()], decay="independent")
    with pytest.raises(ValueError, match="must be > 0 for decay='independent'"):
        AdamW([param()], decay="independent", weight_decay=0.1, lr=0.0)
    with pytest.raises(ValueError, match="decay='coupled' must be one of 'lr', 'independent', 'corrected'"):
        AdamW([param()], decay="coupled")
    AdamW([{"params": [param()], "weight_decay": 0.01}], decay="independent")
    AdamW([param()], decay="independent", weight_decay=0.01)


def test_independent_decay_follows_the_schedule_from_its_own_base() -> None:
    """theta shrinks by 1 - wd * lr / base_lr; OneCycleLR, which rewrites lr at once, does not move the base."""
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = AdamW([weight], lr=0.1, decay="independent", weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    expected = 1.0
    for step in range(10):
        weight.grad = torch.zeros(3, dtype=torch.float64)
        expected *= 1 - 0.01 * optimizer.param_groups[0]["lr"] / 0.1
        optimizer.step()
        if step < 9:
            scheduler.step()
    torch.testing.assert_close(weight.detach(), torch.full((3,), expected, dtype=torch.float64), rtol=1e-14, atol=0)


def test_duplicate_parameters_are_stepped_once() -> None:
    weight = param()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = Adam([weight, weight], lr=0.1)
    weight.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.9))
    assert optimizer.state[weight]["step"] == 1


@pytest.mark.parametrize("values", [{"decay": "l2"}, {"decoupled_weight_decay": False}])
def test_a_group_of_adamw_cannot_couple_its_decay(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="use Adam"):
        AdamW([{"params": [param()], **values}])
