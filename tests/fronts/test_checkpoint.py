"""State travels to and from torch.optim, old checkpoints and renamed models; a failed load changes nothing."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch

from adamas.torch import Adam, AdamW

CLASSES = [Adam, AdamW, torch.optim.Adam, torch.optim.AdamW]


def trained(
    optimizer_class: Any, steps: int = 3, dtype: torch.dtype = torch.float64, named: bool = False, **options: Any
) -> tuple[dict[str, torch.nn.Parameter], Any]:
    random = torch.Generator().manual_seed(2)
    params = {
        name: torch.nn.Parameter(torch.randn(shape, generator=random, dtype=torch.float64).to(dtype))
        for name, shape in (("a", (3, 2)), ("b", (4,)), ("c", ()))
    }
    given = params.items() if named else params.values()
    optimizer = optimizer_class(given, lr=0.05, **options)
    advance(params, optimizer, range(steps))
    return params, optimizer


def advance(params: dict[str, torch.nn.Parameter], optimizer: Any, steps: Any) -> None:
    for step in steps:
        for param in params.values():
            param.grad = torch.cos(param.detach() * (step + 1))
        optimizer.step()


def copied(params: dict[str, torch.nn.Parameter]) -> dict[str, torch.nn.Parameter]:
    return {name: torch.nn.Parameter(param.detach().clone()) for name, param in params.items()}


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(
    ("source", "target"),
    [pair for pair in itertools.product(CLASSES, CLASSES) if pair[0].__name__ == pair[1].__name__],
    ids=lambda each: f"{each.__module__}.{each.__name__}",
)
def test_state_travels_both_ways(source: Any, target: Any, amsgrad: bool) -> None:
    """Train, save, load into the other library, continue: as if nothing had happened."""
    params, optimizer = trained(source, weight_decay=0.1, amsgrad=amsgrad)
    other = copied(params)
    loaded = target(other.values(), lr=1.0, weight_decay=0.7)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(params, optimizer, range(3, 8))
    advance(other, loaded, range(3, 8))
    for name, param in params.items():
        torch.testing.assert_close(other[name], param, rtol=1e-13, atol=1e-14)


def test_torchs_state_has_torchs_keys_and_types() -> None:
    _, ours = trained(AdamW, named=True)
    _, theirs = trained(torch.optim.AdamW, named=True)
    mine, reference = ours.state_dict(), theirs.state_dict()
    assert mine["state"].keys() == reference["state"].keys()
    for key, state in reference["state"].items():
        assert {name: (value.dtype, value.shape) for name, value in mine["state"][key].items()} == {
            name: (value.dtype, value.shape) for name, value in state.items()
        }
    assert reference["param_groups"][0].keys() <= mine["param_groups"][0].keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_moments_of_sixteen_bit_parameters_are_not_cast(dtype: torch.dtype) -> None:
    params, optimizer = trained(AdamW, dtype=dtype)
    loaded = AdamW(copied(params).values())
    loaded.load_state_dict(optimizer.state_dict())
    for mine, theirs in zip(optimizer.state.values(), loaded.state.values(), strict=True):
        assert theirs["exp_avg_sq"].dtype == torch.float32
        assert torch.equal(mine["exp_avg_sq"], theirs["exp_avg_sq"])


def test_sixteen_bit_moments_from_torch_are_widened() -> None:
    params, optimizer = trained(torch.optim.AdamW, dtype=torch.bfloat16)
    loaded = AdamW(copied(params).values())
    loaded.load_state_dict(optimizer.state_dict())
    assert all(state["exp_avg"].dtype == torch.float32 for state in loaded.state.values())


@pytest.mark.parametrize("source", [torch.optim.Adam, torch.optim.AdamW, Adam, AdamW])
@pytest.mark.parametrize("target", [Adam, AdamW])
def test_a_checkpoint_never_switches_the_decay_mode(source: Any, target: Any) -> None:
    params, optimizer = trained(source, weight_decay=0.1)
    loaded = target(copied(params).values())
    decoupled = loaded.param_groups[0]["decoupled_weight_decay"]
    loaded.load_state_dict(optimizer.state_dict())
    assert loaded.param_groups[0]["decoupled_weight_decay"] is decoupled
    assert loaded.param_groups[0]["weight_decay"] == 0.1


def test_a_checkpoint_never_switches_implementation_flags() -> None:
    params, optimizer = trained(torch.optim.AdamW, foreach=True)
    loaded = AdamW(copied(params).values(), kernel="eager", decay="independent", weight_decay=1e-3)
    flags = {key: loaded.param_groups[0][key] for key in ("foreach", "fused", "kernel", "decay", "capturable")}
    loaded.load_state_dict(optimizer.state_dict())
    assert {key: loaded.param_groups[0][key] for key in flags} == flags


def test_the_base_of_independent_decay_survives_loading() -> None:
    params, optimizer = trained(AdamW, decay="independent", weight_decay=1e-3)
    optimizer.param_groups[0]["lr"] = 0.01  # what a scheduler would have made of it
    resumed = AdamW(copied(params).values(), lr=0.2, decay="independent", weight_decay=1e-3)
    resumed.load_state_dict(optimizer.state_dict())
    assert (resumed.param_groups[0]["lr"], resumed.param_groups[0]["decay_base_lr"]) == (0.01, 0.05)
    _, foreign = trained(torch.optim.AdamW)
    fresh = AdamW(copied(params).values(), lr=0.2, decay="independent", weight_decay=1e-3)
    fresh.load_state_dict(foreign.state_dict())
    assert fresh.param_groups[0]["decay_base_lr"] == 0.2


def test_state_is_matched_by_name_where_names_exist() -> None:
    params, optimizer = trained(torch.optim.AdamW, named=True)
    other = copied(params)
    reversed_order = AdamW(list(other.items())[::-1])
    reversed_order.load_state_dict(optimizer.state_dict())
    for name, param in params.items():
        assert torch.equal(reversed_order.state[other[name]]["exp_avg"], optimizer.state[param]["exp_avg"])
    assert reversed_order.param_groups[0]["param_names"] == ["c", "b", "a"]


def test_a_grown_model_keeps_the_state_of_its_old_parameters() -> None:
    params, optimizer = trained(AdamW, named=True)
    other = copied(params)
    new = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    grown = AdamW([("new", new), ("b", other["b"]), ("a", other["a"])])
    with pytest.warns(UserWarning, match=r"1 parameters start without state \(new\), 1 saved states .* \(c\)"):
        grown.load_state_dict(optimizer.state_dict())
    assert torch.equal(grown.state[other["a"]]["exp_avg_sq"], optimizer.state[params["a"]]["exp_avg_sq"])
    assert not grown.state.get(new)
    advance({**other, "new": new}, grown, range(2))


def old_checkpoint(optimizer: Any) -> dict[str, Any]:
    """As torch 1.x wrote them: integer steps, no maximize, foreach, capturable, fused or names."""
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        for key in ("maximize", "foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"):
            group.pop(key, None)
    for state in saved["state"].values():
        state["step"] = int(state["step"])
    return saved


def test_old_checkpoints_load() -> None:
    params, optimizer = trained(torch.optim.AdamW, weight_decay=0.1)
    other = copied(params)
    loaded = AdamW(other.values())
    loaded.load_state_dict(old_checkpoint(optimizer))
    advance(params, optimizer, range(3, 6))
    advance(other, loaded, range(3, 6))
    for name, param in params.items():
        torch.testing.assert_close(other[name], param, rtol=1e-13, atol=1e-14)


def wrong_shape(saved: dict[str, Any]) -> None:
    saved["state"][1]["exp_avg"] = torch.zeros(7)


def wrong_size(saved: dict[str, Any]) -> None:
    saved["param_groups"][0]["params"].append(3)


def wrong_groups(saved: dict[str, Any]) -> None:
    saved["param_groups"].append(copy.deepcopy(saved["param_groups"][0]))


def wrong_value(saved: dict[str, Any]) -> None:
    saved["param_groups"][0]["lr"] = float("nan")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_shape, r"exp_avg of parameter 1 has shape \(7,\), the parameter \(4,\)"),
        (wrong_size, "doesn't match the size of optimizer's group"),
        (wrong_groups, "different number of parameter groups"),
        (wrong_value, "Invalid learning rate: nan"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(damage: Any, message: str) -> None:
    _, optimizer = trained(AdamW)
    saved = copy.deepcopy(optimizer.state_dict())
    damage(saved)
    _, target = trained(AdamW, steps=5)
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(ValueError, match=message):
        target.load_state_dict(saved)
    after = target.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for key, state in before["state"].items():
        assert all(torch.equal(value, after["state"][key][name]) for name, value in state.items())


def test_loading_copies() -> None:
    """Training on after a load does not write into the checkpoint, nor into the source."""
    params, optimizer = trained(AdamW)
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    other = copied(params)
    loaded = AdamW(other.values())
    loaded.load_state_dict(saved)
    advance(other, loaded, range(2))
    for key, state in kept["state"].items():
        assert all(torch.equal(value, saved["state"][key][name]) for name, value in state.items())


def test_load_hooks_run() -> None:
    params, optimizer = trained(AdamW)
    loaded = AdamW(copied(params).values())
    seen = []
    loaded.register_load_state_dict_pre_hook(lambda *_: seen.append("pre"))
    loaded.register_load_state_dict_post_hook(lambda *_: seen.append("post"))
    loaded.load_state_dict(optimizer.state_dict())
    assert seen == ["pre", "post"]


def test_an_amsgrad_optimizer_takes_a_plain_state() -> None:
    """The maximum that is missing starts at the second moment."""
    params, optimizer = trained(AdamW)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["amsgrad"] = True
    other = copied(params)
    loaded = AdamW(other.values(), amsgrad=True)
    loaded.load_state_dict(saved)
    state = loaded.state[other["a"]]
    assert torch.equal(state["max_exp_avg_sq"], state["exp_avg_sq"])
    advance(other, loaded, range(2))


def test_parameters_in_another_memory_layout_get_their_state_in_it() -> None:
    weight = torch.nn.Parameter(torch.randn(2, 3, 4, 5))
    optimizer = AdamW([weight])
    weight.grad = torch.randn(2, 3, 4, 5)
    optimizer.step()
    other = torch.nn.Parameter(weight.detach().to(memory_format=torch.channels_last))
    loaded = AdamW([other])
    loaded.load_state_dict(optimizer.state_dict())
    other.grad = weight.grad.to(memory_format=torch.channels_last)
    optimizer.step()
    loaded.step()
    assert loaded.state[other]["exp_avg"].stride() == other.stride()
    assert torch.equal(weight.detach(), other.detach())


def groups_of(order: str, **values: dict[str, Any]) -> tuple[dict[str, torch.nn.Parameter], list[dict[str, Any]]]:
    params = {name: torch.nn.Parameter(torch.ones(2)) for name in "ab"}
    return params, [{"params": [(name, params[name])], **values[name]} for name in order]


def test_hyperparameters_follow_the_names_of_their_group() -> None:
    values = {"a": {"weight_decay": 0.5, "lr": 0.1}, "b": {"weight_decay": 0.0, "lr": 0.2}}
    params, groups = groups_of("ab", **values)
    source = AdamW(groups)
    for param in params.values():
        param.grad = torch.ones(2)
    source.step()
    _, groups = groups_of("ba", a={}, b={})
    target = AdamW(groups)
    target.load_state_dict(source.state_dict())
    loaded = {group["param_names"][0]: (group["weight_decay"], group["lr"]) for group in target.param_groups}
    assert loaded == {"a": (0.5, 0.1), "b": (0.0, 0.2)}
    merged = AdamW([{"params": [*params.items()]}, {"params": [("c", torch.nn.Parameter(torch.ones(1)))]}])
    with pytest.raises(ValueError, match="group 0 were saved in several groups with different values"):
        merged.load_state_dict(source.state_dict())


def test_names_that_agree_nowhere_are_refused() -> None:
    """Names of another model must not silently lose all state."""
    _, optimizer = trained(AdamW, named=True)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["param_names"] = [f"head.{name}" for name in saved["param_groups"][0]["param_names"]]
    _, target = trained(AdamW, named=True)
    with pytest.raises(ValueError, match=r"no parameter name agrees .* here 'a' ..., there 'head.a'"):
        target.load_state_dict(saved)


@pytest.mark.parametrize("other", [torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adamax, torch.optim.SGD])
def test_the_state_of_another_optimizer_is_refused(other: Any) -> None:
    options = {"momentum": 0.9} if other is torch.optim.SGD else {}
    params, optimizer = trained(other, **options)
    target = AdamW(copied(params).values())
    with pytest.raises(ValueError, match=r"the state of parameter 0 lacks .* not the state of an Adam or AdamW"):
        target.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("key", ["step", "exp_avg", "exp_avg_sq"])
def test_incomplete_states_are_refused(key: str) -> None:
    _, optimizer = trained(AdamW)
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["state"][1][key]
    with pytest.raises(ValueError, match=rf"the state of parameter 1 lacks {key}"):
        optimizer.load_state_dict(saved)
    saved["state"][1] = {**copy.deepcopy(saved["state"][0]), "step": torch.tensor(-1.0)}
    with pytest.raises(ValueError, match="step=-1"):
        optimizer.load_state_dict(saved)


def test_the_base_of_a_decay_that_depends_on_lr_is_not_taken_over() -> None:
    params, source = trained(AdamW)
    target = AdamW(copied(params).values(), lr=0.1, decay="independent", weight_decay=1e-3)
    target.load_state_dict(source.state_dict())
    assert target.param_groups[0]["decay_base_lr"] == 0.1


def test_loading_and_saving_again_stays_small(tmp_path: Any) -> None:
    """The counters are views of one tensor: copying each with all of it would be quadratic."""
    params = [torch.nn.Parameter(torch.ones(1)) for _ in range(2000)]
    optimizer = AdamW(params)
    for param in params:
        param.grad = torch.ones(1)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    torch.save(optimizer.state_dict(), tmp_path / "ours.pt")
    theirs = torch.optim.AdamW(params)
    theirs.step()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    sizes = [(tmp_path / f"{name}.pt").stat().st_size for name in ("ours", "theirs")]
    assert sizes[0] <= 1.1 * sizes[1]
