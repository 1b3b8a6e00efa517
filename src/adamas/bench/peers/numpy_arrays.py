"""The adapters for NumPy: `adamas.numpy.AdamW`, and the loop over arrays that users of NumPy write."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamas.bench.peers.contract import Peer
from adamas.bench.rule import BETA1, BETA2, EMA_DECAY, LR, MAX_NORM, WEIGHT_DECAY, eps
from adamas.bench.scenario import Scenario
from adamas.numpy import AdamW

Arrays = list[NDArray[Any]]


class NumPyTraining(Peer):
    """Arrays of parameters, gradients and state; a training loop in NumPy makes new gradients and clears none."""

    modules = ("numpy",)
    install = "numpy"
    exact = True

    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        self.params = arrays(params)
        self.grads: Arrays = []
        self.eps = eps(scenario.dtype)

    def give(self, grads: list[Tensor]) -> None:
        self.grads = arrays(grads)

    def parameters(self) -> list[Tensor]:
        return tensors(self.params)


class OursNumPy(NumPyTraining):
    """`adamas.numpy.AdamW`, which takes a whole phase in one call."""

    name = "adamas.numpy"

    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        super().__init__(scenario, params)
        phase: dict[str, Any] = {"max_norm": MAX_NORM, "ema_decay": EMA_DECAY} if scenario.work == "phase" else {}
        options: dict[str, Any] = {"eps": self.eps, **phase, **scenario.storage}
        self.optimizer = AdamW(self.params, LR, (BETA1, BETA2), weight_decay=WEIGHT_DECAY, **options)

    def step(self) -> None:
        self.optimizer.step(self.grads)

    phase = step

    def averages(self) -> list[Tensor]:
        return tensors(self.optimizer.averages())

    def state_bytes(self) -> int:
        states = self.optimizer.state_dict()["state"].values()
        return sum(array.nbytes for state in states for array in state.values())


class PlainNumPy(NumPyTraining):
    """AdamW as a loop over the arrays, which writes in place what it can without becoming hard to read."""

    name = "numpy"
    ours = OursNumPy

    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        super().__init__(scenario, params)
        wide = np.float64 if scenario.dtype == "float64" else np.float32
        self.exp_avgs = [np.zeros(param.shape, wide) for param in self.params]
        self.exp_avg_sqs = [np.zeros(param.shape, wide) for param in self.params]
        self.mean: Arrays = []
        self.steps = 0

    def step(self) -> None:
        self.stepped(self.grads)

    def stepped(self, grads: Arrays) -> None:
        """Step all parameters with these gradients."""
        self.steps += 1
        correction1, correction2 = 1 - BETA1**self.steps, 1 - BETA2**self.steps
        for param, grad, exp_avg, exp_avg_sq in zip(self.params, grads, self.exp_avgs, self.exp_avg_sqs, strict=True):
            param *= 1 - LR * WEIGHT_DECAY
            exp_avg *= BETA1
            exp_avg += (1 - BETA1) * grad
            exp_avg_sq *= BETA2
            exp_avg_sq += (1 - BETA2) * grad * grad
            param -= LR / correction1 * exp_avg / (np.sqrt(exp_avg_sq / correction2) + self.eps)

    def phase(self) -> None:
        norm = np.sqrt(sum(float(np.vdot(grad, grad)) for grad in self.grads))
        factor = min(1.0, MAX_NORM / (float(norm) + 1e-6))
        self.stepped([grad * factor for grad in self.grads])
        if not self.mean:
            self.mean = [param.copy() for param in self.params]
        for mean, param in zip(self.mean, self.params, strict=True):
            mean += (1 - EMA_DECAY) * (param - mean)

    def averages(self) -> list[Tensor]:
        return tensors(self.mean)

    def state_bytes(self) -> int:
        return sum(array.nbytes for array in [*self.exp_avgs, *self.exp_avg_sqs, *self.mean])


def arrays(given: list[Tensor]) -> Arrays:
    """Return copies as arrays of the same dtype."""
    if any(tensor.dtype == torch.bfloat16 for tensor in given):
        raise ValueError("NumPy has no bfloat16")
    return [np.array(tensor.numpy()) for tensor in given]


def tensors(given: Arrays) -> list[Tensor]:
    """Return copies as tensors of the same dtype."""
    return [torch.from_numpy(np.array(array)) for array in given]
