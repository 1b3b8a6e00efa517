"""Train half in one framework and the rest in another, for every ordered pair; print the largest differences as JSON.

Run as a program, because a process has one backend of Keras: `python -m tests.checkpoint.crossing FOLDER`, with
KERAS_BACKEND set. Each framework trains each model without interruption, and saves half-way; the others go on from the
file. Matrices are square where the model allows it, so that only a rule can tell how they are oriented.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
import torch

import adamas.keras
import adamas.torch
from adamas.checkpoint import CheckpointError, Rules, file, load, load_weights, save

HALF, LR, DECAY, EPS = 15, 1e-2, 0.05, 1e-9
DENSE = {"hidden.bias": "hidden/bias", "out.weight": ["out/kernel", "transpose"], "out.bias": "out/bias"}
RULES: dict[str, dict[str, Any]] = {
    "linear": {"hidden.weight": ["hidden/kernel", "transpose"], **DENSE},
    "convolution": {
        "hidden.weight": ["hidden/kernel", "OIHW->HWIO"],
        **DENSE,
        "out.weight": ["out/kernel", "O(CHW)->(HWC)O", {"C": 4, "H": 4, "W": 4}],
    },
    "embedding": {"hidden.weight": ["hidden/embeddings", "same"], **DENSE},
}
RULES["embedding"].pop("hidden.bias")


def data(model: str) -> tuple[Any, Any]:
    """Inputs (images as NHWC) and targets."""
    random = np.random.default_rng(0)
    shapes = {"linear": (32, 8), "convolution": (32, 6, 6, 3), "embedding": (32, 5)}
    x = random.normal(size=shapes[model]).astype(np.float32)
    if model == "embedding":
        # No index twice: Keras on TensorFlow squares the gradients of one row before it adds them (Keras 3.15).
        x = random.permutation(160).reshape(shapes[model]).astype(np.int32)
    return x, random.normal(size=(32, 8)).astype(np.float32)


class Torch:
    def __init__(self, model: str) -> None:
        x, y = data(model)
        layers: dict[str, list[tuple[str, Any]]] = {
            "linear": [("hidden", torch.nn.Linear(8, 8)), ("act", torch.nn.Tanh())],
            "convolution": [
                ("hidden", torch.nn.Conv2d(3, 4, 3)),
                ("act", torch.nn.Tanh()),
                ("flat", torch.nn.Flatten()),
            ],
            "embedding": [("hidden", torch.nn.Embedding(160, 8))],
        }
        modules = torch.nn.ModuleDict(dict(layers[model]))
        modules["out"] = torch.nn.Linear(64 if model == "convolution" else 8, 8)
        self.model, self.y = modules, torch.from_numpy(y)
        self.pool = model == "embedding"
        self.x = torch.from_numpy(x if x.ndim < 4 else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        self.optimizer = torch.optim.AdamW(modules.parameters(), lr=LR, weight_decay=DECAY, eps=EPS)

    def step(self) -> float:
        self.optimizer.zero_grad()
        h = self.x
        for name, layer in self.model.items():
            h = layer(h.mean(1) if self.pool and name == "out" else h)
        loss = ((h - self.y) ** 2).mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def save(self, path: Path) -> None:
        save(path, self.optimizer, self.model)

    def load(self, path: Path, rules: Rules) -> None:
        load_weights(path, self.model, rules=rules)
        load(path, self.optimizer, self.model, rules=rules)


PROGRAMS: dict[str, Any] = {}  # a step of JAX's model


class Jax:
    def __init__(self, model: str) -> None:
        x, y = (jnp.asarray(each) for each in data(model))
        random = np.random.default_rng(1)

        def normal(*shape: int) -> Any:
            return jnp.asarray(random.normal(size=shape, scale=0.2).astype(np.float32))

        hidden = {
            "linear": {"kernel": normal(8, 8), "bias": jnp.zeros(8)},
            "convolution": {"kernel": normal(3, 3, 3, 4), "bias": jnp.zeros(4)},
            "embedding": {"embeddings": normal(160, 8)},
        }[model]
        out = {"kernel": normal(64 if model == "convolution" else 8, 8), "bias": jnp.zeros(8)}
        self.params: Any = {"hidden": hidden, "out": out}
        forward: dict[str, Callable[[Any], Any]] = {
            "linear": lambda h: jnp.tanh(x @ h["kernel"] + h["bias"]),
            "convolution": lambda h: jnp.tanh(
                jax.lax.conv_general_dilated(
                    x, h["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                + h["bias"]
            ).reshape(len(x), -1),
            "embedding": lambda h: h["embeddings"][x].mean(1),
        }

        def loss(params: Any) -> Any:
            h = forward[model](params["hidden"]) @ params["out"]["kernel"] + params["out"]["bias"]
            return ((h - y) ** 2).mean()

        optimizer = optax.adamw(LR, weight_decay=DECAY, eps=EPS)
        self.state = optimizer.init(self.params)

        def whole(params: Any, state: Any) -> Any:
            value, gradient = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(gradient, state, params)
            return value, optax.apply_updates(params, updates), state

        self.program = PROGRAMS.setdefault(model, jax.jit(whole))  # compiled once: the data are the same

    def step(self) -> float:
        value, self.params, self.state = self.program(self.params, self.state)
        return float(value)

    def save(self, path: Path) -> None:
        save(path, self.state, self.params)

    def load(self, path: Path, rules: Rules) -> None:
        self.params = load_weights(path, self.params, rules=rules)
        self.state = load(path, self.state, self.params, rules=rules)


class Keras:
    def __init__(self, model: str) -> None:
        self.x, self.y = data(model)
        layers: dict[str, list[Any]] = {
            "linear": [keras.layers.Dense(8, "tanh", name="hidden")],
            "convolution": [keras.layers.Conv2D(4, 3, activation="tanh", name="hidden"), keras.layers.Flatten()],
            "embedding": [keras.layers.Embedding(160, 8, name="hidden"), keras.layers.GlobalAveragePooling1D()],
        }
        inputs = keras.Input(self.x.shape[1:], dtype="int32" if model == "embedding" else "float32")
        h = inputs
        for layer in (*layers[model], keras.layers.Dense(8, name="out")):
            h = layer(h)
        self.model = keras.Model(inputs, h)
        self.optimizer = keras.optimizers.AdamW(LR, weight_decay=DECAY, epsilon=EPS)
        self.model.compile(self.optimizer, "mse", jit_compile=False)

    def step(self) -> float:
        self.model.reset_metrics()
        return float(self.model.train_on_batch(self.x, self.y))

    def save(self, path: Path) -> None:
        save(path, self.optimizer)

    def load(self, path: Path, rules: Rules) -> None:
        load_weights(path, self.model, rules=rules)
        load(path, self.optimizer, self.model, rules=rules)


# On one backend every pair and model; on others the pairs that Keras is in, and one model.
EVERY_PAIR = keras.backend.backend() == "tensorflow"
MODELS = RULES if EVERY_PAIR else ("linear",)
FRAMEWORKS = {"torch": Torch, "jax": Jax, "keras": Keras}


def rules_between(source: str, target: str, model: str) -> Rules:
    if "torch" not in (source, target):  # both have the same layouts here
        return Rules.read({"*kernel": ["*kernel", "same"], "*embeddings": ["*embeddings", "same"]})
    rules = Rules.read(RULES[model])
    return rules if source == "torch" else rules.reverse()


def trained_with(model: Any, optimizer: Any) -> Any:
    """Train a step with an optimizer, and return it; what is compiled for one step takes a second."""
    model.compile(optimizer, "mse", jit_compile=False, run_eagerly=True)
    model.train_on_batch(np.ones((4, 8), np.float32), np.ones((4, 8), np.float32))
    return optimizer


def check_averages(model: Any, folder: Path) -> None:
    """Averages of Keras come back, and one that the file lacks starts from the weights."""
    for kind in (keras.optimizers.AdamW, adamas.keras.AdamW):
        optimizer = trained_with(model, kind(0.01, use_ema=True))
        averages = [keras.ops.convert_to_numpy(x) + 1 for x in optimizer._model_variables_moving_average]
        for variable, value in zip(optimizer._model_variables_moving_average, averages, strict=True):
            variable.assign(value)
        save(folder / "ema.safetensors", optimizer)
        new = load(folder / "ema.safetensors", kind(0.01, use_ema=True), model)
        found = [keras.ops.convert_to_numpy(x) for x in new._model_variables_moving_average]
        assert all(np.array_equal(a, b) for a, b in zip(found, averages, strict=True))
        save(folder / "none.safetensors", trained_with(model, kind(0.01)))
        with pytest.warns(UserWarning, match="the checkpoint has no moving average of"):
            load(folder / "none.safetensors", new)
        pairs = zip(new._model_variables_moving_average, model.trainable_variables, strict=True)
        assert all(np.array_equal(*map(keras.ops.convert_to_numpy, pair)) for pair in pairs)


def check_keras(folder: Path) -> None:
    """What concerns Keras alone: names, an unbuilt optimizer, amsgrad, schedules, our optimizers on the other side."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="out")])

    def trained(**options: Any) -> Any:
        return trained_with(model, keras.optimizers.AdamW(**{"learning_rate": 0.01, **options}))

    path, kernel, bias = folder / "keras.safetensors", *(variable.path for variable in model.trainable_variables)
    save(path, trained(amsgrad=True))
    checkpoint = file.read(path)
    assert list(checkpoint.entries) == [kernel, bias]
    assert (checkpoint.layout, checkpoint.eps_mode, checkpoint.amsgrad) == ("keras", "hat", "raw")
    assert checkpoint.source == "keras.optimizers.AdamW"
    hyper = {key: round(value, 6) for key, value in checkpoint.groups[0].hyper.items() if isinstance(value, float)}
    assert hyper == {"lr": 0.01, "eps": 0.0, "weight_decay": 0.004}
    net = torch.nn.Linear(8, 8)
    rules = {kernel: ["weight", "transpose"], bias: "bias"}
    options: dict[str, Any] = {"lr": 0.01, "eps": 1e-7, "weight_decay": 0.004, "amsgrad": True}
    for make in (torch.optim.AdamW, adamas.torch.AdamW):
        optimizer = load(path, make(net.named_parameters(), **options), rules=rules)
        maximum = checkpoint.entries[kernel].arrays["max_exp_avg_sq"]
        assert np.array_equal(optimizer.state[net.weight]["max_exp_avg_sq"].numpy(), maximum.T)
    save(folder / "torch.safetensors", optimizer)
    unbuilt = keras.optimizers.AdamW(0.01, amsgrad=True, epsilon=1e-7)
    back = Rules.read(rules).reverse()
    with pytest.raises(CheckpointError, match="not built yet"):
        load(folder / "torch.safetensors", unbuilt, rules=back)
    load(folder / "torch.safetensors", unbuilt, model, rules=back)
    assert int(unbuilt.iterations) == 1
    assert np.array_equal(keras.ops.convert_to_numpy(unbuilt._velocity_hats[0]), maximum)
    save(path, trained(learning_rate=keras.optimizers.schedules.CosineDecay(0.1, 10)))
    assert "lr" not in file.read(path).groups[0].hyper
    check_averages(model, folder)
    for optimizer, message in [
        (keras.optimizers.SGD(0.1), "has no state of Adam"),
        (trained_with(model, keras.optimizers.Nadam(0.1)), "a Nadam has no state of Adam"),
        (trained_with(model, keras.optimizers.Lion(0.1)), "a Lion has no state of Adam"),
        (keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), "give its inner_optimizer"),
        (trained(gradient_accumulation_steps=2), "gradient_accumulation_steps=2"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            save(path, optimizer, model)


def main(folder: Path) -> None:
    found: dict[str, float] = {}
    for model in MODELS:
        for source, make in FRAMEWORKS.items():
            others = [name for name in FRAMEWORKS if name != source and (EVERY_PAIR or "keras" in (name, source))]
            torch.manual_seed(0)
            keras.utils.set_random_seed(0)
            run = make(model)
            before = [run.step() for _ in range(HALF)]
            path = folder / f"{model}-{source}.safetensors"
            run.save(path)
            expected = [run.step() for _ in range(HALF)]
            assert expected[-1] < before[0] - 0.01, "the model does not learn"
            for target in others:
                rest = FRAMEWORKS[target](model)
                rest.load(path, rules_between(source, target, model))
                losses = [rest.step() for _ in range(HALF)]
                differences = [abs(a - b) for a, b in zip(losses, expected, strict=True)]
                found[f"{source} to {target}, {model}"] = max(differences)
    if EVERY_PAIR:
        check_keras(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
