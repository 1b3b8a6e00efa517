"""Steps of Keras's variables on TensorFlow: one compiled function for all variables of a device or core."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow

from adamas.kernels import tensorflow as kernel
from adamas.kernels.functional import Tensors
from adamas.scalars import Hyper

tf: Any = tensorflow  # untyped: the package has no stubs
COMPILED = "one function for all variables, compiled by XLA; on a CPU one for each core"
CALL = 30_000  # the time to pass a variable to a function, in elements stepped in that time
ENOUGH = 1_000_000  # elements that a function of its own is worth


def mechanism() -> tuple[str, str]:
    """Return what steps variables, and why."""
    gpus = tf.config.list_logical_devices("GPU")
    device = gpus[0].name if gpus else "/device:CPU:0"
    refusal = kernel.refuses(device)
    if refusal:
        return "one function for all variables, one operation at a time", refusal
    return COMPILED, f"XLA compiles for {device}; a strategy of tf.distribute steps one variable at a time"


class Steps:
    """The functions that step the variables of one optimizer, made when variables are first stepped together."""

    def __init__(self) -> None:
        self._programs: dict[tuple[Any, ...], Callable[..., None]] = {}
        self._strategy = tf.distribute.get_strategy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a copy is made: without the functions, which write the variables of the original."""
        return Steps, ()

    def dense(self, grad: Any) -> Any:
        """Return a gradient as a dense tensor of float32 or float64."""
        return kernel.dense(grad)

    def alone(self) -> bool:
        """Return whether a strategy of distribution demands one call for each variable."""
        return tf.distribute.has_strategy()

    def step(self, hypers: list[Hyper], variables: list[Tensors], grads: list[Any], lr: Any, iterations: Any) -> None:
        """Step variables and write them and their moments."""
        native = [Tensors(*map(_native, variable)) for variable in variables]
        kinds = list(dict.fromkeys(hypers))
        scalars = [kernel.scalars(hyper, tf.convert_to_tensor(lr), tf.convert_to_tensor(iterations)) for hyper in kinds]
        which = [kinds.index(hyper) for hyper in hypers]
        if self.alone():
            kernel.step(which, native, scalars, grads)
            return
        for device, members in _groups([variable.param for variable in native]):
            fixed = [which[i] for i in members], [native[i] for i in members]
            shaped = [_shaped(grads[i], native[i].param.shape) for i in members]
            self._program(kernel.step, device, *fixed)(scalars, shaped)

    def move_averages(self, hyper: Hyper, variables: list[Any], averages: list[Any], iterations: Any) -> None:
        """Move the averages of the weights; in the first iteration copy the weights."""
        params, emas = list(map(_native, variables)), list(map(_native, averages))
        share = kernel.scalars(hyper, 0.0, tf.convert_to_tensor(iterations)).average
        if self.alone():
            kernel.move_averages(params, emas, share)
            return
        for device, members in _groups(params):
            fixed = [params[i] for i in members], [emas[i] for i in members]
            self._program(kernel.move_averages, device, *fixed)(share)

    def overwrite(self, variables: list[Any], averages: list[Any]) -> None:
        """Replace the weights by their averages, on every device of a strategy."""

        def assign(variable: Any, ema: Any) -> None:
            variable.assign(tf.cast(ema, variable.dtype))

        for variable, ema in zip(map(_native, variables), map(_native, averages), strict=True):
            self._strategy.extended.update(variable, assign, args=(ema,))

    def _program(self, function: Callable[..., None], device: str, *fixed: Any) -> Callable[..., None]:
        """Return the function of the remaining arguments, from an earlier call if its fixed arguments were the same."""
        key = id(function), tuple(map(_identity, fixed[0])), tuple(map(_identity, fixed[1]))
        if key not in self._programs:
            self._programs[key] = kernel.program(partial(function, *fixed), device)
        return self._programs[key]


def _native(variable: Any) -> Any:
    """Return the variable of TensorFlow; None for None."""
    return getattr(variable, "value", variable) if not isinstance(variable, tf.Variable) else variable


def _identity(fixed: Any) -> int:
    """Return a number that no other fixed argument has: an index itself, or the id of a variable."""
    return fixed if isinstance(fixed, int) else id(fixed.param if isinstance(fixed, Tensors) else fixed)


def _shaped(grad: Any, shape: Any) -> Any:
    """Return a gradient with a shape that is known when the function is traced."""
    return grad if grad.shape == shape else tf.ensure_shape(grad, shape)


def _groups(variables: list[Any]) -> list[tuple[str, list[int]]]:
    """Return the device and the indices of the variables that one function steps.

    On a CPU, XLA runs a function on one core. TensorFlow runs functions of different variables at the same time, so
    there is one for each core, if each has enough to do.
    """
    found: dict[str, list[int]] = {}
    for i, variable in enumerate(variables):
        found.setdefault(variable.device, []).append(i)
    groups: list[tuple[str, list[int]]] = []
    for device, members in found.items():
        costs = {i: CALL + variables[i].shape.num_elements() for i in members}
        cores = tf.config.threading.get_inter_op_parallelism_threads() or os.cpu_count() or 1
        count = max(1, min(cores, sum(costs.values()) // ENOUGH)) if "CPU" in device else 1
        parts: list[list[int]] = [[] for _ in range(count)]
        for i in sorted(members, key=lambda i: -costs[i]):
            min(parts, key=lambda part: sum(costs[j] for j in part)).append(i)
        groups += [(device, sorted(part)) for part in parts]
    return groups
