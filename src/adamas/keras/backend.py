"""The choice of what steps variables on the backend that Keras was started with."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import keras

from adamas.kernels.functional import Tensors
from adamas.scalars import Hyper

MODULES = {"tensorflow": "on_tensorflow", "jax": "on_jax", "torch": "on_torch"}


class Steps(Protocol):
    """Steps the variables of one optimizer. Variables, and the tensors of `Tensors`, are variables of Keras.

    A native variable of TensorFlow may stand in for a variable of Keras.
    """

    def dense(self, grad: Any) -> Any:
        """Return a gradient as a dense tensor of float32 or float64."""
        ...

    def alone(self) -> bool:
        """Return whether a strategy of distribution demands one call for each variable."""
        ...

    def step(self, hypers: list[Hyper], variables: list[Tensors], grads: list[Any], lr: Any, iterations: Any) -> None:
        """Step variables and write them and their moments.

        Args:
            hypers: the hyperparameters of each variable. Their `lr` is not read.
            variables: the variables with their moments.
            grads: the gradients from `dense`.
            lr: the learning rate, a number, tensor or variable.
            iterations: the number of steps before this one, a tensor or variable.
        """
        ...

    def move_averages(self, hyper: Hyper, variables: list[Any], averages: list[Any], iterations: Any) -> None:
        """Move the averages of the weights; in the first iteration copy the weights."""
        ...

    def overwrite(self, variables: list[Any], averages: list[Any]) -> None:
        """Replace the weights by their averages."""
        ...


def _module() -> Any:
    name = keras.backend.backend()
    if name not in MODULES:
        known = ", ".join(map(repr, MODULES))
        raise RuntimeError(f"KERAS_BACKEND={name!r}: adamas.keras steps variables of {known}. Choose one of these")
    return import_module(f"adamas.keras.{MODULES[name]}")


def steps() -> Steps:
    """Return what steps the variables of a new optimizer on the present backend."""
    return _module().Steps()


def mechanism() -> tuple[str, str]:
    """Return what steps variables on the present backend of Keras, and why.

    Example:
        >>> what, why = mechanism()
    """
    return _module().mechanism()
