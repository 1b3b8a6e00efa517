"""torchao: moments in 8 and in 4 bits, compiled for each shape."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from adamas.bench.peers.stepped_by_torch import SteppedByTorch
from adamas.bench.scenario import Scenario


class TorchAO8(SteppedByTorch):
    """`torchao.optim.AdamW8bit`; parameters of fewer than 4,096 elements keep full moments."""

    name = "torchao-8bit"
    modules = ("torchao",)
    install = "torchao"
    optimizer_name = "AdamW8bit"

    def make(self, scenario: Scenario) -> Any:
        """The optimizer."""
        return getattr(import_module("torchao.optim"), self.optimizer_name)(self.params, **self.options)


class TorchAO4(TorchAO8):
    """`torchao.optim.AdamW4bit`."""

    name = "torchao-4bit"
    optimizer_name = "AdamW4bit"
