"""The base of all adapters for torch's parameters: a phase as a torch training loop writes it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from adamas.bench.peers.contract import Peer
from adamas.bench.rule import BETA1, BETA2, EMA_DECAY, LR, MAX_NORM, WEIGHT_DECAY, eps
from adamas.bench.scenario import Scenario


class TorchTraining(Peer):
    """Parameters of torch and a `torch.optim.Optimizer`, which `make` returns."""

    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        self.params: list[Tensor] = [torch.nn.Parameter(param.clone()) for param in params]
        self.grads = [torch.zeros_like(param) for param in params]
        self.mean: list[Tensor] = []
        self.options: dict[str, Any] = {
            "lr": LR,
            "betas": (BETA1, BETA2),
            "eps": eps(scenario.dtype),
            "weight_decay": WEIGHT_DECAY,
        }
        self.optimizer = self.make(scenario)
        self.ready()

    @abstractmethod
    def make(self, scenario: Scenario) -> Any:
        """Return an optimizer of `self.params` with `self.options`."""

    def give(self, grads: list[Tensor]) -> None:
        for mine, grad in zip(self.grads, grads, strict=True):
            mine.copy_(grad)
        self.ready()

    def ready(self) -> None:
        for param, grad in zip(self.params, self.grads, strict=True):
            param.grad = grad

    def step(self) -> None:
        self.optimizer.step()

    def phase(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.params, MAX_NORM)
        self.optimizer.step()
        with torch.no_grad():
            if self.mean:
                torch._foreach_lerp_(self.mean, self.params, 1 - EMA_DECAY)  # pyright: ignore[reportPrivateImportUsage]
            else:
                self.mean = [param.detach().clone() for param in self.params]
        self.optimizer.zero_grad()

    def parameters(self) -> list[Tensor]:
        return [param.detach().clone() for param in self.params]

    def averages(self) -> list[Tensor]:
        return [average.clone() for average in self.mean]

    def state_bytes(self) -> int:
        tensors = [x for state in self.optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
        return sum(storage_bytes(tensor) for tensor in tensors + self.mean)


def storage_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor, or of the tensors that a subclass is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()  # pyright: ignore[reportAttributeAccessIssue] - of a subclass
        return sum(storage_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()
