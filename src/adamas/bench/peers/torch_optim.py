"""`torch.optim.AdamW` in its three implementations. With `fused`, the phase is the best that torch offers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from adamas.bench.peers.stepped_by_torch import SteppedByTorch
from adamas.bench.scenario import Scenario


class Torch(SteppedByTorch):
    """As torch chooses, which on a CPU is a loop over the parameters."""

    name = "torch"
    modules = ("torch",)
    install = "torch"
    exact = True
    choice: ClassVar[dict[str, Any]] = {}

    def make(self, scenario: Scenario) -> Any:
        """The optimizer."""
        return torch.optim.AdamW(self.params, **self.options, **self.choice)


class TorchForeach(Torch):
    """With operations on lists of tensors."""

    name = "torch-foreach"
    choice: ClassVar[dict[str, Any]] = {"foreach": True}


class TorchFused(Torch):
    """With one fused operation."""

    name = "torch-fused"
    choice: ClassVar[dict[str, Any]] = {"fused": True}
