"""optimi (the package torch-optimi)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from adamas.bench.peers.stepped_by_torch import SteppedByTorch
from adamas.bench.scenario import Scenario


class Optimi(SteppedByTorch):
    """`optimi.AdamW` with its own choice of implementation, and of Kahan summation for 16-bit parameters."""

    name = "optimi"
    modules = ("optimi",)
    install = "torch-optimi"

    def make(self, scenario: Scenario) -> Any:
        """The optimizer."""
        return import_module("optimi").AdamW(self.params, **self.options)
