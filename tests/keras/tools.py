"""What the checks of all backends share: the reference, and calls that read the same on each backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from adamas import reference
from adamas.scalars import Hyper

Arrays = list[np.ndarray]


def numpy(x: Any) -> np.ndarray:
    """Return a copy in float32 or float64."""
    wide = "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"
    return np.array(keras.ops.convert_to_numpy(keras.ops.cast(x, wide)))


def follow(
    hyper: Hyper, params: Sequence[np.ndarray], grads: Callable[[int], Arrays], steps: int, rate: Callable[[int], float]
) -> Arrays:
    """Return the parameters after the float64 rule's steps with these gradients and learning rates."""
    from dataclasses import replace

    params = [np.asarray(x, dtype="float64") for x in params]
    states = [reference.init(x) for x in params]
    for t in range(steps):
        for i, g in enumerate(grads(t)):
            present = replace(hyper, lr=rate(t))
            params[i], states[i] = reference.step(params[i], np.asarray(g, dtype="float64"), states[i], present)
    return list(params)


def stepper(optimizer: Any, variables: Sequence[Any]) -> Callable[[Arrays], None]:
    """Return a function that takes a step with gradients, compiled as the training loop of the backend compiles."""
    backend = keras.backend.backend()
    optimizer.build(list(variables))
    if backend == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(lambda grads: optimizer.apply(grads, list(variables)))
        return lambda grads: compiled([tf.constant(g) for g in grads])
    if backend == "jax":
        import jax

        apply = jax.jit(optimizer.stateless_apply)

        def step(grads: Arrays) -> None:
            values, state = apply([v.value for v in optimizer.variables], grads, [v.value for v in variables])
            for variable, value in zip([*variables, *optimizer.variables], [*values, *state], strict=True):
                variable.assign(value)

        return step
    return lambda grads: optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], list(variables))


def gradients(shapes: Sequence[tuple[int, ...]], seed: int = 0) -> Callable[[int], Arrays]:
    """Return a function from the step to gradients of very different sizes."""

    def of(t: int) -> Arrays:
        rng = np.random.default_rng((seed, t))
        return [(rng.normal(size=shape) * 10 ** rng.uniform(-3, 1, shape) + 0.01).astype("float32") for shape in shapes]

    return of
