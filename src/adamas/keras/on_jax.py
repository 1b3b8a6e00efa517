"""Steps of Keras's variables on JAX, also inside of Keras's stateless scopes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from adamas.kernels import xla
from adamas.kernels.functional import Tensors
from adamas.scalars import Hyper


def mechanism() -> tuple[str, str]:
    """Return what steps variables, and why."""
    return xla.mechanism()


class Steps:
    """Steps the variables of one optimizer."""

    def dense(self, grad: Any) -> Any:
        """Return a gradient as a dense array of float32 or float64."""
        return xla.dense(grad)

    def alone(self) -> bool:
        """Return False: all variables are always stepped together."""
        return False

    def step(self, hypers: list[Hyper], variables: list[Tensors], grads: list[Any], lr: Any, iterations: Any) -> None:
        """Step variables and write them and their moments."""
        old = [Tensors(*map(_array, variable)) for variable in variables]
        stepped = xla.step_each(tuple(hypers), old, grads, *_arrays(lr, iterations))
        for variable, new in zip(variables, stepped, strict=True):
            for x, value in zip(variable, new, strict=True):
                if x is not None:
                    x.assign(value)

    def move_averages(self, hyper: Hyper, variables: list[Any], averages: list[Any], iterations: Any) -> None:
        """Move the averages of the weights; in the first iteration copy the weights."""
        old = [[_array(x) for x in each] for each in (variables, averages)]
        for ema, value in zip(averages, xla.move_averages(hyper, *old, *_arrays(iterations)), strict=True):
            ema.assign(value)

    def overwrite(self, variables: list[Any], averages: list[Any]) -> None:
        """Replace the weights by their averages."""
        for variable, ema in zip(variables, averages, strict=True):
            variable.assign(ema.value)


def _array(variable: Any) -> Any:
    """Return the present array of a variable; None for None."""
    return None if variable is None else variable.value


def _arrays(*numbers: Any) -> list[Any]:
    """Return numbers, arrays and variables as 0-d arrays."""
    return [jnp.asarray(getattr(number, "value", number)) for number in numbers]
