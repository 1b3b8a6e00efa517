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
ORDINARY = (Tensor, torch.nn.Parameter)  # tensors without a dispatch of their own


class MismatchError(ValueError):
    """A tensor does not fit the bucket it was put in; nothing has been written."""


def moment_dtype(param: Tensor) -> torch.dtype:
    """The dtype of a parameter's wide moments and average: its own, at least float32; complex if it is complex."""
    return torch.promote_types(param.dtype, torch.float32)


def parts(storage: Storage, param: Tensor) -> dict[str, Part]:
    """The dtype and shape of the tensors that are stored in rows, row-major: moments in fewer bits, and low bits.

    Wide moments, running maxima and averages are not among them: they are laid out as the parameter.
    """
    if storage.moments == "wide" and not storage.master_bits:
        return {}
    return formats.stored.parts(storage, param)


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


def is_traced(tensor: Tensor) -> bool:
    """Whether a tensor has no memory and only stands for one while a program is traced, as a FakeTensor does."""
    return type(tensor).__module__.startswith("torch._subclasses")


def is_aligned(tensor: Tensor) -> bool:
    """Whether a tensor begins at an even address: kernels read words of 16 bits."""
    return type(tensor) not in ORDINARY or tensor.data_ptr() % 2 == 0


def is_expanded(tensor: Tensor) -> bool:
    """Whether elements share memory, as those of `expand` do."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def same_order(a: Tensor, b: Tensor) -> bool:
    """Whether element k of one lies where element k of the other does: equal strides, where they count."""
    strides = zip(a.shape, a.stride(), b.stride(), strict=True)
    return a.numel() == 0 or all(size == 1 or mine == other for size, mine, other in strides)


def is_lazy(tensor: Tensor) -> bool:
    """Whether a tensor stands for the negative or the conjugate of what is in its memory."""
    return tensor.is_neg() or tensor.is_conj()


def zeros_like(param: Tensor) -> Tensor:
    """Zeros as wide as moments are, laid out as the parameter."""
    return torch.zeros_like(param, dtype=moment_dtype(param), memory_format=torch.preserve_format, requires_grad=False)


def difference(tensor: Tensor, param: Tensor, part: Part | None = None, order_of: Tensor | None = None) -> str | None:
    """How a tensor of a state differs from what a kernel needs of it; None where it fits.

    Args:
        tensor: the tensor.
        param: its parameter.
        part: its dtype and shape, where it is stored in rows; None where it is laid out as the parameter.
        order_of: whose strides it must have, where that is not the parameter.
    """
    dtype, shape = (moment_dtype(param), tuple(param.shape)) if part is None else part
    if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
        return (
            f"is {tensor.dtype} of shape {tuple(tensor.shape)}, and a {param.dtype} parameter of shape "
            f"{tuple(param.shape)} needs {dtype} of shape {shape}"
        )
    if tensor.device != param.device:
        return f"is on {tensor.device}, its parameter on {param.device}"
    if tensor.layout is not torch.strided or is_lazy(tensor):
        return "is not a dense tensor of the values in its memory"
    if part is None:
        in_order = same_order(tensor, param if order_of is None else order_of)
    else:
        in_order = tensor.is_contiguous() and is_aligned(tensor)
    return None if in_order else "is laid out otherwise than its parameter"
