"""The same checks on every backend of Keras. `test_backends.py` runs this file; `KERAS_BACKEND` says on which."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from adamas.keras import Adam, AdamW, mechanism
from adamas.scalars import Hyper
from tests.keras.tools import follow, gradients, numpy, stepper

LR = 1e-3
SHAPES = ((3, 5), (7,), ())
HAT: dict[str, Any] = {"eps": 1e-7, "eps_mode": "hat"}


def cosine() -> Any:
    return keras.optimizers.schedules.CosineDecay(LR, decay_steps=1000, alpha=0.1)


CASES: dict[str, tuple[Any, Hyper, int]] = {  # how to make the optimizer, the reference's hyperparameters, steps
    "AdamW": (lambda: AdamW(LR), Hyper(weight_decay=0.01, decay="lr"), 1000),
    "AdamW, Keras": (lambda: AdamW(LR, like="keras"), Hyper(weight_decay=0.004, decay="lr", **HAT), 200),
    "Adam": (lambda: Adam(LR, 0.3, 0.95, 1e-4), Hyper(beta1=0.3, beta2=0.95, eps=1e-4), 200),
    "Adam, L2": (
        lambda: Adam(LR, beta_2=0.9, amsgrad=True, weight_decay=0.1),
        Hyper(beta2=0.9, amsgrad="raw", weight_decay=0.1),
        200,
    ),
    "Adam, Keras": (
        lambda: Adam(LR, weight_decay=0.1, like="keras"),
        Hyper(weight_decay=0.1, decay="lr", **HAT),
        200,
    ),
    "independent": (
        lambda: AdamW(cosine(), weight_decay=1e-3, decay="independent"),
        Hyper(weight_decay=1e-3, decay="independent", base_lr=LR),
        200,
    ),
    "corrected": (
        lambda: AdamW(cosine(), weight_decay=1.0, decay="corrected", cautious_decay=True),
        Hyper(weight_decay=1.0, decay="corrected", base_lr=LR, cautious_decay=True),
        200,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_trajectory(case: str) -> None:
    """Within 1 % of the learning rate after up to 1,000 steps; keras.optimizers is at 5.6 %."""
    make, hyper, steps = CASES[case]
    optimizer = make()
    rng = np.random.default_rng(1)
    starts = [np.asarray(rng.normal(size=shape), dtype="float32") for shape in SHAPES]
    variables = [keras.Variable(x) for x in starts]
    step, grads = stepper(optimizer, variables), cache(gradients(SHAPES))
    for t in range(steps):
        step(grads(t))
    decaying = case in ("independent", "corrected")
    rate = (lambda t: LR * (0.9 * 0.5 * (1 + np.cos(np.pi * t / 1000)) + 0.1)) if decaying else lambda t: LR
    for found, expected in zip(variables, follow(hyper, starts, grads, steps, rate), strict=True):
        assert np.abs(numpy(found) - expected).max() < 1e-2 * LR
    assert int(optimizer.iterations) == steps


def test_moments_are_those_of_the_rule_and_wide() -> None:
    variables = [keras.Variable(np.ones(3), dtype=dtype) for dtype in ("float32", "bfloat16", "float16")]
    optimizer = AdamW(LR, amsgrad=True, use_ema=True, gradient_accumulation_steps=2)
    optimizer.build(variables)
    assert {keras.backend.standardize_dtype(x.dtype) for x in optimizer.variables[2:]} == {"float32"}
    assert len(optimizer._momentums) == len(optimizer._velocities) == len(optimizer._velocity_hats) == 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_variables_move_as_the_rule_rounded_to_their_dtype(dtype: str) -> None:
    """Keras makes no update of bfloat16 at all: beta_2 rounds to 1."""
    rounded = lambda x: numpy(keras.ops.cast(keras.ops.convert_to_tensor(np.float32(x)), dtype))  # noqa: E731
    start = rounded(np.linspace(-1, 1, 9))
    variable = keras.Variable(start, dtype=dtype)
    optimizer = AdamW(1e-2, weight_decay=0.1)
    optimizer.build([variable])
    from adamas import reference

    theta, state = start.astype("float64"), reference.init(start)
    hyper = Hyper(lr=1e-2, weight_decay=0.1, decay="lr")
    for t in range(20):
        grad = rounded(gradients([(9,)])(t)[0])
        optimizer.apply([keras.ops.cast(grad, dtype)], [variable])
        theta, state = reference.step(theta, grad.astype("float64"), state, hyper)
        theta = rounded(theta).astype("float64")
    assert keras.backend.standardize_dtype(variable.dtype) == dtype
    off = np.abs(numpy(variable) - theta)
    assert (off <= np.abs(theta) * 2.0**-7).all()  # a tie may fall to the other side: one unit in the last place
    assert (off > 0).mean() < 0.3
    assert (numpy(variable) != start).all()


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping(clip: str) -> None:
    shapes = [(4,), (2, 3)]
    starts = [np.ones(shape, dtype="float32") for shape in shapes]
    variables = [keras.Variable(x) for x in starts]
    optimizer, grads = AdamW(LR, epsilon=1.0, **{clip: 0.5}), gradients(shapes)
    step = stepper(optimizer, variables)

    def clipped(t: int) -> list[np.ndarray]:
        raw = [g.astype("float64") for g in grads(t)]
        if clip == "clipvalue":
            return [np.clip(g, -0.5, 0.5) for g in raw]
        norms = [np.linalg.norm(g) for g in raw]
        norms = norms if clip == "clipnorm" else [np.linalg.norm(norms)] * len(raw)
        return [g * min(1.0, 0.5 / norm) for g, norm in zip(raw, norms, strict=True)]

    for t in range(30):
        step(grads(t))
    expected = follow(Hyper(eps=1.0, weight_decay=0.01, decay="lr"), starts, clipped, 30, lambda t: LR)
    for found, wanted in zip(variables, expected, strict=True):
        assert np.abs(numpy(found) - wanted).max() < 1e-2 * LR


def test_accumulated_gradients_make_the_step_of_their_mean() -> None:
    start, grads = np.ones(5, dtype="float32"), gradients([(5,)])
    variable = keras.Variable(start)
    step = stepper(AdamW(LR, gradient_accumulation_steps=4), [variable])
    for t in range(40):
        step(grads(t))
        if t == 2:
            assert (numpy(variable) == start).all()

    def mean(t: int) -> list[np.ndarray]:
        return [np.mean([grads(4 * t + i)[0].astype("float64") for i in range(4)], axis=0)]

    expected = follow(Hyper(weight_decay=0.01, decay="lr"), [start], mean, 10, lambda t: LR)[0]
    assert np.abs(numpy(variable) - expected).max() < 1e-2 * LR


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_averages_of_the_weights(dtype: str) -> None:
    variable = keras.Variable(np.linspace(1, 2, 5), dtype=dtype)
    optimizer = AdamW(1e-2, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=8)
    step, grads = stepper(optimizer, [variable]), gradients([(5,)])
    average: Any = None
    for t in range(8):
        step(grads(t))
        now = numpy(variable)
        if t < 7:
            average = now if average is None else average + 0.1 * (now - average)
            assert np.abs(numpy(optimizer._model_variables_moving_average[0]) - average).max() < 1e-6
    kept = numpy(optimizer._model_variables_moving_average[0])
    assert np.abs(numpy(variable) - kept).max() <= (0 if dtype == "float32" else 2.0**-8)  # the average replaced them


def test_no_parameter_moves_at_learning_rate_0() -> None:
    variable = keras.Variable(np.linspace(-1, 1, 5, dtype="float32"))
    before = numpy(variable)
    optimizer = AdamW(0.0, weight_decay=0.5)
    optimizer.apply([keras.ops.convert_to_tensor(np.full(5, np.inf, dtype="float32"))], [variable])
    assert (numpy(variable) == before).all()


def network() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])


def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    return x, x[:, :1] * 2 - x[:, 1:2]


def weights(model: Any) -> list[np.ndarray]:
    return [numpy(w) for w in model.trainable_variables]


def test_a_saved_model_goes_on_as_if_uninterrupted(tmp_path: Path) -> None:
    """Exclusions from weight decay are part of that: Keras loses them."""
    model = network()
    averages = keras.backend.backend() != "jax"  # there Keras cannot call fit twice with averages
    optimizer = AdamW(cosine(), weight_decay=5.0, amsgrad=True, use_ema=averages, decay="corrected")
    optimizer.exclude_from_weight_decay(var_list=[model.layers[1].kernel], var_names=["bias"])
    model.compile(optimizer, "mse")
    fit = {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0}
    model.fit(*data(), **fit)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer._decays == model.optimizer._decays == (True, False, False, False)
    assert loaded.optimizer.base_lr == model.optimizer.base_lr == float(np.float32(LR))
    for one in (model, loaded):
        one.fit(*data(), **fit)
    for a, b in zip(weights(model), weights(loaded), strict=True):
        assert (a == b).all()
    assert int(loaded.optimizer.iterations) == 16


def test_a_checkpoint_of_keras_loads_by_position(tmp_path: Path) -> None:
    theirs, ours, grads = network(), network(), gradients([(6, 8), (8,), (8, 1), (1,)])
    theirs.compile(keras.optimizers.Adam(LR, amsgrad=True), "mse")
    ours.compile(Adam(LR, amsgrad=True, like="keras"), "mse")
    for model in (theirs, ours):
        model.optimizer.build(model.trainable_variables)
    for t in range(5):
        theirs.optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads(t)], theirs.trainable_variables)
    theirs.save_weights(tmp_path / "a.weights.h5")
    ours.load_weights(tmp_path / "a.weights.h5")
    names = [[x.path.split("_")[-1].split("/")[-1] for x in model.optimizer.variables] for model in (theirs, ours)]
    assert names[0] == names[1]
    for model in (theirs, ours):
        model.optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads(5)], model.trainable_variables)
    for a, b in zip(weights(theirs), weights(ours), strict=True):
        assert np.abs(a - b).max() < 1e-3 * LR


def test_a_loss_scaler_skips_what_overflowed() -> None:
    model = network()
    optimizer = keras.optimizers.LossScaleOptimizer(AdamW(LR), initial_scale=4.0)
    model.compile(optimizer, "mse")
    x, y = data()
    model.train_on_batch(x, y)
    before = [*weights(model), *map(numpy, optimizer.inner_optimizer.variables)]
    model.train_on_batch(np.full_like(x, np.inf), y)
    for a, b in zip(before, [*weights(model), *map(numpy, optimizer.inner_optimizer.variables)], strict=True):
        assert (a == b).all()
    assert float(optimizer.dynamic_scale) == 2.0
    assert int(optimizer.inner_optimizer.iterations) == 1
    model.train_on_batch(x, y)
    assert int(optimizer.inner_optimizer.iterations) == 2
    revived = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(revived.inner_optimizer) is AdamW


def test_a_constant_loss_scale_changes_nothing() -> None:
    found = []
    for scale in (None, 1024.0):
        model = network()
        model.compile(AdamW(LR, loss_scale_factor=scale), "mse")
        for _ in range(5):
            model.train_on_batch(*data())
        found.append(weights(model))
    for a, b in zip(*found, strict=True):
        assert np.abs(a - b).max() < 1e-3 * LR


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_training_in_16_bits(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = network()
        model.compile(AdamW(1e-2), "mse")
        losses = model.fit(*data(), epochs=12, batch_size=16, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert losses[-1] < losses[0] / 2


def test_config_survives_and_names_every_argument() -> None:
    first = AdamW(0.5, 0.008, 0.5, 0.67, 1e-5, True, decay="independent", cautious_decay=True, like="keras", name="x")
    first.exclude_from_weight_decay(var_names=["bias"])
    first.learning_rate = 0.25
    revived = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(first))))
    assert type(revived) is AdamW
    assert revived.get_config() == first.get_config()
    assert (revived.base_lr, float(revived.learning_rate), revived.epsilon) == (0.5, 0.25, 1e-5)
    assert Adam.from_config(Adam(like="keras").get_config()).epsilon == 1e-7
    for copied in (pickle.loads(pickle.dumps(first)), copy.copy(first)):
        assert copied.get_config() == first.get_config()


@pytest.mark.parametrize("optimizer", [Adam, AdamW])
def test_the_page_has_every_argument_with_its_default(optimizer: Any) -> None:
    arguments = [x for x in inspect.signature(optimizer).parameters.values() if x.name != "options"]
    listed = [f"{x.name}={x.default!r}".replace("'", '"') for x in arguments]
    page = " ".join((Path(__file__).parents[2] / "docs" / "keras.md").read_text().split()).replace(" *,", "")
    assert f"{optimizer.__name__}({', '.join(listed)})" in page


def test_defaults() -> None:
    found = [(x.epsilon, x.weight_decay) for x in (Adam(), AdamW(), Adam(like="keras"), AdamW(like="keras"))]
    assert found == [(1e-8, None), (1e-8, 0.01), (1e-7, None), (1e-7, 0.004)]
    what, why = mechanism()
    assert what in ("native", "xla") or "all variables" in what
    assert why


REFUSED = [
    (lambda: AdamW(like="torch"), "like='torch' must be None"),
    (lambda: AdamW(-1.0), "Invalid learning rate: -1.0"),
    (lambda: Adam(beta_2=1.0), "Invalid beta parameter at index 1"),
    (lambda: AdamW(weight_decay=-0.1), "Invalid weight_decay value"),
    (lambda: AdamW(weight_decay=None), "must be a float"),
    (lambda: AdamW(decay="l2"), "for 'l2' use Adam"),
    (lambda: AdamW(decay="independent"), "needs weight_decay given"),
    (lambda: AdamW(0.0, 0.1, decay="corrected"), "must be > 0"),
    (lambda: Adam(cautious_decay=True), "must go with decoupled weight decay"),
    (lambda: Adam(use_ema=True, ema_momentum=1.0), "ema_decay must lie in"),
    (lambda: Adam(wieght_decay=0.1), "not recognized"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make()


def test_names_of_exclusions_stay_names() -> None:
    """A copy may train other variables, as after the freezing of a layer."""
    variables = [keras.Variable(np.ones(2), name=name) for name in ("table", "kernel", "bias", "head", "bias")]
    optimizer = AdamW(0.1)
    optimizer.exclude_from_weight_decay(var_list=[variables[0]], var_names=["bias"])
    optimizer.build(variables)
    assert optimizer.get_config()["excluded_from_weight_decay"] == {"names": ["bias"], "variables": [0]}
    named = AdamW(0.1)
    named.exclude_from_weight_decay(var_names=["bias"])
    named.build(variables)
    copied = AdamW.from_config(named.get_config())
    copied.build(variables[1:])
    assert copied._decays == (True, False, True, False)


def test_exclusion_after_building_is_refused() -> None:
    optimizer = AdamW()
    optimizer.exclude_from_weight_decay(var_names=["scale"])
    optimizer.build([keras.Variable([1.0])])
    optimizer.exclude_from_weight_decay(var_names=["scale"])  # each replica of a strategy may say so
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])


def test_variables_without_gradient_stay() -> None:
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    optimizer = AdamW(0.1)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([None, keras.ops.ones(1)], variables)
    assert numpy(variables[0]) == 1.0
    optimizer.apply([keras.ops.ones(1), keras.ops.ones(1)], variables)
    assert numpy(variables[0]) < 1.0
    optimizer.apply([keras.ops.ones(1)], variables[:1])
    assert int(optimizer.iterations) == 3
