"""The tensors of a state: their names, dtypes, shapes and strides, and whether a tensor fits its parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adamas import formats
from adamas.formats.names import GRIDS, PACKED, WIDE, Storage

State = dict[str, Any]
Part = tuple[torch.dtype, tuple[int, ...]]
PACKED_PARTS = (*PACKED, *GRIDS)
TENSORS = (*WIDE, *PACKED_PARTS, "param_low", "max_exp_avg_sq", "ema")
ORDINARY = (Tensor, torch.nn.Parameter)  # every other type of tensor may handle torch's operations in its own way


class MismatchError(ValueError):
    """Raised before anything is written, where a tensor does not fit its bucket."""


def moment_dtype(param: Tensor) -> torch.dtype:
    """The dtype of wide moments and averages: the parameter's, but at least float32."""
    return torch.promote_types(param.dtype, torch.float32)


def parts(storage: Storage, param: Tensor) -> dict[str, Part]:
    """The dtype and shape of each tensor that is stored row-major: moments in fewer bits, and low bits.

    Wide moments, running maxima and averages have the parameter's layout, and are not listed.
    """
    if storage.moments == "wide" and not storage.master_bits:
        return {}
    return formats.stored.parts(storage, param)


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements fill one block of memory, each exactly once, in some order of the dimensions.

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


def is_traced(tensor: Tensor) -> bool:
    """Whether a tensor only stands for one while a program is traced, without memory, as a FakeTensor does."""
    return type(tensor).__module__.startswith("torch._subclasses")


def is_aligned(tensor: Tensor) -> bool:
    """Whether a tensor begins at an even address, because kernels read 16-bit words."""
    return type(tensor) not in ORDINARY or tensor.data_ptr() % 2 == 0


def is_expanded(tensor: Tensor) -> bool:
    """Whether several elements share memory, as after `expand`."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def same_order(a: Tensor, b: Tensor) -> bool:
    """Whether element k of `a` lies where element k of `b` does: strides agree in each dimension longer than 1."""
    strides = zip(a.shape, a.stride(), b.stride(), strict=True)
    return a.numel() == 0 or all(size == 1 or mine == other for size, mine, other in strides)


def is_lazy_view(tensor: Tensor) -> bool:
    """Whether a tensor stands for the negative or the conjugate of the numbers in its memory."""
    return tensor.is_neg() or tensor.is_conj()


def zeros_like(param: Tensor) -> Tensor:
    """Zeros of the moments' dtype, laid out as the parameter."""
    return torch.zeros_like(param, dtype=moment_dtype(param), memory_format=torch.preserve_format, requires_grad=False)


def difference(tensor: Tensor, param: Tensor, part: Part | None = None, order_of: Tensor | None = None) -> str | None:
    """Why a kernel cannot use a tensor of a state; None where the tensor fits.

    Args:
        tensor: the tensor.
        param: its parameter.
        part: its dtype and shape, where it is stored row-major; None where it has the parameter's layout.
        order_of: the tensor with the right strides, where that is not the parameter.
    """
    dtype, shape = (moment_dtype(param), tuple(param.shape)) if part is None else part
    if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
        return (
            f"is {tensor.dtype} of shape {tuple(tensor.shape)}, and a {param.dtype} parameter of shape "
            f"{tuple(param.shape)} needs {dtype} of shape {shape}"
        )
    if tensor.device != param.device:
        return f"is on {tensor.device}, its parameter on {param.device}"
    if tensor.layout is not torch.strided or is_lazy_view(tensor):
        return "is not a dense tensor of the values in its memory"
    if part is None:
        in_order = same_order(tensor, param if order_of is None else order_of)
    else:
        in_order = tensor.is_contiguous() and is_aligned(tensor)
    return None if in_order else "is laid out otherwise than its parameter"


def in_rows(state: State, param: Tensor, storage: Storage, name: str) -> State:
    """The tensors that are stored row-major: contiguous, and at an even address.

    Raises:
        ValueError: a tensor has another dtype or shape, or lies on another device.
    """
    found: State = {}
    for key, part in parts(storage, param).items():
        tensor = state[key]
        if is_lazy_view(tensor) or not is_aligned(tensor):
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        found[key] = tensor.contiguous()
        why = difference(found[key], param, part)
        if why is not None:
            raise ValueError(f"{key} of {name} {why}")
    return found


def fitting(moment: Tensor, param: Tensor, what: str) -> Tensor:
    """The moment, maximum or average itself where it fits the parameter, else a copy that fits."""
    if moment.shape != param.shape:
        raise ValueError(f"{what} has shape {tuple(moment.shape)}, the parameter {tuple(param.shape)}: they must agree")
    if moment.device != param.device:
        raise ValueError(
            f"{what} is on {moment.device}, the parameter on {param.device}: move the model before making its "
            "optimizer, or load the optimizer's state again after moving it"
        )
    if moment.is_complex() != param.is_complex():
        raise ValueError(f"{what} is {moment.dtype}, which a {param.dtype} parameter cannot use")
    right = moment.dtype == moment_dtype(param) and moment.layout is torch.strided and not is_lazy_view(moment)
    if right and moment.stride() == param.stride():
        return moment
    copy = torch.empty_like(param, dtype=moment_dtype(param), memory_format=torch.preserve_format, requires_grad=False)
    if right and moment.stride() == copy.stride():
        return moment  # the parameter has gaps in memory, which moments do not have
    return copy.copy_(moment.detach())
