"""bitsandbytes: moments in 32 and in 8 bits."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from adamas.bench.peers.stepped_by_torch import SteppedByTorch
from adamas.bench.scenario import Scenario


class BitsAndBytes(SteppedByTorch):
    """`bitsandbytes.optim.AdamW`."""

    name = "bitsandbytes"
    modules = ("bitsandbytes",)
    install = "bitsandbytes"
    optimizer_name = "AdamW"

    def make(self, scenario: Scenario) -> Any:
        """The optimizer."""
        return getattr(import_module("bitsandbytes.optim"), self.optimizer_name)(self.params, **self.options)


class BitsAndBytes8(BitsAndBytes):
    """`bitsandbytes.optim.AdamW8bit`; parameters of fewer than 4,096 elements keep moments of 32 bits."""

    name = "bitsandbytes-8bit"
    optimizer_name = "AdamW8bit"
