"""The numbers of one step that an X-ray needs: some elements of every layer, one layer after the other, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any

import numpy as np

from adamas.scalars import Hyper, StepScalars

Array = np.ndarray[Any, Any]
ELEMENTS = 1024  # how many elements of a layer are read; of a layer with fewer, all


def stride_for(elements: int, most: int = ELEMENTS) -> int:
    """Return the distance between the elements that are read, at most about `most` of a layer.

    The distance has no common factor with the number of elements, so that no row or column of a matrix is favoured.

    Example:
        >>> stride_for(1024), stride_for(1024 * 1024)
        (1, 1025)
    """
    stride = max(1, -(-elements // most))
    while gcd(stride, elements) != 1:
        stride += 1
    return stride


@dataclass(frozen=True)
class Layer:
    """One parameter at one step, without its elements.

    Attributes:
        name: The name of the parameter.
        elements: The number of elements of the parameter.
        hyper: The hyperparameters of its group at this step.
        step: The number of steps that the parameter has taken, this step included.
        base_lr: The learning rate that the schedule starts from, which converts between the conventions.
        exact: Whether the decay part of an L2 step is known exactly, from the first moment.
        rms: The RMS of all elements after the step; None where the weights are unknown.
        largest: The largest absolute value of all elements after the step; None where the weights are unknown.
    """

    name: str
    elements: int
    hyper: Hyper
    step: int
    base_lr: float
    exact: bool = False
    rms: float | None = None
    largest: float | None = None

    @cached_property
    def scalars(self) -> StepScalars:
        """The factors of this step."""
        return StepScalars.of(self.hyper, self.step)

    @cached_property
    def unit(self) -> float:
        """The factor that `root` is divided by to become sqrt(v_hat): the bias correction."""
        corrected = 1 - self.hyper.beta1**self.step if self.hyper.bias_correction else 1.0
        return StepScalars.of(self.hyper, self.step, lr=1.0).step_size * corrected


@dataclass(frozen=True)
class Sample:
    """Some elements of all layers around one step.

    Attributes:
        layers: The layers, each with at least one element.
        counts: How many elements of each layer the arrays hold.
        exp_avg: The first moment after the step, not bias-corrected.
        root: The root of the second moment, or of its running maximum, after the step, not bias-corrected.
        before: The weights before the step; None where they are unknown.
        after: The weights after the step; None where they are unknown.
        decay_avg: The part of `exp_avg` that L2 put there. It counts where the layer is `exact`.
        unchanged: Whether the stored weight is the same before and after; None where that is unknown.
    """

    layers: list[Layer]
    counts: Array
    exp_avg: Array
    root: Array
    before: Array | None = None
    after: Array | None = None
    decay_avg: Array | None = None
    unchanged: Array | None = None

    def spread(self, values: list[float]) -> Array:
        """Return one value a layer as one value an element."""
        return np.repeat(np.asarray(values, np.float64), self.counts)

    def gain(self) -> Array:
        """Return 1 / (sqrt(v_hat) + eps) for each element: L2 decays by lr * lambda times this."""
        eps = self.spread([layer.scalars.eps for layer in self.layers])
        unit = self.spread([layer.unit for layer in self.layers])
        with np.errstate(divide="ignore"):
            return unit / (self.root + eps)

    def root_hat(self) -> Array:
        """Return sqrt(v_hat) for each element."""
        return self.root / self.spread([layer.unit for layer in self.layers])

    def parts(self) -> tuple[Array, Array]:
        """Return the gradient part and the decay part of the step: their sum is what the step subtracts.

        The first moment is linear, so that under L2 it is a sum of a gradient part and a decay part. Where the latter
        is not known, lambda * theta stands for it: theta changes little over the 1 / (1 - beta1) steps of the average.

        Raises:
            ValueError: the weights are unknown.
        """
        if self.before is None:
            raise ValueError("the parts of a step need the weights, and this sample has none")
        scalars = [layer.scalars for layer in self.layers]
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = self.spread([s.step_size for s in scalars]) / (self.root + self.spread([s.eps for s in scalars]))
            decay = self._coupled() * self.gain() * self.before
            if self.decay_avg is not None:
                exact = self.spread([float(layer.exact) for layer in self.layers]) > 0
                decay = np.where(exact, factor * self.decay_avg, decay)
            gradient = factor * self.exp_avg - decay
        acts = np.ones(self.before.shape)
        cautious = self.spread([float(s.cautious) for s in scalars]) > 0
        acts[cautious & (np.sign(self.exp_avg) * np.sign(self.before) < 0)] = 0.0
        return gradient, decay + self.spread([s.decay for s in scalars]) * acts * self.before

    def rates(self) -> Array:
        """Return for each element the share of the weight that decay subtracts in this step.

        It needs no weights where L2's decay part is not known exactly, or where decay is decoupled and not cautious. A
        weight of 0 has no rate: NaN.
        """
        plain = not any(layer.exact or layer.hyper.cautious_decay for layer in self.layers)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.before is not None and not plain:
                return np.where(self.before != 0, self.parts()[1] / self.before, np.nan)
            coupled = self._coupled()
            decoupled = self.spread([layer.scalars.decay for layer in self.layers])
            return np.where(coupled > 0, coupled * self.gain(), decoupled)

    def _coupled(self) -> Array:
        """Return lr * lambda under L2, and 0 under decoupled decay."""
        return self.spread([layer.hyper.lr * layer.scalars.l2 for layer in self.layers])
