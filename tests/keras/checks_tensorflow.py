"""Checks on the TensorFlow backend only. `test_backends.py` runs this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from adamas.keras import Adam, AdamW, mechanism, on_tensorflow
from adamas.kernels import tensorflow as kernel
from adamas.scalars import Hyper
from tests.keras.checks import LR, data, network, weights
from tests.keras.tools import follow, gradients, numpy, stepper

# Two virtual devices: this must come before TensorFlow runs anything.
CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="module")
def two_cpus() -> Any:
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def test_a_schedule_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    original = kernel.step
    monkeypatch.setattr(kernel, "step", lambda *args: (traced.append(1), original(*args))[1])
    model = network()
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3, 6], [1e-2, 1e-3, 1e-4])
    model.compile(AdamW(schedule), "mse")
    model.fit(*data(), batch_size=8, epochs=2, verbose=0)
    assert len(traced) <= 2  # Keras itself may trace its training step twice
    assert int(model.optimizer.iterations) == 16


def test_compiled_or_not_and_eagerly_the_numbers_agree() -> None:
    found = []
    for options in ({"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True, "jit_compile": False}):
        model = network()
        model.compile(AdamW(1e-2, global_clipnorm=1.0), "mse", **options)
        for _ in range(2):
            model.train_on_batch(*data())
        found.append(weights(model))
    for a, b, c in zip(*found, strict=True):
        assert np.abs(a - b).max() < 1e-4
        assert np.abs(a - c).max() < 1e-4


@pytest.mark.parametrize("options", [{"global_clipnorm": 0.5}, {"loss_scale_factor": 8.0}])
def test_sparse_gradients_give_what_dense_gradients_give(options: dict[str, Any]) -> None:
    """Rows that occur twice are added: keras.optimizers gives v = the sum of their squares."""
    rng, found = np.random.default_rng(0), []
    values = rng.normal(size=(4, 3)).astype("float32")
    sparse = tf.IndexedSlices(tf.constant(values), tf.constant([4, 1, 4, 0]), tf.constant([6, 3]))
    whole = np.zeros((6, 3), dtype="float32")
    np.add.at(whole, [4, 1, 4, 0], values)
    for grad in (sparse, tf.constant(whole)):
        table, optimizer = keras.Variable(np.ones((6, 3), dtype="float32")), AdamW(LR, **options)
        optimizer.build([table])
        step = tf.function(lambda g: optimizer.apply([g]))
        for _ in range(3):
            step(grad)
        found.append([numpy(table), *map(numpy, optimizer.variables)])
    for a, b in zip(*found, strict=True):
        assert np.abs(a - b).max() <= 1e-7 * np.abs(b).max()


def test_an_embedding_trains() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Embedding(10, 4), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(AdamW(3e-2, gradient_accumulation_steps=2), "mse")
    x = np.random.default_rng(0).integers(0, 10, size=(64, 5))
    losses = model.fit(x, (x == 3).sum(1), batch_size=8, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_strategy_on_two_devices(two_cpus: Any, dtype: str) -> None:
    shapes = [(3, 2), (4,)]
    starts = [np.ones(shape, dtype="float32") for shape in shapes]
    with two_cpus.scope():
        variables = [keras.Variable(x, dtype=dtype) for x in starts]
        optimizer = AdamW(LR, use_ema=True, amsgrad=True)
        optimizer.build(variables)
    grads = gradients(shapes)

    @tf.function
    def step(*given: Any) -> None:
        two_cpus.run(lambda *g: optimizer.apply([x * 0.5 for x in g], variables), args=given)

    for t in range(10):
        step(*map(tf.constant, grads(t)))  # the gradients of two replicas are added
    hyper = Hyper(weight_decay=0.01, decay="lr", amsgrad="raw")
    for found, expected in zip(variables, follow(hyper, starts, grads, 10, lambda t: LR), strict=True):
        copies = two_cpus.experimental_local_results(found.value)
        assert len(copies) == 2
        for each in copies:
            limit = 1e-2 * LR if dtype == "float32" else 0.02
            assert np.abs(tf.cast(each, tf.float32).numpy() - expected).max() < limit
    assert optimizer.iterations.numpy() == 10


def test_a_model_under_a_strategy(two_cpus: Any) -> None:
    with two_cpus.scope():
        model = network()
        model.compile(AdamW(3e-2, use_ema=True), "mse")
    losses = model.fit(*data(), batch_size=16, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2


def test_without_xla_the_step_still_runs_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "refuses", lambda device: f"XLA cannot compile for {device}: planted")
    assert "planted" in mechanism()[1]
    assert "one operation at a time" in mechanism()[0]
    start, grads = np.ones(4, dtype="float32"), gradients([(4,)])
    variable = keras.Variable(start)
    step = stepper(AdamW(LR), [variable])
    for t in range(10):
        step(grads(t))
    expected = follow(Hyper(weight_decay=0.01, decay="lr"), [start], grads, 10, lambda t: LR)[0]
    assert np.abs(numpy(variable) - expected).max() < 1e-2 * LR


def test_whether_xla_compiles_is_found_by_a_small_program(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.refuses("/device:CPU:0") is None
    assert mechanism()[0] == on_tensorflow.COMPILED

    def failing(*args: Any, **options: Any) -> Any:
        raise tf.errors.UnimplementedError(None, None, "no XLA in this build")

    monkeypatch.setattr(tf, "function", failing)
    assert kernel.refuses.__wrapped__("/device:CPU:0") == "XLA cannot compile for /device:CPU:0: no XLA in this build"


def test_checkpoints_of_tensorflow_and_export(tmp_path: Path) -> None:
    model, fresh = network(), network()
    for one in (model, fresh):
        one.compile(Adam(LR), "mse")
    model.fit(*data(), verbose=0)
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "checkpoint"))
    fresh.fit(*data(), verbose=0)
    tf.train.Checkpoint(model=fresh, optimizer=fresh.optimizer).restore(path).assert_consumed()
    for a, b in zip(model.optimizer.variables, fresh.optimizer.variables, strict=True):
        assert (numpy(a) == numpy(b)).all()
    model.export(str(tmp_path / "exported"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    x, _ = data()
    assert np.allclose(served.serve(x).numpy(), model.predict(x, verbose=0), atol=1e-6)


def test_a_subset_and_changed_hyperparameters_take_effect() -> None:
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    optimizer = AdamW(0.1, weight_decay=0.0)
    zeros = [tf.zeros(1), tf.zeros(1)]
    optimizer.apply(zeros, variables)
    optimizer.weight_decay = 0.5
    optimizer.apply(zeros, variables)
    optimizer.apply(zeros[:1], variables[:1])
    assert numpy(variables[0])[0] == pytest.approx(0.95**2, rel=1e-6)
    assert numpy(variables[1])[0] == pytest.approx(0.95, rel=1e-6)
    assert len(optimizer._steps._programs) == 2


def test_shares_of_the_variables_for_several_cores_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, found = [(4, 5), (7,), (3,), (2, 2)], []
    monkeypatch.setattr(on_tensorflow.os, "cpu_count", lambda: 3)
    for enough in (10**9, 1):
        monkeypatch.setattr(on_tensorflow, "ENOUGH", enough)
        variables = [keras.Variable(np.ones(shape, dtype="float32")) for shape in shapes]
        optimizer, grads = AdamW(LR), gradients(shapes)
        step = stepper(optimizer, variables)
        for t in range(3):
            step(grads(t))
        assert len(optimizer._steps._programs) == (1 if enough > 1 else 3)
        found.append([numpy(x) for x in (*variables, *optimizer.variables)])
    for a, b in zip(*found, strict=True):
        assert (a == b).all()
