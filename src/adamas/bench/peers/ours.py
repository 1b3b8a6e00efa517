"""Adamas itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from adamas.bench.peers.stepped_by_torch import SteppedByTorch
from adamas.bench.rule import EMA_DECAY, MAX_NORM
from adamas.bench.scenario import Scenario
from adamas.torch import AdamW


class Ours(SteppedByTorch):
    """`adamas.torch.AdamW`; a phase is one call."""

    name = "adamas"
    modules = ("adamas",)
    install = "adamas"
    exact = True

    def make(self, scenario: Scenario) -> Any:
        """One optimizer that clips and averages too, where a phase is asked for."""
        phase: dict[str, Any] = {"max_norm": MAX_NORM, "ema_decay": EMA_DECAY} if scenario.work == "phase" else {}
        return AdamW(self.params, **self.options, **phase, **scenario.storage)

    def phase(self) -> None:
        """Clip, step, average and clear in one pass."""
        self.optimizer.step(zero_grad=True)

    def averages(self) -> list[Tensor]:
        """The averages, which a context puts in the parameters' place."""
        with self.optimizer.averaged():
            return self.parameters()

    def state_bytes(self) -> int:
        """As the optimizer counts them."""
        return self.optimizer.state_bytes()
