"""The moving average of the weights in their place for a while: to evaluate, to save, to refresh batch norms."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from adamas.torch.optimizer import Adam


@contextmanager
def swapped(optimizer: Adam) -> Generator[None]:
    """Within this context the weights are their moving averages; afterwards they are as before, bit for bit.

    Meanwhile the weights themselves are kept aside, at the cost of a copy. Batch norms' statistics belong to the
    weights: `torch.optim.swa_utils.update_bn` inside the context makes them the averages' own. Weights that have not
    been stepped with `ema_decay` stay what they are.

    Raises:
        RuntimeError: there is no average, or this context is already entered.

    Example:
        >>> from adamas.torch import AdamW
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = AdamW([weight], lr=1.0, weight_decay=0, ema_decay=0.75)
        >>> for _ in range(2):
        ...     weight.grad = -torch.ones(1)
        ...     optimizer.step()
        >>> with optimizer.averaged():  # it began as a copy of the weight after the first step: 1, then 2
        ...     print(round(weight.item(), 4))
        1.25
        >>> print(round(weight.item(), 4))
        2.0
    """
    if optimizer._swapped:
        raise RuntimeError("averaged() inside averaged(): the weights are their averages already")
    params = [param for group in optimizer.param_groups for param in group["params"]]
    averages = {param: optimizer.state[param]["ema"] for param in params if "ema" in optimizer.state.get(param, {})}
    if not averages:
        raise RuntimeError("no weight has an average yet: construct with ema_decay, and step, or load such a state")
    kept = {param: param.detach().clone(memory_format=torch.preserve_format) for param in averages}
    optimizer._swapped = True
    try:
        _write(averages)
        yield
    finally:
        _write(kept)
        optimizer._swapped = False


def _write(values: dict[torch.Tensor, torch.Tensor]) -> None:
    with torch.no_grad():
        for param, value in values.items():
            param.copy_(value)
