"""The tensors that a kernel steps together, and the properties of a parameter that decide which kernel can step it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adamas.formats.names import PLAIN, Storage, state_names
from adamas.formats.random_bits import Place
from adamas.state.layout import MismatchError, is_dense, moment_dtype

__all__ = ["PLAIN", "Bucket", "MismatchError", "Storage", "Traits", "is_dense", "moment_dtype", "state_names"]


@dataclass(slots=True, eq=False, repr=False)
class Bucket:
    """Tensors that take the same step: lists of equal length, with element i of each for parameter i.

    Wide moments, running maxima and averages have the parameter's layout; all other states are stored in rows.
    """

    params: list[Tensor]  # written by the kernel
    states: list[dict[str, Any]]  # the kernel writes the tensors that `state_names` lists
    storage: Storage = PLAIN  # how moments and weights are stored
    amsgrad: bool = False  # running maxima of the second moments are kept
    averages: bool = False  # moving averages of the weights are kept
    foreach: bool = False  # `eager` may hold temporaries for all tensors at once
    differentiable: bool = False  # autograd records the step
    counts: bool = False  # a step adds 1 to the tensor "step" of each state, in place
    places: list[Place] | None = None  # for shards: the place of each tensor in its whole parameter
    on_device: bool = False  # these counts lie on the parameters' device, and the host never reads them


class Traits(NamedTuple):
    """The properties of a parameter on which the choice of a kernel depends."""

    device: str  # the device type, for instance "cpu"
    dtype: torch.dtype
    grad_dtype: torch.dtype
    plain: bool  # no subclass with its own dispatch (DTensor, fake tensors), and no lazily negated view
    dense: bool  # the elements fill one block of memory, each exactly once
    host_scalars: bool  # learning rate and step are host numbers, not tensors (capturable, differentiable)
    storage: Storage = PLAIN  # how moments and weights are stored
    row_major: bool = True  # the elements lie in the order of their indices
    differentiable: bool = False  # autograd records the step


def shared_refusal(traits: Traits, kernel: str, dtypes: Container[torch.dtype]) -> str | None:
    """Return why a kernel cannot step such a parameter, from the rules that `native` and `triton` share, or None."""
    if traits.dtype not in dtypes:
        return f"{traits.dtype} has no {kernel} kernel"
    if traits.grad_dtype != traits.dtype:
        return f"the gradient is {traits.grad_dtype}, the parameter {traits.dtype}"
    if not traits.plain:
        return "the parameter or its gradient is a tensor subclass, or a program is being traced"
    if traits.storage.moments == "float16":
        return f"float16 moments have no {kernel} kernel"
    if not traits.storage.plain and not traits.row_major:
        return "the parameter is not row-major, and moments or weights of fewer bits are stored in rows"
    return None


def tell_autograd(params: list[Tensor], absent: list[int], zeroed: list[Tensor | None]) -> None:
    """Tell autograd which tensors a step wrote: a backward pass through their earlier values must raise.

    Args:
        params: the parameters of a bucket.
        absent: the indices of the parameters without a gradient, which the step did not write.
        zeroed: the gradients that the step zeroed; None for a missing one.
    """
    left_out = set(absent)
    written = [param for i, param in enumerate(params) if i not in left_out] if absent else params
    if zeroed:
        written = [*written, *(grad for grad in zeroed if grad is not None)]
    try:
        torch.autograd.graph.increment_version(written)
    except TypeError:  # before torch 2.7, which takes lists
        for tensor in written:
            torch.autograd.graph.increment_version(tensor)


def param_traits(
    param: Tensor, grad: Tensor, host_scalars: bool, storage: Storage = PLAIN, differentiable: bool = False
) -> Traits:
    """Return the traits of a parameter and its current gradient."""
    ordinary = (Tensor, torch.nn.Parameter)
    plain = type(param) in ordinary and type(grad) in ordinary and not param.is_neg()
    strided = param.layout is torch.strided
    row_major = plain and strided and param.is_contiguous()
    dense = row_major or (plain and strided and is_dense(tuple(param.shape), param.stride()))
    kind = (param.device.type, param.dtype, grad.dtype)
    return Traits(*kind, plain, dense, host_scalars, storage, row_major, differentiable)
