"""The step of arrays of JAX as a pure function, compiled once for all arrays."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from adamas.kernels.functional import Tensors, average, update
from adamas.scalars import Hyper, StepScalars

# Before JAX 0.8 it is in `jax.experimental`.
wide: Any = jax.enable_x64 if hasattr(jax, "enable_x64") else import_module("jax.experimental").enable_x64
convert: Any = jax.lax.convert_element_type


def dense(grad: Any) -> Any:
    """Return a gradient as an array of float32 or float64, with the repeated rows of a sparse array added."""
    grad = jnp.asarray(grad.todense() if hasattr(grad, "todense") else grad)
    return grad if grad.dtype in (jnp.float32, jnp.float64) else grad.astype(jnp.float32)


def scalars(hyper: Hyper, dtype: Any, lr: Any, iterations: Any) -> StepScalars:
    """Return the factors of a step, computed in float64 and rounded to the dtype of the rule.

    JAX has float64 only where it is enabled: here for these few numbers, wherever the program has it.

    Args:
        hyper: the hyperparameters. Their `lr` is not read.
        dtype: the dtype of the rule, float32 or float64.
        lr: the learning rate, a 0-d array.
        iterations: the number of steps before this one, a 0-d array.
    """
    with wide(True):
        before = convert(iterations, jnp.float64)
        begins = convert(before == 0, jnp.float64)
        s = StepScalars.of(hyper, before + 1, average_begins=begins, lr=convert(lr, jnp.float64))
        return s._replace(**{name: convert(x, dtype) for name, x in s._asdict().items() if isinstance(x, jax.Array)})


@partial(jax.jit, static_argnums=0)
def step(hypers: tuple[Hyper, ...], arrays: list[Tensors], grads: list[Any], lr: Any, iterations: Any) -> list[Tensors]:
    """Return parameters, in their own dtype, and moments after a step."""
    known: dict[Any, StepScalars] = {}
    stepped: list[Tensors] = []
    for hyper, old, grad in zip(hypers, arrays, grads, strict=True):
        dtype = old.exp_avg.dtype
        if (hyper, dtype) not in known:
            known[hyper, dtype] = scalars(hyper, dtype, lr, iterations)
        param = old.param.astype(dtype)
        change, new = update(jnp, str(dtype), known[hyper, dtype], grad.astype(dtype), old._replace(param=param))
        stepped.append(new._replace(param=(param - change).astype(old.param.dtype)))
    return stepped


@partial(jax.jit, static_argnums=0)
def move_averages(hyper: Hyper, params: list[Any], averages: list[Any], iterations: Any) -> list[Any]:
    """Return averages, moved towards their parameters by the share that `hyper.ema_decay` leaves; at first copies."""
    return [
        average(jnp, ema, param.astype(ema.dtype), scalars(hyper, ema.dtype, 0.0, iterations).average)
        for param, ema in zip(params, averages, strict=True)
    ]
