"""`StepScalars` as a kernel takes them: host numbers as arguments, tensors by their address."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.kernels.gpu.rule import TINY
from adamas.kernels.gpu.step import Scalars
from adamas.kernels.gpu.table import upload

if TYPE_CHECKING:
    from adamas.scalars import StepScalars

NUMBER, FOR_ALL, FOR_EACH = 0, 1, 2  # where a scalar is: see `rule.scalar`


@dataclass(frozen=True, slots=True)
class Factors:
    """The scalars of a bucket's step.

    Args:
        scalars: float32 numbers, or float64 tensors on the device.
        where: each one's NUMBER, FOR_ALL or FOR_EACH.
        key: of random bits, two of them: int32 numbers, or int64 tensors.
        where_key: likewise.
        which: the number of each tensor's step; None where there is but one.
        scaled: whether grad_factor may be other than 1.
        l2: whether there may be coupled weight decay.
        decoupled: whether there may be decoupled weight decay.
        usual: whether beta1 >= 1/2 and eps_root = 0 are known.
    """

    scalars: Scalars
    where: Scalars
    key: tuple[Any, Any]
    where_key: int
    which: list[int] | None
    scaled: bool
    l2: bool
    decoupled: bool
    usual: bool


def gather(steps: list[StepScalars], which: list[int] | None, count: int, device: torch.device) -> Factors:
    """The factors of the different steps of a bucket.

    Args:
        steps: the different ones.
        which: which of them each tensor takes; None where there is but one.
        count: of tensors. Where a scalar has as many elements, each tensor has its own.
        device: on which tensors are to lie.
    """
    found = {name: _placed([_value(step, name) for step in steps], name, device) for name in Scalars._fields}
    keys = [_key([step.random[i] if step.random else 0 for step in steps], device) for i in range(2)]
    where = Scalars(*(place for _, place in found.values()))
    if which is None and (FOR_EACH in where or keys[0][1] == FOR_EACH):
        which = list(range(count))
    return Factors(
        scalars=Scalars(*(value for value, _ in found.values())),
        where=where,
        key=(keys[0][0], keys[1][0]),
        where_key=keys[0][1],
        which=which,
        scaled=any(_may_differ(step.grad_factor, 1) for step in steps),
        l2=any(_may_differ(step.l2, 0) for step in steps),
        decoupled=any(_may_differ(step.decay, 0) for step in steps),
        usual=all(
            not isinstance(step.beta1, Tensor) and _float32(step.beta1) >= 0.5 and not _may_differ(step.eps_root, 0)
            for step in steps
        ),
    )


def _may_differ(scalar: Any, number: float) -> bool:
    return isinstance(scalar, Tensor) or scalar != number


def _value(step: StepScalars, name: str) -> Any:
    return 1 - step.average if name == "average_keep" else getattr(step, name)


def _placed(values: list[Any], name: str, device: torch.device) -> tuple[Any, int]:
    """A scalar of all steps, and where it is."""
    round_ = _epsilon if name == "eps" else _float32
    return _gathered(values, round_, torch.float64, device)


def _key(values: list[Any], device: torch.device) -> tuple[Any, int]:
    return _gathered(values, _int32, torch.int64, device)


def _gathered(
    values: list[Any], number: Callable[[Any], Any], dtype: torch.dtype, device: torch.device
) -> tuple[Any, int]:
    first = values[0]
    if isinstance(first, Tensor):  # a bucket whose steps are counted on the device has one for all
        tensor = first.detach().to(device=device, dtype=dtype, non_blocking=True).reshape(-1)
        return tensor, FOR_ALL if tensor.numel() == 1 else FOR_EACH
    if all(value == first for value in values):
        return number(first), NUMBER
    return upload(values, device, dtype), FOR_EACH


def _float32(x: float) -> float:
    return c_float(x).value


def _epsilon(x: float) -> float:
    return max(_float32(x), TINY.value) if x > 0 else 0.0


def _int32(x: int) -> int:
    return x - 2**32 if x >= 2**31 else x
