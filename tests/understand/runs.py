"""Small real runs that tests of the X-ray look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

DATA = torch.Generator().manual_seed(7)
INPUTS, LABELS = torch.randn(256, 12, generator=DATA), torch.randint(0, 5, (256,), generator=DATA)


def model() -> nn.Module:
    """A classifier with 12-24-5 units; the same weights each time."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5))


def train(
    network: nn.Module,
    optimizer: Optimizer,
    steps: int,
    each: Callable[[int], Any] | None = None,
    after: Callable[[int], Any] | None = None,
) -> None:
    """Take steps on batches of 32, the same each time; call `each` before a step, with gradients, and `after` it."""
    order = torch.Generator().manual_seed(11)
    dtype = next(network.parameters()).dtype
    sign = -1.0 if optimizer.param_groups[0]["maximize"] else 1.0
    for step in range(steps):
        chosen = torch.randint(0, 256, (32,), generator=order)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(INPUTS[chosen].to(dtype)).float(), LABELS[chosen])
        (sign * loss).backward()
        if each is not None:
            each(step)
        optimizer.step()
        if after is not None:
            after(step)
