"""torch.optim and our optimizers to a file and back, in every storage; state dicts in .pt files."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adamas.torch
from adamas.checkpoint import CheckpointError, convert, file, load, load_weights, save

Make = Callable[[torch.nn.Module], torch.optim.Optimizer]


def model(dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(80, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3)).to(dtype)


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(16, 80, generator=torch.Generator().manual_seed(step)).to(next(net.parameters()).dtype)
        optimizer.zero_grad()
        (net(x) ** 2).sum().backward()
        optimizer.step()


def ours(**options: Any) -> Make:
    return lambda net: adamas.torch.AdamW(net.named_parameters(), **options)


STORAGES: dict[str, tuple[Make, torch.dtype]] = {
    "torch.optim.AdamW": (lambda net: torch.optim.AdamW(net.named_parameters()), torch.float32),
    "torch.optim.Adam": (
        lambda net: torch.optim.Adam(net.parameters(), weight_decay=0.1, maximize=True),
        torch.float32,
    ),
    "torch, amsgrad": (lambda net: torch.optim.AdamW(net.named_parameters(), amsgrad=True), torch.float32),
    "torch, float64": (lambda net: torch.optim.AdamW(net.named_parameters()), torch.float64),
    "ours": (ours(), torch.float32),
    "ours, average": (ours(ema_decay=0.9), torch.float32),
    "ours, amsgrad": (ours(amsgrad=True), torch.float32),
    "packed16": (ours(state_dtype="packed16"), torch.float32),
    "packed12": (ours(state_dtype="packed12"), torch.float32),
    "bfloat16": (ours(state_dtype="bfloat16"), torch.float32),
    "bf16 weights": (ours(), torch.bfloat16),
    "master 24, packed16": (ours(master_weight_bits=24, state_dtype="packed16"), torch.bfloat16),
    "master 32": (ours(master_weight_bits=32), torch.bfloat16),
    "fp16 weights": (ours(), torch.float16),
}


@pytest.mark.parametrize("name", STORAGES)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, name: str) -> None:
    """Bit for bit: packed moments and low bits of weights are kept as they are."""
    make, dtype = STORAGES[name]
    net = model(dtype)
    optimizer = make(net)
    train(net, optimizer, range(5))
    save(tmp_path / "x.safetensors", optimizer, net)
    again = model(dtype)
    for param in again.parameters():
        param.data.zero_()
    load_weights(tmp_path / "x.safetensors", again)
    resumed = load(tmp_path / "x.safetensors", make(again), again)
    for each, other in ((net, optimizer), (again, resumed)):
        train(each, other, range(5, 10))
    for mine, other in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)
        for key, value in optimizer.state[mine].items():
            assert torch.equal(value, resumed.state[other][key]), key


@pytest.mark.parametrize("name", ["packed16", "packed12"])
def test_packed_moments_become_float32_for_others(tmp_path: Path, name: str) -> None:
    net = model()
    optimizer = STORAGES[name][0](net)
    train(net, optimizer, range(3))
    save(tmp_path / "x.safetensors", optimizer)
    assert any(key == name for key in file.read(tmp_path / "x.safetensors").entries["0.weight"].arrays)
    plain = torch.optim.AdamW(net.named_parameters())
    load(tmp_path / "x.safetensors", plain)
    assert isinstance(optimizer, adamas.torch.AdamW)
    for param in net.parameters():
        exp_avg, exp_avg_sq = optimizer.moments(param)
        assert torch.equal(plain.state[param]["exp_avg"], exp_avg)
        assert torch.equal(plain.state[param]["exp_avg_sq"], exp_avg_sq)
    report = convert(
        tmp_path / "x.safetensors", tmp_path / "y", to="jax", rules={"*.weight": ["*.kernel", "transpose"]}
    )
    assert any("packed moments of 1 parameters are decoded" in note for note in report.notes)
    entry = file.read(tmp_path / "y").entries["0.kernel"]
    assert np.array_equal(entry.arrays["exp_avg"].T, optimizer.moments(net[0].weight)[0].numpy())


def test_float32_moments_are_packed_where_the_optimizer_packs(tmp_path: Path) -> None:
    net = model()
    plain = torch.optim.AdamW(net.named_parameters())
    train(net, plain, range(3))
    save(tmp_path / "x.safetensors", plain)
    lean = load(tmp_path / "x.safetensors", adamas.torch.AdamW(net.named_parameters(), state_dtype="packed16"))
    assert "packed16" in lean.state[net[0].weight]
    error = lean.moments(net[0].weight)[1] / plain.state[net[0].weight]["exp_avg_sq"] - 1
    assert error.abs().max() < 0.05


def test_a_master_weight_is_whole_in_float32(tmp_path: Path) -> None:
    net = model(torch.bfloat16)
    optimizer = adamas.torch.AdamW(net.named_parameters(), master_weight_bits=32)
    train(net, optimizer, range(3))
    save(tmp_path / "x.safetensors", optimizer)
    wide = load_weights(tmp_path / "x.safetensors", model())
    for param, other in zip(net.parameters(), wide.parameters(), strict=True):
        assert torch.equal(optimizer.master(param), other)
        assert not torch.equal(param.float(), other)


def test_state_needs_names(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    with pytest.raises(CheckpointError, match=r"parameter 0 of a group has no name.* give params=model"):
        save(tmp_path / "x.safetensors", optimizer)
    with pytest.raises(CheckpointError, match="has no name"):
        save(tmp_path / "x.safetensors", optimizer, model())  # another model's parameters
    save(tmp_path / "x.safetensors", optimizer, dict(net.named_parameters()))
    save(tmp_path / "x.safetensors", optimizer, net.named_parameters())
    load(tmp_path / "x.safetensors", optimizer, net.named_parameters())


def test_a_parameter_without_a_step_has_step_0(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.named_parameters(), amsgrad=True)
    net[0].requires_grad_(False)
    train(net, optimizer, range(3))
    save(tmp_path / "x.safetensors", optimizer)
    steps = {name: entry.step for name, entry in file.read(tmp_path / "x.safetensors").entries.items()}
    assert steps == {"0.weight": 0, "0.bias": 0, "2.weight": 3, "2.bias": 3}
    again = load(tmp_path / "x.safetensors", torch.optim.AdamW(net.named_parameters(), amsgrad=True))
    assert net[0].weight not in again.state
    assert again.state[net[2].weight]["step"] == 3


def test_hyperparameters_stay_and_a_warning_tells_which_differ(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.named_parameters(), lr=0.1)
    train(net, optimizer, range(2))
    save(tmp_path / "x.safetensors", optimizer)
    with warnings.catch_warnings():
        load(tmp_path / "x.safetensors", torch.optim.AdamW(net.named_parameters(), lr=0.1))
    other = adamas.torch.Adam(net.named_parameters(), lr=0.2, weight_decay=0.01)
    with pytest.warns(UserWarning, match=r"keeps its own.*: lr=0.2 \(checkpoint: 0.1\), decay=l2 \(checkpoint: lr\)"):
        load(tmp_path / "x.safetensors", other)
    assert other.param_groups[0]["lr"] == 0.2
    assert not other.param_groups[0]["decoupled_weight_decay"]


def test_groups_keep_their_hyperparameters(tmp_path: Path) -> None:
    net = model()
    groups = [{"params": net[0].named_parameters("0"), "lr": 0.5}, {"params": net[2].named_parameters("2")}]
    optimizer = adamas.torch.AdamW(groups, weight_decay=0.1, decay="independent")
    train(net, optimizer, range(1))
    save(tmp_path / "x.safetensors", optimizer)
    found = file.read(tmp_path / "x.safetensors").groups
    assert [group.names for group in found] == [["0.weight", "0.bias"], ["2.weight", "2.bias"]]
    assert [group.hyper["lr"] for group in found] == [0.5, 1e-3]
    assert [group.hyper["base_lr"] for group in found] == [0.5, 1e-3]
    assert {group.hyper["decay"] for group in found} == {"independent"}


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.named_parameters())
    train(net, optimizer, range(2))
    save(tmp_path / "x.safetensors", optimizer)
    before = deepcopy(optimizer.state_dict())
    other = torch.nn.Sequential(torch.nn.Linear(64, 80), torch.nn.Tanh(), torch.nn.Linear(64, 3))
    with pytest.raises(CheckpointError, match=r"0.weight has shape \(64, 80\) in the checkpoint and \(80, 64\)"):
        load(tmp_path / "x.safetensors", torch.optim.AdamW(other.named_parameters()))
    with pytest.raises(CheckpointError, match=r"Only in the checkpoint: 2.weight, 2.bias. Only in the optimizer or"):
        load_weights(tmp_path / "x.safetensors", torch.nn.Sequential(torch.nn.Linear(80, 64)))
    with pytest.raises(CheckpointError, match=r"amsgrad: the running maximum of the checkpoint is absent"):
        load(tmp_path / "x.safetensors", torch.optim.AdamW(net.named_parameters(), amsgrad=True))
    save(tmp_path / "y.safetensors", optimizer, weights=False)
    with pytest.raises(CheckpointError, match="has no weights of 0"):
        load_weights(tmp_path / "y.safetensors", net)
    kept = optimizer.state_dict()
    assert str(kept) == str(before)


def test_parts_of_a_model_are_left_out_by_a_rule(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.named_parameters())
    train(net, optimizer, range(2))
    save(tmp_path / "x.safetensors", optimizer)
    body = torch.nn.Sequential(torch.nn.Linear(80, 64))
    rules = {"2.*": None}
    load_weights(tmp_path / "x.safetensors", body, rules=rules)
    resumed = load(tmp_path / "x.safetensors", torch.optim.AdamW(body.named_parameters()), rules=rules)
    assert torch.equal(resumed.state[body[0].weight]["exp_avg"], optimizer.state[net[0].weight]["exp_avg"])


def test_optimizers_that_are_no_adam_are_refused(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.named_parameters(), momentum=0.9)
    train(net, optimizer, range(1))
    with pytest.raises(CheckpointError, match="not those of an Adam or AdamW"):
        save(tmp_path / "x.safetensors", optimizer)
    complex_ = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(CheckpointError, match="is complex64"):
        save(tmp_path / "x.safetensors", torch.optim.AdamW([("x", complex_)]))
    with pytest.raises(CheckpointError, match=r"a str (is no optimizer|holds 0 Adam states)"):
        save(tmp_path / "x.safetensors", "optimizer")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", [None, "optimizer", "optimizer_state_dict"])
def test_a_state_dict_in_a_pt_file_is_converted(tmp_path: Path, key: str | None) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.named_parameters())
    train(net, optimizer, range(2))
    saved: Any = optimizer.state_dict()
    torch.save(saved if key is None else {key: saved, "model": net.state_dict(), "epoch": 3}, tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "x.safetensors", to="torch")
    again = load(tmp_path / "x.safetensors", torch.optim.AdamW(net.named_parameters()))
    for number, state in again.state_dict()["state"].items():
        assert all(torch.equal(value, saved["state"][number][key]) for key, value in state.items())
    if key:
        other = load_weights(tmp_path / "x.safetensors", model())
        assert torch.equal(other[0].weight, net[0].weight)


def test_a_state_dict_without_names_counts_parameters(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    train(net, optimizer, range(2))
    torch.save(optimizer.state_dict(), tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "y", to="torch", rules={"0": "0.weight", "1": "0.bias"})
    assert list(file.read(tmp_path / "y").entries) == ["0.weight", "0.bias", "2", "3"]


class Runs:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("unpickled"),))


def test_a_pt_file_that_needs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"optimizer": Runs()}, "x.pt")
    torch.save(model(), "model.pt")
    Path("short.pt").write_bytes(Path("model.pt").read_bytes()[:1000])
    Path("empty.pt").write_bytes(b"")
    for name in ("x.pt", "model.pt", "short.pt", "empty.pt"):
        with pytest.raises(CheckpointError, match=r"Objects are never unpickled, because that runs code"):
            convert(name, "y", to="jax")
    torch.save(model().state_dict(), "weights.pt")
    with pytest.raises(CheckpointError, match="has no optimizer's state dict"):
        convert("weights.pt", "y", to="jax")
    torch.save(torch.optim.AdamW(model().parameters()).state_dict(), "new.pt")
    with pytest.raises(CheckpointError, match="has no state for 0, 1, 2, 3"):
        convert("new.pt", "y", to="jax")
    torch.save({"state": {0: {"step": 1.0}}, "param_groups": [{"lr": 0.1, "params": 3}]}, "odd.pt")
    with pytest.raises(CheckpointError, match="holds no state dict of an Adam"):
        convert("odd.pt", "y", to="jax")
    assert not Path("unpickled").exists()
    assert not Path("y").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_pt_file_is_refused_or_read_whole(tmp_path: Path, data: st.DataObject) -> None:
    """torch checks the contents of its archives only in part: what is read must still be a whole state."""
    path = tmp_path / "x.pt"
    if not path.exists():
        net = torch.nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(net.named_parameters())
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        torch.save(optimizer.state_dict(), path)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    (tmp_path / "damaged.pt").write_bytes(flipped if data.draw(st.booleans()) else whole[:place])
    with contextlib.suppress(CheckpointError):
        convert(tmp_path / "damaged.pt", tmp_path / "y", to="torch")


def test_weights_that_the_checkpoint_lacks_are_kept_when_asked(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net[2].named_parameters("2"))
    save(tmp_path / "x.safetensors", optimizer)
    other = torch.nn.Sequential(torch.nn.Linear(80, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))
    before = other[0].weight.clone()
    with pytest.raises(CheckpointError, match=r"Only in the optimizer or model: 0.weight, 0.bias"):
        load_weights(tmp_path / "x.safetensors", other)
    load_weights(tmp_path / "x.safetensors", other, strict=False)
    assert torch.equal(other[0].weight, before)
    assert torch.equal(other[2].weight, net[2].weight)


@pytest.mark.parametrize("kind", [torch.optim.RAdam, torch.optim.NAdam, torch.optim.Adamax])
def test_similar_states_of_other_optimizers_are_refused(tmp_path: Path, kind: Any) -> None:
    net = model()
    optimizer = kind(net.named_parameters())
    train(net, optimizer, range(1))
    with pytest.raises(CheckpointError, match=f"state of a {kind.__name__} .* not those of an Adam or AdamW"):
        save(tmp_path / "x.safetensors", optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not those of an Adam or AdamW"):
        convert(tmp_path / "x.pt", to="torch")
    save(tmp_path / "x.safetensors", torch.optim.AdamW(net.named_parameters()))
    with pytest.raises(CheckpointError, match=f"state of a {kind.__name__}"):
        load(tmp_path / "x.safetensors", optimizer)


def test_hyperparameters_are_the_optimizers_own(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(model().named_parameters())
    with pytest.raises(CheckpointError, match=r"hyper=\{'lr': 5.0\} is for states of JAX only"):
        save(tmp_path / "x.safetensors", optimizer, hyper={"lr": 5.0})
    save(tmp_path / "x.safetensors", optimizer)
    with pytest.raises(CheckpointError, match="is for states of JAX only"):
        load(tmp_path / "x.safetensors", optimizer, hyper={"amsgrad": "raw"})
