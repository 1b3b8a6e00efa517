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
