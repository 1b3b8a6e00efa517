"""Checkpoints of `adamas.numpy`, and of its trees of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adamas.numpy
import adamas.torch
from adamas.checkpoint import CheckpointError, file, load, load_weights, save


def tree(seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {"layers": [{"w": draw.normal(size=(20, 300)).astype("f4"), "b": np.zeros(300, "f4")}]}


def trained(options: dict[str, Any], steps: int) -> tuple[Any, Any]:
    params = tree()
    optimizer = adamas.numpy.AdamW(params, lr=1e-2, **options)
    for t in range(steps):
        optimizer.step(tree(t + 1))
    return params, optimizer


@pytest.mark.parametrize(
    "options",
    [{}, {"amsgrad": True}, {"state_dtype": "packed16", "ema_decay": 0.9}],
    ids=["plain", "amsgrad", "packed"],
)
def test_a_resumed_run_has_the_bits_of_a_whole_one(options: dict[str, Any], tmp_path: Path) -> None:
    whole, _ = trained(options, 6)
    _, optimizer = trained(options, 3)
    save(tmp_path / "half.safetensors", optimizer)
    again = load_weights(tmp_path / "half.safetensors", tree(9))
    resumed = load(tmp_path / "half.safetensors", adamas.numpy.AdamW(again, lr=1e-2, **options))
    for t in range(3, 6):
        resumed.step(tree(t + 1))
    for key in ("w", "b"):
        np.testing.assert_array_equal(again["layers"][0][key], whole["layers"][0][key])


def test_the_state_goes_on_in_torch(tmp_path: Path) -> None:
    params, optimizer = trained({"state_dtype": "packed12"}, 3)
    save(tmp_path / "x.safetensors", optimizer)
    assert list(file.read(tmp_path / "x.safetensors").entries) == ["layers/0/w", "layers/0/b"]
    linear = torch.nn.Linear(20, 300)
    rules = {"layers/0/w": ["weight", "transpose"], "layers/0/b": "bias"}
    load_weights(tmp_path / "x.safetensors", linear, rules=rules)
    theirs = load(
        tmp_path / "x.safetensors", adamas.torch.AdamW(linear.named_parameters(), lr=1e-2), linear, rules=rules
    )
    for t in range(3, 6):
        grads = tree(t + 1)["layers"][0]
        optimizer.step({"layers": [grads]})
        linear.weight.grad, linear.bias.grad = torch.tensor(grads["w"].T.copy()), torch.tensor(grads["b"])
        theirs.step()
    # packed12 rounds each moment by some per cent of a step.
    np.testing.assert_allclose(linear.weight.detach().numpy().T, params["layers"][0]["w"], atol=1e-2)
    np.testing.assert_allclose(linear.bias.detach().numpy(), params["layers"][0]["b"], atol=1e-6)


def test_steps_of_their_own_are_kept(tmp_path: Path) -> None:
    params = tree()
    optimizer = adamas.numpy.AdamW(params)
    optimizer.step({"layers": [{"w": tree(1)["layers"][0]["w"]}]})
    save(tmp_path / "x.safetensors", optimizer)
    loaded = load(tmp_path / "x.safetensors", adamas.numpy.AdamW(tree()))
    assert loaded.state_dict()["step"] == {"layers/0/w": 1, "layers/0/b": 0}


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    _, optimizer = trained({}, 2)
    save(tmp_path / "x.safetensors", optimizer)
    other = adamas.numpy.AdamW({"v": np.zeros(3)})
    with pytest.raises(CheckpointError, match="names do not agree"):
        load(tmp_path / "x.safetensors", other)
    assert other.state_dict()["step"] == {"v": 0}


TREES: dict[str, Any] = {
    "array": lambda: np.ones(3),
    "tuple": lambda: (np.ones(2), [np.ones(3)]),
    "empty first": lambda: {"a": {}, "b": (np.ones(2),)},
}


@pytest.mark.parametrize("name", TREES)
def test_any_tree_of_arrays_is_written_in_place(name: str, tmp_path: Path) -> None:
    params, zeros = TREES[name](), TREES[name]()
    optimizer = adamas.numpy.Adam(params)
    optimizer.step(TREES[name]())
    save(tmp_path / "x.safetensors", optimizer)
    assert load_weights(tmp_path / "x.safetensors", zeros) is zeros
    before, after = adamas.numpy.named(params), adamas.numpy.named(zeros)
    assert all(np.array_equal(before[key], after[key]) for key in before)
    assert load(tmp_path / "x.safetensors", adamas.numpy.Adam(zeros)).state_dict()["step"] == dict.fromkeys(before, 1)


def test_params_must_be_those_of_the_optimizer(tmp_path: Path) -> None:
    params = {"a": np.ones(2)}
    optimizer = adamas.numpy.Adam(params)
    save(tmp_path / "x.safetensors", optimizer, params)
    for call in (save, load):
        with pytest.raises(CheckpointError, match="params has other arrays than the optimizer for a"):
            call(tmp_path / "x.safetensors", optimizer, {"a": np.full(2, 7.0)})


def test_an_array_that_cannot_be_written_leaves_all_as_they_are(tmp_path: Path) -> None:
    save(tmp_path / "x.safetensors", adamas.numpy.Adam({"a": np.ones(2), "b": np.ones(2)}))
    zeros = {"a": np.zeros(2), "b": np.zeros(2)}
    zeros["b"].flags.writeable = False
    with pytest.raises(CheckpointError, match="b cannot be written to"):
        load_weights(tmp_path / "x.safetensors", zeros)
    assert not zeros["a"].any()


def test_hyperparameters_of_numpy_are_saved_as_numbers(tmp_path: Path) -> None:
    optimizer = adamas.numpy.Adam({"a": np.ones(2)})
    optimizer.lr = np.float32(0.5)
    save(tmp_path / "x.safetensors", optimizer)
    assert file.read(tmp_path / "x.safetensors").groups[0].hyper["lr"] == 0.5


def test_without_weight_decay_its_rule_makes_no_difference(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    linear = torch.nn.Linear(2, 1)
    save(tmp_path / "x.safetensors", torch.optim.Adam(linear.named_parameters()))
    params = {"weight": np.ones((1, 2), np.float32), "bias": np.ones(1, np.float32)}
    load(tmp_path / "x.safetensors", adamas.numpy.Adam(params), rules={"weight": ["weight", "same"]})
    assert not [str(each.message) for each in recwarn if "hyper-parameters" in str(each.message)]


@pytest.mark.parametrize("state_dtype", ["packed16", "packed12"])
def test_packed_moments_go_on_in_torch_bit_for_bit(state_dtype: Any, tmp_path: Path) -> None:
    """Where the axes stay, so do the stored bits."""
    _, optimizer = trained({"state_dtype": state_dtype}, 3)
    save(tmp_path / "x.safetensors", optimizer)
    weight, bias = torch.nn.Parameter(torch.zeros(20, 300)), torch.nn.Parameter(torch.zeros(300))
    theirs = adamas.torch.AdamW([("layers/0/w", weight), ("layers/0/b", bias)], lr=1e-2, state_dtype=state_dtype)
    load(tmp_path / "x.safetensors", theirs, rules={"layers/0/w": ["layers/0/w", "same"]})
    state = optimizer.state_dict()["state"]["layers/0/w"]
    assert all(np.array_equal(theirs.state[weight][key].numpy(), state[key]) for key in state)
