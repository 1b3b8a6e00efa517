"""NVIDIA apex: one fused operation for many tensors, for GPUs. Not what is called apex on PyPI."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from adamas.bench.peers.stepped_by_torch import SteppedByTorch
from adamas.bench.scenario import Scenario


class ApexFused(SteppedByTorch):
    """`apex.optimizers.FusedAdam` with decoupled decay."""

    name = "apex-fused"
    modules = ("apex",)
    install = "git+https://github.com/NVIDIA/apex (needs nvcc)"

    def make(self, scenario: Scenario) -> Any:
        """The optimizer."""
        return import_module("apex.optimizers").FusedAdam(self.params, adam_w_mode=True, **self.options)
