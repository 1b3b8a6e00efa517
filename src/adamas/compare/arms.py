"""The candidates: each arm is a record; what differs between them is the optimizer and how its decay is scaled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Arm:
    """One candidate.

    Attributes:
        name: key in the JSON and the trials.
        title: how sentences call it.
        optimizer: class in `adamas.torch`.
        decay: how weight decay acts: "none", "coupled" (L2 in the gradient) or "decoupled" (AdamW's).
    """

    name: str
    title: str
    optimizer: Literal["Adam", "AdamW"]
    decay: Literal["none", "coupled", "decoupled"]

    def build(self, params: Iterable[Any], lr: float, weight_decay: float) -> Optimizer:
        """Make the optimizer. AdamW is told 0 as well: its own default would decay."""
        from adamas import torch as front

        return getattr(front, self.optimizer)(params, lr=lr, weight_decay=weight_decay)

    def code(self, lr: float, weight_decay: float) -> str:
        """Code that makes this optimizer, ready to paste."""
        decay = "" if self.decay == "none" else f", weight_decay={weight_decay:.3g}"
        return (
            f"from adamas.torch import {self.optimizer}; "
            f"optimizer = {self.optimizer}(model.parameters(), lr={lr:.3g}{decay})"
        )


ARMS = {
    arm.name: arm
    for arm in (
        Arm("none", "Adam without decay", "Adam", "none"),
        Arm("adam_l2", "Adam with L2", "Adam", "coupled"),
        Arm("adamw", "AdamW", "AdamW", "decoupled"),
    )
}
