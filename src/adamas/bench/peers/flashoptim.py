"""flashoptim: 8-bit moments and split master weights, for GPUs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from adamas.bench.peers.stepped_by_torch import SteppedByTorch, storage_bytes
from adamas.bench.scenario import Scenario


class FlashOptim(SteppedByTorch):
    """`flashoptim.FlashAdamW`; 16-bit parameters are the upper part of 24-bit weights."""

    name = "flashoptim"
    modules = ("flashoptim",)
    install = "flashoptim"

    def make(self, scenario: Scenario) -> Any:
        """The optimizer, which refuses master weights for parameters that need none."""
        bits = 24 if scenario.dtype in ("bfloat16", "float16") else None
        return import_module("flashoptim").FlashAdamW(self.params, master_weight_bits=bits, **self.options)

    def state_bytes(self) -> int:
        held = [value for state in self.optimizer.state.values() for value in state.values()]
        # Its quantized tensors are no tensors, but hold some.
        parts = [x for value in held for x in (value, *getattr(value, "__dict__", {}).values())]
        return sum(storage_bytes(x) for x in [*parts, *self.mean] if isinstance(x, Tensor))
