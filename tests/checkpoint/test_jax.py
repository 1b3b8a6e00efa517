"""States of optax and of fused steps to a file and back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adamas.torch
from adamas.checkpoint import CheckpointError, file, load, load_weights, save
from adamas.checkpoint.contents import Entry
from adamas.checkpoint.encoding import decoded, encoded

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
optax = pytest.importorskip("optax")
pytest.importorskip("adamas.jax")

HYPER = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4, "decay": "lr"}


def params() -> Any:
    random = np.random.default_rng(0)
    return {
        "layers": [{"w": jnp.asarray(random.random((3, 3)), jnp.float32)}, {"w": jnp.ones((3, 2), jnp.bfloat16)}],
        "b": jnp.zeros(2),
    }


def trainer(optimizer: Any) -> Any:
    """A function that takes steps with an optimizer, compiled once."""

    @jax.jit
    def step(weights: Any, state: Any) -> Any:
        gradient = jax.tree.map(lambda w: jnp.sin(w * 3).astype(w.dtype), weights)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    def train(weights: Any, state: Any, steps: int) -> tuple[Any, Any]:
        for _ in range(steps):
            weights, state = step(weights, state)
        return weights, state

    return train


CHAINS: dict[str, Any] = {
    "adam": lambda: optax.adam(1e-2),
    "adamw, mu in bfloat16": lambda: optax.adamw(1e-2, mu_dtype=jnp.bfloat16),
    "amsgrad": lambda: optax.amsgrad(1e-2),
    "schedule": lambda: optax.chain(optax.clip(1.0), optax.adamw(optax.linear_schedule(1e-2, 0.0, 20))),
    "injected": lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=1e-2),
    "injected schedule": lambda: optax.inject_hyperparams(optax.adamw)(
        learning_rate=optax.linear_schedule(1e-2, 0.0, 20)
    ),
    "multi steps": lambda: optax.MultiSteps(optax.adamw(1e-2), 1),
    "masked": lambda: optax.masked(optax.adamw(1e-2), {"layers": [{"w": True}, {"w": True}], "b": False}),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, name: str) -> None:
    """Bit for bit, and schedules go on."""
    optimizer, begin = CHAINS[name](), params()
    if name.startswith("injected"):  # optax makes bfloat16 moments float32 then, at the first step
        begin = jax.tree.map(lambda w: w.astype(jnp.float32), begin)
    train = trainer(optimizer)
    weights, state = train(begin, optimizer.init(begin), 5)
    save(tmp_path / "x.safetensors", state, weights)
    resumed = load_weights(tmp_path / "x.safetensors", begin) if name != "masked" else weights
    new = load(tmp_path / "x.safetensors", optimizer.init(begin))
    expected = train(weights, state, 5)
    found = train(resumed, new, 5)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    compared = slice(1) if name == "multi steps" else slice(2)  # its count of gradients is its own
    for a, b in zip(jax.tree.leaves(found[compared]), jax.tree.leaves(expected[compared]), strict=True):
        assert np.array_equal(a, b)


def test_names_are_paths_with_slashes(tmp_path: Path) -> None:
    optimizer = optax.adam(1e-2)
    save(tmp_path / "x.safetensors", optimizer.init(params()), params(), hyper=HYPER)
    found = file.read(tmp_path / "x.safetensors")
    assert list(found.entries) == ["b", "layers/0/w", "layers/1/w"]
    assert found.groups[0].hyper == {**HYPER, "betas": [0.9, 0.999], "amsgrad": None}
    save(tmp_path / "y.safetensors", optimizer.init(params()))
    assert set(file.read(tmp_path / "y.safetensors").entries["b"].arrays) == {"exp_avg", "exp_avg_sq"}


def test_injected_hyperparameters_are_recorded_and_compared(tmp_path: Path) -> None:
    state = CHAINS["injected"]().init(params())
    save(tmp_path / "x.safetensors", state)
    assert file.read(tmp_path / "x.safetensors").groups[0].hyper["lr"] == pytest.approx(0.01)
    with pytest.warns(UserWarning, match="eps=0.5 \\(checkpoint: "):
        load(tmp_path / "x.safetensors", optax.adam(1e-2).init(params()), hyper={**HYPER, "eps": 0.5})


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"weight_deacy": 0.1}, "hyper has weight_deacy=0.1: the names are lr, betas"),
        ({"amsgrad": True}, "hyper has amsgrad=True: amsgrad must be one of"),
        ({"decay": "coupled"}, "hyper has decay='coupled': decay must be one of"),
    ],
)
def test_hyperparameters_that_are_no_such_are_refused(tmp_path: Path, hyper: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path / "x.safetensors", optax.adam(1e-2).init(params()), hyper=hyper)


@pytest.mark.parametrize("count", [0, 2])
def test_a_state_must_hold_one_adam(tmp_path: Path, count: int) -> None:
    optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), *[optax.scale_by_adam()] * count)
    with pytest.raises(CheckpointError, match=f"holds {count} Adam states and must hold one"):
        save(tmp_path / "x.safetensors", optimizer.init(params()))


def test_a_maximum_must_be_of_the_same_kind(tmp_path: Path) -> None:
    optimizer = optax.amsgrad(1e-2)
    state = optimizer.init(params())
    save(tmp_path / "raw.safetensors", state, hyper={"amsgrad": "raw"})
    save(tmp_path / "corrected.safetensors", state)
    assert file.read(tmp_path / "corrected.safetensors").amsgrad == "corrected"
    with pytest.raises(CheckpointError, match=r"checkpoint is of raw .*, that of the optimizer is of corrected"):
        load(tmp_path / "raw.safetensors", state)
    with pytest.raises(CheckpointError, match=r"checkpoint is of corrected .*, that of the optimizer is absent"):
        load(tmp_path / "corrected.safetensors", optax.adam(1e-2).init(params()))
    load(tmp_path / "raw.safetensors", state, hyper={"amsgrad": "raw"})


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = optax.adam(1e-2).init(params())
    save(tmp_path / "x.safetensors", state)
    other = {**params(), "b": jnp.zeros(3)}
    with pytest.raises(CheckpointError, match=r"b has shape \(2,\) in the checkpoint and \(3,\)"):
        load(tmp_path / "x.safetensors", optax.adam(1e-2).init(other))
    with pytest.raises(CheckpointError, match="Only in the optimizer or model: c"):
        load(tmp_path / "x.safetensors", optax.adam(1e-2).init({**params(), "c": jnp.zeros(1)}))
    with pytest.raises(CheckpointError, match="params has no b, which the state has"):
        save(tmp_path / "x.safetensors", state, {"layers": params()["layers"]})


def fused(packed: str | None, step: int = 3) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    shapes = {"a": {"w": (8, 300)}, "b": (5,)}

    def state(shape: tuple[int, ...]) -> Any:
        arrays = {key: random.random(shape, np.float32) for key in ("exp_avg", "exp_avg_sq")}
        entry = Entry(step, shape, arrays)
        entry = encoded(entry, packed) if packed and len(shape) > 1 else entry
        return {key: jnp.asarray(array) for key, array in entry.arrays.items()}

    states = {"a": {"w": state(shapes["a"]["w"])}, "b": state(shapes["b"])}
    return {"a": {"w": jnp.ones((8, 300))}, "b": jnp.ones(5)}, adamas.jax.FusedState(jnp.int32(step), states)


@pytest.mark.parametrize("packed", [None, "packed16", "packed12"])
def test_fused_states_keep_their_format(tmp_path: Path, packed: str | None) -> None:
    weights, state = fused(packed)
    save(tmp_path / "x.safetensors", state, weights)
    _, fresh = fused(packed, step=0)
    new = load(tmp_path / "x.safetensors", jax.tree.map(jnp.zeros_like, fresh), weights)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert new.count.dtype == jnp.int32
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True))
    plain = load(tmp_path / "x.safetensors", optax.adam(1e-2).init(weights))
    entry = decoded(file.read(tmp_path / "x.safetensors").entries["a/w"])
    assert np.array_equal(plain[0].mu["a"]["w"], entry.arrays["exp_avg"])
    save(tmp_path / "y.safetensors", plain, weights)
    again = load(tmp_path / "y.safetensors", new)
    error = np.abs(np.asarray(decoded_moment(again, packed)) / entry.arrays["exp_avg_sq"] - 1)
    assert error.max() < (1e-6 if packed is None else 0.15)


@pytest.mark.parametrize("packed", [None, "packed16"])
def test_low_bits_of_fused_states_are_kept(tmp_path: Path, packed: str | None) -> None:
    weights, state = fused(packed)
    weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), weights)
    low = jnp.arange(2400, dtype=jnp.int32).astype(jnp.int8).reshape(8, 300)
    state.states["a"]["w"]["param_low"] = low
    save(tmp_path / "x.safetensors", state, weights)
    new = load(tmp_path / "x.safetensors", jax.tree.map(jnp.zeros_like, state), weights)
    assert np.array_equal(new.states["a"]["w"]["param_low"], low)
    narrow = load_weights(tmp_path / "x.safetensors", weights)
    assert np.array_equal(narrow["a"]["w"], weights["a"]["w"])
    wide = load_weights(tmp_path / "x.safetensors", jax.tree.map(lambda w: w.astype(jnp.float32), weights))
    assert 0 < np.abs(np.asarray(wide["a"]["w"]) - 1).max() < 2**-8
    other = fused(packed)[1]
    save(tmp_path / "y.safetensors", other, weights)
    assert not load(tmp_path / "y.safetensors", new, weights).states["a"]["w"]["param_low"].any()


def decoded_moment(state: Any, packed: str | None) -> Any:
    arrays = {key: np.asarray(value) for key, value in state.states["a"]["w"].items()}
    return decoded(Entry(3, (8, 300), arrays)).arrays["exp_avg_sq"] if packed else arrays["exp_avg_sq"]


def test_packed_moments_need_the_shape_of_their_parameter(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"moments of a/w are packed: give params="):
        save(tmp_path / "x.safetensors", fused("packed12")[1])


def test_packed_moments_of_torch_go_on_in_jax(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(300, 16)
    optimizer = adamas.torch.AdamW(net.named_parameters(), state_dtype="packed16")
    net(torch.randn(8, 300)).square().sum().backward()
    optimizer.step()
    save(tmp_path / "x.safetensors", optimizer)
    tree = {"kernel": jnp.zeros((300, 16)), "bias": jnp.zeros(16)}
    rules = {"weight": ["kernel", "transpose"]}
    state = load(tmp_path / "x.safetensors", optax.adam(1e-3).init(tree), rules=rules)
    assert np.array_equal(state[0].nu["kernel"], optimizer.moments(net.weight)[1].numpy().T)
    assert int(state[0].count) == 1
    weights = load_weights(tmp_path / "x.safetensors", tree, rules=rules)
    assert np.array_equal(weights["kernel"], net.weight.detach().numpy().T)


def test_the_kind_of_a_fused_maximum_is_asked_for(tmp_path: Path) -> None:
    """The state does not tell whether its maximum is of raw or of corrected moments."""
    weights = {"w": jnp.ones(2)}
    state = adamas.jax.fused_adam(0.1, amsgrad="corrected").init(weights)
    with pytest.raises(CheckpointError, match=r'hyper=\{"amsgrad": "raw"\} or hyper=\{"amsgrad": "corrected"\}'):
        save(tmp_path / "x.safetensors", state, weights)
    save(tmp_path / "x.safetensors", state, weights, hyper={"amsgrad": "corrected"})
    with pytest.raises(CheckpointError, match="does not tell of what"):
        load(tmp_path / "x.safetensors", state)
    with pytest.raises(CheckpointError, match="of corrected second moments, that of the optimizer is of raw"):
        load(tmp_path / "x.safetensors", state, hyper={"amsgrad": "raw"})
    load(tmp_path / "x.safetensors", state, hyper={"amsgrad": "corrected"})


@pytest.mark.parametrize("name", ["adabelief", "novograd"])
def test_similar_states_of_other_optimizers_are_refused(tmp_path: Path, name: str) -> None:
    state = getattr(optax, name)(0.1).init(params())
    with pytest.raises(CheckpointError, match="holds 0 Adam states"):
        save(tmp_path / "x.safetensors", state)


def test_two_parameters_with_one_name_are_refused(tmp_path: Path) -> None:
    twice = {"a/b": jnp.ones(3), "a": {"b": jnp.zeros(3)}}
    for state in (optax.adam(0.1).init(twice), adamas.jax.fused_adam(0.1).init(twice)):
        with pytest.raises(CheckpointError, match="two parameters are called 'a/b'"):
            save(tmp_path / "x.safetensors", state, twice)


@pytest.mark.parametrize("tree", ["array", "exp_avg", "packed16"])
@pytest.mark.parametrize("kind", ["optax", "fused"])
def test_any_tree_of_parameters_comes_back(tmp_path: Path, tree: str, kind: str) -> None:
    """A single array has no path, and a parameter may be called as a key of the state."""
    weights = jnp.ones(3) if tree == "array" else {tree: jnp.ones(3), "w": {tree: jnp.zeros(2)}}
    zeros = jax.tree.map(jnp.zeros_like, weights)
    if kind == "optax":
        optimizer = optax.adam(0.1)
        _, state = optimizer.update(jax.tree.map(jnp.ones_like, weights), optimizer.init(weights), weights)
    else:
        optimizer = adamas.jax.fused_adam(0.1)
        weights, state = optimizer.step(weights, optimizer.init(weights), jax.tree.map(jnp.ones_like, weights))
    save(tmp_path / "x.safetensors", state, weights)
    found = load_weights(tmp_path / "x.safetensors", zeros), load(tmp_path / "x.safetensors", optimizer.init(zeros))
    assert jax.tree.structure(found) == jax.tree.structure((weights, state))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves((weights, state)), strict=True):
        assert np.array_equal(a, b)


def test_gradients_that_wait_are_refused(tmp_path: Path) -> None:
    weights = {"w": jnp.ones(3)}
    optimizer = optax.MultiSteps(optax.adam(0.1), 2)
    fresh = state = optimizer.init(weights)
    states = [state := optimizer.update(weights, state, weights)[1] for _ in range(2)]
    with pytest.raises(CheckpointError, match=r"mini_step=1: gradients of .* wait"):
        save(tmp_path / "x.safetensors", states[0], weights)
    save(tmp_path / "x.safetensors", states[1], weights)
    with pytest.raises(CheckpointError, match="mini_step=1"):
        load(tmp_path / "x.safetensors", states[0], weights)
    assert int(load(tmp_path / "x.safetensors", fresh, weights).gradient_step) == 1


def test_state_outside_of_adam_is_named(tmp_path: Path) -> None:
    weights = {"w": jnp.ones(3)}
    optimizer = optax.chain(optax.adam(0.1), optax.ema(0.9))
    fresh = optimizer.init(weights)
    save(tmp_path / "x.safetensors", fresh, weights)  # zeros are no loss
    state = optimizer.update(weights, fresh, weights)[1]
    with pytest.warns(UserWarning, match="not saved: 1/ema/w: a checkpoint holds the state of Adam only"):
        save(tmp_path / "x.safetensors", state, weights)
    with pytest.warns(UserWarning, match="not loaded, and left as they are in the state: 1/ema/w"):
        load(tmp_path / "x.safetensors", fresh, weights)


@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("rule", ["same", "transpose"])
def test_low_bits_of_torch_go_on_in_jax(tmp_path: Path, bits: Any, rule: str) -> None:
    torch = pytest.importorskip("torch")
    param = torch.nn.Parameter(torch.randn(16, 32, generator=torch.Generator().manual_seed(0)).bfloat16())
    theirs = adamas.torch.AdamW([("w", param)], master_weight_bits=bits, lr=1e-3)
    for _ in range(3):
        param.grad = param.detach().clone()
        theirs.step()
    save(tmp_path / "x.safetensors", theirs)
    optimizer = adamas.jax.fused_adamw(1e-3, master_weight_bits=bits)
    weights = {"w": jnp.zeros((16, 32) if rule == "same" else (32, 16), jnp.bfloat16)}
    rules = {"w": ["w", rule]}
    weights = load_weights(tmp_path / "x.safetensors", weights, rules=rules)
    state = load(tmp_path / "x.safetensors", optimizer.init(weights), weights, rules=rules)
    save(tmp_path / "y.safetensors", state, weights)
    found = decoded(file.read(tmp_path / "y.safetensors").entries["w"]).arrays["param"]
    assert np.array_equal(found if rule == "same" else found.T, theirs.master(param).numpy())


def test_arrays_stay_on_their_devices(tmp_path: Path) -> None:
    """Two devices need a process of their own, and an uncommitted array stays free to move."""
    code = (
        "import sys, jax, jax.numpy as jnp, adamas.jax\n"
        "from jax.sharding import Mesh, NamedSharding, PartitionSpec\n"
        "from adamas.checkpoint import load, load_weights, save\n"
        "place = NamedSharding(Mesh(jax.devices(), ('x',)), PartitionSpec('x'))\n"
        "weights = {'w': jax.device_put(jnp.ones((4, 8)), place)}\n"
        "for optimizer in (adamas.jax.fused_adamw(0.1), adamas.jax.adamw(0.1)):\n"
        "    state = optimizer.init(weights)\n"
        "    save(sys.argv[1], state, weights)\n"
        "    new = load(sys.argv[1], state), load_weights(sys.argv[1], weights)\n"
        "    pairs = zip(jax.tree.leaves(new), jax.tree.leaves((state, weights)), strict=True)\n"
        "    assert all(a.sharding == b.sharding and a.committed == b.committed for a, b in pairs)\n"
    )
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, str(tmp_path / "x.safetensors")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_containers_of_flax_stay(tmp_path: Path) -> None:
    nnx = pytest.importorskip("flax.nnx")

    def made(seed: int) -> Any:
        model = nnx.Linear(2, 3, rngs=nnx.Rngs(seed))
        return model, nnx.Optimizer(model, optax.adamw(0.1), wrt=nnx.Param)

    def step(model: Any, optimizer: Any) -> None:
        optimizer.update(model, nnx.grad(lambda m: m(jnp.ones((1, 2))).sum())(model))

    model, optimizer = made(0)
    step(model, optimizer)
    save(tmp_path / "x.safetensors", optimizer.opt_state, nnx.state(model, nnx.Param))
    again, resumed = made(1)
    nnx.update(again, load_weights(tmp_path / "x.safetensors", nnx.state(again, nnx.Param)))
    resumed.opt_state = load(tmp_path / "x.safetensors", resumed.opt_state)
    assert type(resumed.opt_state[0].count) is type(optimizer.opt_state[0].count)
    for pair in ((model, optimizer), (again, resumed)):
        step(*pair)
    assert np.array_equal(again.kernel[...], model.kernel[...])


def test_a_broken_fused_state_is_named(tmp_path: Path) -> None:
    state = adamas.jax.fused_adam(0.1).init({"w": jnp.ones(2)})
    state.states["w"].pop("exp_avg_sq")
    with pytest.raises(CheckpointError, match="arrays that are no state of a parameter: w/exp_avg"):
        save(tmp_path / "x.safetensors", state)
