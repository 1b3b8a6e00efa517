"""flashoptim: 8-bit moments and split master weights, for GPUs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from adamas.bench.peers.stepped_by_torch import SteppedByTorch
from adamas.bench.scenario import Scenario


class FlashOptim(SteppedByTorch):
    """`flashoptim.FlashAdamW`."""

    name = "flashoptim"
    modules = ("flashoptim",)
    install = "flashoptim"

    def make(self, scenario: Scenario) -> Any:
        """The optimizer."""
        return import_module("flashoptim").FlashAdamW(self.params, **self.options)
