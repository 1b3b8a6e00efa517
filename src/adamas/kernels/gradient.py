"""The global norm of a step's gradients, and whether they are finite, from the sums of squares that kernels return."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def global_norm(squares: list[Any], scale: Any, on_device: bool) -> Any:
    """The norm of all gradients as one long vector, with the loss scale undone; it does not depend on their order.

    Infinite or NaN exactly where a gradient is, save that a float64 gradient above 1e154 counts as infinite: its square
    is.

    Args:
        squares: sums of the squares of gradients, or of pieces of them: numbers, or float64 tensors of any shape.
        scale: by which the loss was multiplied; where it is a tensor, the result lies on its device.
        on_device: keep the result in a tensor, so that the host waits for no device.

    Returns:
        A number, or a 0-d float64 tensor.
    """
    if on_device:
        device = next((x.device for x in (scale, *squares) if isinstance(x, Tensor)), torch.device("cpu"))
        every = [torch.as_tensor(x, dtype=torch.float64).to(device, non_blocking=True).reshape(-1) for x in squares]
        # Sorted, so that the order of the parameters leaves the sum's rounding as it is.
        return (torch.cat(every).sort().values.sum().sqrt() if every else torch.zeros(())) / scale
    numbers = [y for x in squares for y in (x.tolist() if isinstance(x, Tensor) and x.dim() else [float(x)])]
    try:
        return math.sqrt(math.fsum(numbers)) / scale  # fsum rounds once, whatever the order
    except OverflowError:
        return math.inf


def finite(norm: Any, other: Any, on_device: bool) -> Any:
    """The first of two norms where it is one and finite, else the second: None where there is none.

    Args:
        norm: a number, a 0-d tensor or None.
        other: likewise.
        on_device: decide in a tensor, so that the host waits for no device.
    """
    if norm is None or other is None:
        return other if norm is None else norm
    if on_device and isinstance(norm, Tensor):
        return torch.where(torch.isfinite(norm), norm, torch.as_tensor(other, dtype=norm.dtype, device=norm.device))
    norm = float(norm)
    return norm if math.isfinite(norm) else other


def counted(skipped: Any, skip: Any) -> Any:
    """The count of skipped steps after this one: once a device decides, one tensor there, written in place.

    In place, so that a graph which captured the step goes on counting.
    """
    if not isinstance(skip, Tensor):
        return skipped + skip
    if not isinstance(skipped, Tensor):
        skipped = torch.full((), skipped, dtype=torch.int64, device=skip.device)
    return skipped.add_(skip)


def any_of(verdicts: list[Any]) -> Any:
    """Whether one of several verdicts is true: a bool, or a 0-d tensor where one of them is a tensor."""
    tensors = [x for x in verdicts if isinstance(x, Tensor)]
    on_host = any(x for x in verdicts if not isinstance(x, Tensor))
    return torch.stack(tensors).any() | on_host if tensors else on_host


def unfit(norm: Any, found_inf: Any) -> Any:
    """Whether a step is to be skipped: a bool, or a 0-d bool tensor where one of the two is a tensor.

    Args:
        norm: of the gradients; None where it does not matter.
        found_inf: a loss scaler's verdict, not 0 where it found an overflow; None without one.
    """
    tensors = [x for x in (norm, found_inf) if isinstance(x, Tensor)]
    if not tensors:
        return (norm is not None and not math.isfinite(norm)) or bool(found_inf)
    device = tensors[0].device
    verdicts = []
    if norm is not None:
        verdicts.append(~torch.isfinite(torch.as_tensor(norm)).to(device, non_blocking=True))
    if found_inf is not None:
        verdicts.append((torch.as_tensor(found_inf) != 0).reshape(()).to(device, non_blocking=True))
    return torch.stack(verdicts).any()


def unscale(grads: list[Tensor], scale: Any, skip: Tensor | None) -> None:
    """Divide gradients by a loss scale in place, as torch's fused step does; not where the device skips the step."""
    if skip is not None:
        scale = torch.where(skip, 1.0, torch.as_tensor(scale, device=skip.device))
    if grads:
        with torch.no_grad():
            torch._foreach_div_([grad.detach() for grad in grads], scale)  # pyright: ignore[reportPrivateImportUsage]
