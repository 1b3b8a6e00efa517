"""What a kernel is given: tensors that take the same step; and what the choice of a kernel depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adamas.formats.names import PLAIN, Storage, state_names
from adamas.state.layout import MismatchError, is_dense, moment_dtype

__all__ = ["PLAIN", "Bucket", "MismatchError", "Storage", "Traits", "is_dense", "moment_dtype", "state_names"]


@dataclass(slots=True, eq=False, repr=False)
class Bucket:
    """Lists of equal length; element i of each belongs to parameter i.

    Args:
        params: the parameters, written by the kernel.
        states: their states, of which the kernel writes the tensors that `state_names` names.
        storage: how moments and weights are stored. Wide moments, running maxima and averages are laid out as the
            parameter, everything else in rows.
        amsgrad: whether running maxima of the second moments are kept.
        averages: whether moving averages of the weights are kept.
        foreach: whether `eager` may hold temporaries for all tensors at once.
        differentiable: whether autograd is to record the step.
        counts: whether `step` counts itself in each state's tensor "step", in place.
        on_device: whether those counts lie on the parameters' device and are never read by the host.
    """

    params: list[Tensor]
    states: list[dict[str, Any]]
    storage: Storage = PLAIN
    amsgrad: bool = False
    averages: bool = False
    foreach: bool = False
    differentiable: bool = False
    counts: bool = False
    on_device: bool = False


class Traits(NamedTuple):
    """All that the choice of a kernel depends on.

    Args:
        device: device type of the parameter, "cpu" for instance.
        dtype: of the parameter.
        grad_dtype: of its gradient.
        plain: an ordinary tensor, not a subclass with a dispatch of its own (DTensor, fake tensors), nor a lazily
            negated view.
        dense: its elements fill one block of memory, each exactly once.
        host_scalars: learning rate and step are host numbers, not tensors (capturable, differentiable).
        storage: how its moments and weights are stored.
        row_major: its elements lie in the order of its indices.
        differentiable: autograd is to record the step.
    """

    device: str
    dtype: torch.dtype
    grad_dtype: torch.dtype
    plain: bool
    dense: bool
    host_scalars: bool
    storage: Storage = PLAIN
    row_major: bool = True
    differentiable: bool = False


def tell_autograd(written: list[Tensor]) -> None:
    """Tell autograd, which may have saved tensors for a backward pass, that they have changed behind its back."""
    try:
        torch.autograd.graph.increment_version(written)
    except TypeError:  # older than the lists that torch 2.7 takes
        for tensor in written:
            torch.autograd.graph.increment_version(tensor)


def param_traits(
    param: Tensor, grad: Tensor, host_scalars: bool, storage: Storage = PLAIN, differentiable: bool = False
) -> Traits:
    """The `Traits` of a parameter and the gradient it has now."""
    ordinary = (Tensor, torch.nn.Parameter)
    plain = type(param) in ordinary and type(grad) in ordinary and not param.is_neg()
    strided = param.layout is torch.strided
    row_major = plain and strided and param.is_contiguous()
    dense = row_major or (plain and strided and is_dense(tuple(param.shape), param.stride()))
    return Traits(
        device=param.device.type,
        dtype=param.dtype,
        grad_dtype=grad.dtype,
        plain=plain,
        dense=dense,
        host_scalars=host_scalars,
        storage=storage,
        row_major=row_major,
        differentiable=differentiable,
    )
