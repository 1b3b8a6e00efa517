"""The global norm of a step's gradients, and whether to skip the step, from the sums of squares that kernels return.

Verdicts and norms are numbers of the host, or 0-d tensors where only the device knows them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from adamas.scalars import norm_of


def global_norm(squares: list[Any], scale: Any, on_device: bool) -> Any:
    """Return the norm of all gradients as one vector, divided by the loss scale.

    The result does not depend on the order of the gradients. It is infinite or NaN exactly if a gradient is; a float64
    gradient above 1e154 counts as infinite, because its square is.

    Args:
        squares: sums of the squares of gradients, or of parts of them: numbers, or float64 tensors of any shape.
        scale: the factor by which the loss was multiplied; where it is a tensor, the result lies on its device.
        on_device: return a 0-d float64 tensor, so that the host waits for no device; otherwise return a number.
    """
    if on_device:
        device = next((x.device for x in (scale, *squares) if isinstance(x, Tensor)), torch.device("cpu"))
        every = [torch.as_tensor(x, dtype=torch.float64).to(device, non_blocking=True).reshape(-1) for x in squares]
        # Sorted, so that the rounding of the sum does not depend on the order of the parameters.
        return (torch.cat(every).sort().values.sum().sqrt() if every else torch.zeros(())) / scale
    numbers = [y for x in squares for y in (x.tolist() if isinstance(x, Tensor) and x.dim() else [float(x)])]
    return norm_of(numbers) / scale


def over_mesh(squares: list[Any], mesh: Any) -> Tensor:
    """Return the sum of squares over all processes of a mesh, a 0-d float64 tensor: one all-reduce of one number."""
    import torch.distributed as dist

    if any(isinstance(x, Tensor) for x in squares):
        every = [torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in squares]
        total = torch.cat(every).sort().values.sum()
    else:
        norm = norm_of(squares)
        total = torch.tensor(math.fsum(squares) if math.isfinite(norm) else norm, dtype=torch.float64)
    total = total.to(mesh.device_type)
    whole = mesh.size() == dist.get_world_size()
    for group in [None] if whole else [mesh.get_group(dim) for dim in range(mesh.ndim)]:
        dist.all_reduce(total, group=group)
    return total


def finite(norm: Any, other: Any, on_device: bool) -> Any:
    """Return `norm` if it is finite, otherwise `other`; each is a number, a 0-d tensor, or None where it is missing.

    With `on_device` the result is a tensor if `norm` is one, so that the host waits for no device.
    """
    if norm is None or other is None:
        return other if norm is None else norm
    if on_device and isinstance(norm, Tensor):
        return torch.where(torch.isfinite(norm), norm, torch.as_tensor(other, dtype=norm.dtype, device=norm.device))
    norm = float(norm)
    return norm if math.isfinite(norm) else other


def counted(skipped: Any, skip: Any) -> Any:
    """Return the number of skipped steps after this one.

    Once a device decides, the number is a tensor on that device, written in place: a graph that captured the step
    continues to count.
    """
    if not isinstance(skip, Tensor):
        return skipped + skip
    if not isinstance(skipped, Tensor):
        skipped = torch.full((), skipped, dtype=torch.int64, device=skip.device)
    return skipped.add_(skip)


def any_of(verdicts: list[Any]) -> Any:
    """Return whether one of several verdicts is true, as a tensor on the first tensor's device if there is one."""
    tensors = [x for x in verdicts if isinstance(x, Tensor)]
    on_host = any(x for x in verdicts if not isinstance(x, Tensor))
    if not tensors:
        return on_host
    return torch.stack([x.to(tensors[0].device, non_blocking=True) for x in tensors]).any() | on_host


def unfit(norm: Any, found_inf: Any) -> Any:
    """Return whether a step must be skipped: a bool, or a 0-d bool tensor where one of the arguments is a tensor.

    Args:
        norm: the norm of the gradients, which must be finite; None where it does not matter.
        found_inf: a loss scaler's verdict, nonzero where it found an overflow; None without a scaler.
    """
    verdicts: list[Any] = []
    if norm is not None:
        verdicts.append(~torch.isfinite(norm) if isinstance(norm, Tensor) else not math.isfinite(norm))
    if found_inf is not None:
        verdicts.append((found_inf != 0).reshape(()) if isinstance(found_inf, Tensor) else bool(found_inf))
    return any_of(verdicts)


def unscale(grads: list[Tensor], scale: Any, skip: Tensor | None) -> None:
    """Divide gradients by a loss scale in place, as torch's fused step does, unless the device skips the step."""
    if skip is not None:
        scale = torch.where(skip, 1.0, torch.as_tensor(scale, device=skip.device))
    if grads:
        with torch.no_grad():
            torch._foreach_div_([grad.detach() for grad in grads], scale)  # pyright: ignore[reportPrivateImportUsage]
