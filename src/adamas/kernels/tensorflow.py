"""The step of variables of TensorFlow, as one function for all variables, compiled by XLA where XLA can.

Without XLA TensorFlow runs one operation at a time, and each operation reads and writes all elements. A function
compiled by XLA reads and writes each element once. A function that is not compiled can call it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import tensorflow

from adamas.kernels.functional import Tensors, average, update
from adamas.scalars import Hyper, StepScalars

tf: Any = tensorflow  # untyped: the package has no stubs
OPS = SimpleNamespace(
    sqrt=tf.sqrt, where=tf.where, maximum=tf.maximum, sign=tf.sign, clip=tf.clip_by_value, zeros_like=tf.zeros_like
)


@cache
def refuses(device: str) -> str | None:
    """Return why XLA cannot compile for the device of this name; None if it can, as a small program shows."""
    try:
        with tf.init_scope(), tf.device(device):
            tf.function(lambda x: x + x, jit_compile=True, autograph=False)(tf.constant(1.0))
    except tf.errors.OpError as error:
        return f"XLA cannot compile for {device}: {str(error).splitlines()[0]}"
    return None


def dense(grad: Any) -> Any:
    """Return a gradient as a tensor of float32 or float64, with the repeated rows of an `IndexedSlices` added."""
    if not isinstance(grad, tf.IndexedSlices):
        return _wide(tf.convert_to_tensor(grad))
    return tf.math.unsorted_segment_sum(_wide(grad.values), grad.indices, grad.dense_shape[0])


def _wide(tensor: Any) -> Any:
    return tensor if tensor.dtype in (tf.float32, tf.float64) else tf.cast(tensor, tf.float32)


def scalars(hyper: Hyper, lr: Any, iterations: Any) -> StepScalars:
    """Return the factors of a step in float64: numbers, and 0-d tensors where they change from step to step.

    XLA takes longer to compile these few numbers than the step itself, so they are computed before it.

    Args:
        hyper: the hyperparameters. Their `lr` is not read.
        lr: the learning rate, a 0-d tensor.
        iterations: the number of steps before this one, a 0-d tensor.
    """
    before = tf.cast(iterations, tf.float64)
    begins = tf.cast(tf.equal(before, 0), tf.float64)
    return StepScalars.of(hyper, before + 1, average_begins=begins, lr=tf.cast(lr, tf.float64))


def _rounded(s: StepScalars, dtype: Any) -> StepScalars:
    return s._replace(**{name: tf.cast(x, dtype) for name, x in s._asdict().items() if tf.is_tensor(x)})


def step(which: list[int], variables: list[Tensors], scalars: list[StepScalars], grads: list[Any]) -> None:
    """Step variable i with scalars number which[i], and write it and its moments; in a graph or eagerly."""
    for n, variable, grad in zip(which, variables, grads, strict=True):
        dtype = variable.exp_avg.dtype
        old = Tensors(*(None if x is None else tf.cast(x, dtype) for x in variable))
        change, new = update(OPS, dtype.name, _rounded(scalars[n], dtype), tf.cast(grad, dtype), old)
        variable.exp_avg.assign(new.exp_avg)
        variable.exp_avg_sq.assign(new.exp_avg_sq)
        if variable.max_exp_avg_sq is not None:
            variable.max_exp_avg_sq.assign(new.max_exp_avg_sq)
        variable.param.assign(tf.cast(old.param - change, variable.param.dtype))


def move_averages(variables: list[Any], averages: list[Any], share: Any) -> None:
    """Move each average towards its variable by this share, a 0-d tensor; a share of 1 copies the variable."""
    for variable, ema in zip(variables, averages, strict=True):
        old, new = tf.convert_to_tensor(ema), tf.cast(variable, ema.dtype)
        ema.assign(average(OPS, old, new, tf.cast(share, ema.dtype)))


def program(function: Callable[..., None], device: str) -> Callable[..., None]:
    """Return a function of tensors as one operation of TensorFlow, compiled by XLA where XLA can."""
    return tf.function(function, jit_compile=refuses(device) is None, autograph=False)
