"""What a kernel is given: tensors that take the same step; and what the choice of a kernel depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


class MismatchError(ValueError):
    """A tensor no longer fits the bucket it was put in; nothing has been written."""


@dataclass(slots=True)
class Bucket:
    """Lists of equal length; element i of each belongs to parameter i.

    Args:
        params: the parameters, written by the kernel.
        exp_avgs: first moments, float32 or wider, written.
        exp_avg_sqs: second moments, likewise.
        max_exp_avg_sqs: running maxima of the second moments with amsgrad, else empty.
        foreach: whether `eager` may hold temporaries for all tensors at once.
        differentiable: whether autograd is to record the step.
    """

    params: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    max_exp_avg_sqs: list[Tensor] = field(default_factory=list)
    foreach: bool = False
    differentiable: bool = False


@dataclass(frozen=True, slots=True)
class Traits:
    """All that the choice of a kernel depends on.

    Args:
        device: device type of the parameter, "cpu" for instance.
        dtype: of the parameter.
        grad_dtype: of its gradient.
        plain: an ordinary tensor, not a subclass with a dispatch of its own (DTensor, fake tensors).
        dense: its elements fill one block of memory, each exactly once.
        host_scalars: learning rate and step are host numbers, not tensors (capturable, differentiable).
    """

    device: str
    dtype: torch.dtype
    grad_dtype: torch.dtype
    plain: bool
    dense: bool
    host_scalars: bool


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


def moment_dtype(param: Tensor) -> torch.dtype:
    """The dtype of a parameter's moments: its own, but at least float32 (complex parameters have complex moments)."""
    if param.dtype == torch.complex32:
        return torch.complex64
    return param.dtype if param.dtype.is_complex else torch.promote_types(param.dtype, torch.float32)


def param_traits(param: Tensor, grad: Tensor, host_scalars: bool) -> Traits:
    """The `Traits` of a parameter and the gradient it has now."""
    plain = type(param) in (Tensor, torch.nn.Parameter) and type(grad) in (Tensor, torch.nn.Parameter)
    strided = param.layout is torch.strided
    dense = plain and strided and is_dense(tuple(param.shape), param.stride())
    return Traits(param.device.type, param.dtype, grad.dtype, plain, dense, host_scalars)
