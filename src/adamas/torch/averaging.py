"""Replace the weights by their moving averages for a while: to evaluate, to save, or to refresh batch norms."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from adamas.torch.conductor import Conductor
from adamas.uninterrupted import Uninterrupted


@contextmanager
def swapped(optimizer: Optimizer, conductor: Conductor) -> Generator[None]:
    """A context in which the weights are their moving averages; afterwards they are as before, bit for bit.

    A copy keeps the weights meanwhile. The statistics of batch norms belong to the weights: recompute them for the
    averages with `torch.optim.swa_utils.update_bn` inside the context. Weights without an average do not change.

    Raises:
        RuntimeError: there is no average, the context is already entered, or the optimizer is one process's part of a
            ZeroRedundancyOptimizer.

    Example:
        >>> from adamas.torch import AdamW
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> optimizer = AdamW([weight], lr=1.0, weight_decay=0, ema_decay=0.75)
        >>> for _ in range(2):
        ...     weight.grad = -torch.ones(1)
        ...     optimizer.step()
        >>> with optimizer.averaged():  # 0.75 * 1 + 0.25 * 2: the weight is 1 after the first step, then 2
        ...     print(round(weight.item(), 4))
        1.25
        >>> print(round(weight.item(), 4))
        2.0
    """
    if conductor.swapped:
        raise RuntimeError("averaged() inside averaged(): the weights are their averages already")
    if _is_a_part(optimizer):
        raise RuntimeError(
            "averaged() of one process's part of a ZeroRedundancyOptimizer: each process has the averages of its own "
            "weights only, and replicas would differ. Use torch.optim.swa_utils.AveragedModel"
        )
    params = [param for group in optimizer.param_groups for param in group["params"]]
    averages = {param: optimizer.state[param]["ema"] for param in params if "ema" in optimizer.state.get(param, {})}
    if not averages:
        raise RuntimeError(
            "no weight has an average yet: construct with ema_decay and step, or load a state with averages"
        )
    kept = {param: param.detach().clone(memory_format=torch.preserve_format) for param in averages}
    try:
        with Uninterrupted():
            conductor.swapped = True
            _write(averages)
        yield
    finally:
        with Uninterrupted():
            if conductor.swapped:
                _write(kept)
            conductor.swapped = False


def _write(values: dict[Tensor, Tensor]) -> None:
    with torch.no_grad():
        for param, value in values.items():
            param.copy_(value)


def _is_a_part(optimizer: Optimizer) -> bool:
    """Whether a ZeroRedundancyOptimizer steps through this optimizer."""
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    return module is not None and any(
        type(each) is module.ZeroRedundancyOptimizer and each.__dict__.get("optim") is optimizer
        for each in gc.get_objects()
    )
