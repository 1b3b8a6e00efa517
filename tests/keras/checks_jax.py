"""Checks on the JAX backend only. `test_backends.py` runs this file."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

from adamas.keras import AdamW, mechanism
from adamas.kernels import extension, xla
from adamas.kernels.functional import Tensors
from adamas.scalars import Hyper, StepScalars
from tests.keras.checks import LR, data, network, weights
from tests.keras.tools import numpy


@pytest.mark.parametrize("iterations", [0, 1, 999, 10**6, 2**24 + 1])
def test_the_factors_are_exact_although_jax_has_no_float64(iterations: int) -> None:
    hyper, lr = Hyper(weight_decay=0.1, decay="lr"), float(np.float32(LR))
    exact = StepScalars.of(hyper, iterations + 1, lr=lr)

    def factors(n: jax.Array) -> list[jax.Array]:
        found = xla.scalars(hyper, n, lr=jnp.float32(lr))[:12]
        with xla.x64():
            return [jnp.asarray(x, jnp.float32) for x in found]

    for a, b in zip(jax.jit(factors)(jnp.int32(iterations)), exact, strict=False):
        assert np.float32(a) == np.float32(b)


@pytest.mark.skipif(extension.missing is not None, reason=str(extension.missing))
def test_the_native_kernel_steps() -> None:
    weight, optimizer = keras.Variable(np.ones(3, "float32")), AdamW(LR)
    optimizer.build([weight])
    arrays = [Tensors(weight.value, optimizer._momentums[0].value, optimizer._velocities[0].value)]
    hyper = Hyper(weight_decay=0.01, decay="lr")
    text = xla.step_each.lower((hyper,), arrays, [jnp.ones(3)], jnp.float32(LR), jnp.int32(0)).as_text()
    assert text.count(xla.TARGET) == 1
    assert mechanism()[0] == "native"


def test_sparse_gradients_give_what_dense_gradients_give() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    sparse = BCOO((jnp.asarray(values), jnp.array([[4], [1], [4], [0]])), shape=(6, 3))
    found = []
    for grad in (sparse, sparse.todense()):
        table, optimizer = keras.Variable(np.ones((6, 3), dtype="float32")), AdamW(LR, clipnorm=0.5)
        for _ in range(3):
            optimizer.apply([grad], [table])
        found.append(numpy(table))
    assert (found[0] == found[1]).all()


def test_compiled_and_eagerly_the_numbers_agree() -> None:
    found = []
    for options in ({"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True, "jit_compile": False}):
        model = network()
        model.compile(AdamW(1e-2, global_clipnorm=1.0), "mse", **options)
        model.fit(*data(), batch_size=32, epochs=1, shuffle=False, verbose=0)
        found.append(weights(model))
    for a, b, c in zip(*found, strict=True):
        assert np.abs(a - b).max() < 1e-4
        assert np.abs(a - c).max() < 1e-4
