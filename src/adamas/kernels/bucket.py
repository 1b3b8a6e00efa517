"""What a kernel is given: tensors that take the same step; and what the choice of a kernel depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adamas.formats.names import PARTS


class MismatchError(ValueError):
    """A tensor no longer fits the bucket it was put in; nothing has been written."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How moments and weights are stored: see `adamas.formats`.

    Args:
        moments: "wide" for float32, or what is wider of the parameter's own; else a format of
            `adamas.formats.moments`.
        master_bits: 24 or 32 where a bfloat16 parameter is the upper part of a longer weight.
        stochastic: whether a weight of 16 or 24 bits is rounded without bias, not to nearest.
    """

    moments: str = "wide"
    master_bits: int | None = None
    stochastic: bool = False

    @property
    def random(self) -> bool:
        """Whether a step draws random bits."""
        return self.moments in ("bfloat16", "packed16", "packed12") or (self.stochastic and self.master_bits != 32)

    @property
    def plain(self) -> bool:
        """Whether moments are wide, and weights rounded to nearest without a master."""
        return self == PLAIN


PLAIN = Storage()


@dataclass(slots=True)
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
    """

    params: list[Tensor]
    states: list[dict[str, Any]]
    storage: Storage = PLAIN
    amsgrad: bool = False
    averages: bool = False
    foreach: bool = False
    differentiable: bool = False


@dataclass(frozen=True, slots=True)
class Traits:
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


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements of this layout fill one block of memory, each once, in some order of the dimensions.

    Example:
        >>> is_dense((2, 3), (1, 2)), is_dense((2, 3), (6, 2)), is_dense((2, 3), (0, 1))
        (True, False, False)
    """
    if 0 in shape:
        return True
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def state_names(amsgrad: bool, averages: bool, storage: Storage = PLAIN) -> tuple[str, ...]:
    """The keys of a state's tensors, in the kernels' order."""
    return (
        *PARTS[storage.moments],
        *(("param_low",) if storage.master_bits else ()),
        *(("max_exp_avg_sq",) if amsgrad else ()),
        *(("ema",) if averages else ()),
    )


def tell_autograd(written: list[Tensor]) -> None:
    """Tell autograd, which may have saved tensors for a backward pass, that they have changed behind its back."""
    try:
        torch.autograd.graph.increment_version(written)
    except TypeError:  # older than the lists that torch 2.7 takes
        for tensor in written:
            torch.autograd.graph.increment_version(tensor)


def moment_dtype(param: Tensor) -> torch.dtype:
    """The dtype of a parameter's wide moments and average: its own, at least float32; complex if it is complex."""
    if param.dtype == torch.complex32:
        return torch.complex64
    return param.dtype if param.dtype.is_complex else torch.promote_types(param.dtype, torch.float32)


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
