"""The rule of decay that a parameter group follows, read from the group of a live optimizer or of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adamas.decay import USES_BASE_LR
from adamas.options import BASE_LR
from adamas.scalars import Hyper

KEYS = ("lr", "betas", "eps", "weight_decay")


def hyper_of(group: Mapping[str, Any], decoupled: bool) -> Hyper:
    """Return the hyperparameters of a group of Adam or AdamW, ours or torch's; tensors become numbers.

    Args:
        group: the parameter group.
        decoupled: whether weight decay is decoupled where the group does not say so.

    Raises:
        ValueError: a value is out of its range, or is no number.
    """
    beta1, beta2 = (float(beta) for beta in group["betas"])
    decay = group.get("decay", "lr") if group.get("decoupled_weight_decay", decoupled) else "l2"
    return Hyper(
        lr=float(group["lr"]),
        beta1=beta1,
        beta2=beta2,
        eps=float(group["eps"]),
        weight_decay=float(group["weight_decay"]),
        decay=decay,
        base_lr=float(group.get(BASE_LR, group["lr"])) if decay in USES_BASE_LR else 0.0,
        amsgrad="raw" if group.get("amsgrad") else "off",
        maximize=bool(group.get("maximize", False)),
        cautious_decay=bool(group.get("cautious_decay", False)) and decay != "l2",
    )


def base_lr_of(group: Mapping[str, Any]) -> float:
    """Return the learning rate that a group's schedule starts from, where a scheduler wrote it; else its present one.

    Example:
        >>> base_lr_of({"lr": 0.001, "initial_lr": 0.01}), base_lr_of({"lr": 0.001})
        (0.01, 0.001)
    """
    return float(group.get("initial_lr", group["lr"]))
