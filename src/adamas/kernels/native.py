"""The native CPU kernel (`native/` in the repository): float32, float64, bfloat16 and float16, in every storage.

One call steps all tensors of a bucket, in the process's OpenMP threads, without the GIL. Where the extension was not
built, `refuses` says so and `eager` takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.kernels.bucket import Bucket, MismatchError, Traits, state_names, tell_autograd

if TYPE_CHECKING:
    from adamas.scalars import StepScalars

NAME = "native"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

try:
    _native: Any = import_module("adamas.kernels._native")
    missing: str | None = None
except ModuleNotFoundError:
    _native = None
    missing = "the native kernel was not built"
except ImportError as error:
    _native = None
    missing = f"the native kernel cannot be loaded ({error})"
else:
    EXCHANGE = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    _native.use_torch(torch.Tensor, torch.nn.Parameter, EXCHANGE)


def isas() -> list[str]:
    """Instruction sets of the kernel that this processor can run, best first; empty where it is not built."""
    return [] if _native is None else _native.isas()


def refuses(traits: Traits) -> str | None:
    """Why this kernel cannot step such a parameter; None if it can."""
    if missing is not None:
        return missing
    if traits.device != "cpu":
        return f"the parameter is on {traits.device}, and native is for the CPU"
    if traits.dtype not in DTYPES:
        return f"{traits.dtype} has no native kernel"
    if traits.grad_dtype != traits.dtype:
        return f"the gradient is {traits.grad_dtype}, the parameter {traits.dtype}"
    if not traits.plain:
        return "the parameter or its gradient is a tensor subclass"
    if not traits.dense:
        return "the parameter has gaps in memory (a strided view)"
    if traits.storage.moments == "float16":
        return "float16 moments have no native kernel"
    if not traits.storage.plain and not traits.row_major:
        return "the parameter is not row-major, and moments or weights of fewer bits are stored in rows"
    if not traits.host_scalars:
        return "capturable and differentiable steps keep scalars in tensors"
    return None


@dataclass(slots=True)
class Prepared:
    """A bucket, the addresses of its tensors and, until the step is done, its gradients.

    `grads` are those the table reads; `copied` maps the index of one that is a copy to the original.
    """

    bucket: Bucket
    table: Any
    grads: list[Tensor | None]
    copied: dict[int, Tensor]


def prepare(bucket: Bucket) -> Prepared:
    """Make the table that keeps the tensors' addresses from one step to the next."""
    storage = bucket.storage
    names = list(state_names(bucket.amsgrad, bucket.averages, storage))
    table = _native.Table(names, storage.moments, storage.master_bits or 0, storage.stochastic)
    return Prepared(bucket, table, [], {})


def take(prepared: Prepared, grads: list[Tensor | None]) -> None:
    """Check every tensor and take the gradients; those laid out otherwise than their parameter are copied."""
    bucket, table = prepared.bucket, prepared.table
    copied: dict[int, Tensor] = {}
    try:
        copy = table.take(bucket.params, bucket.states, grads)
        if copy:
            grads = list(grads)
            for i in copy:
                copied[i] = grads[i]  # pyright: ignore[reportArgumentType] - the table read it
                grad = torch.empty_like(bucket.params[i], requires_grad=False, memory_format=torch.preserve_format)
                grads[i] = grad.copy_(copied[i].detach())
            table.take(bucket.params, bucket.states, grads)
    except _native.Mismatch as error:
        raise MismatchError(str(error)) from None
    prepared.grads, prepared.copied = grads, copied


def squares(prepared: Prepared) -> list[float]:
    """Each gradient's sum of squares, added in a fixed order whatever the threads."""
    return prepared.table.squares(torch.get_num_threads())


def release(prepared: Prepared) -> None:
    """Let the gradients go."""
    prepared.grads, prepared.copied = [], {}


def step(
    prepared: Prepared, scalars: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
) -> None:
    """Step every tensor of a bucket whose gradient was taken, in one call and torch's number of threads."""
    prepared.table.step(scalars, which, zero_grad, torch.get_num_threads())
    written, grads = prepared.bucket.params, prepared.grads
    if absent(grads):
        written = [param for param, grad in zip(written, grads, strict=True) if grad is not None]
    if zero_grad:
        for original in prepared.copied.values():
            original.detach().zero_()
        written = written + [grad for grad in grads if grad is not None]
    release(prepared)
    tell_autograd(written)


def touch(prepared: Prepared) -> None:
    """Read and write what a step would, computing nothing: how fast the memory allows a step to be."""
    prepared.table.touch(torch.get_num_threads())


def same_objects(a: list[Any], b: list[Any]) -> bool:
    """Whether `a[i] is b[i]` for all i."""
    return _native.same_objects(a, b) if _native is not None else len(a) == len(b) and all(map(is_, a, b))


def grads_of(tensors: list[Tensor]) -> list[Tensor | None]:
    """The gradients of tensors."""
    return _native.grads_of(tensors) if _native is not None else [tensor.grad for tensor in tensors]


def disjoint(tensors: list[Tensor | None]) -> bool:
    """Whether no two of the tensors share memory; False where that cannot be told."""
    if _native is not None and _native.disjoint(tensors):
        return True
    present = [tensor for tensor in tensors if tensor is not None]
    if not all(type(x) in (Tensor, torch.nn.Parameter) and x.layout is torch.strided for x in present):
        return False
    spans = sorted(
        (
            x.data_ptr(),
            x.data_ptr() + (1 + sum(s * (n - 1) for s, n in zip(x.stride(), x.shape, strict=True))) * x.itemsize,
        )
        for x in present
        if x.numel()
    )
    return all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def absent(grads: list[Tensor | None]) -> list[int]:
    """The indices of those that are None."""
    return _native.absent(grads) if _native is not None else [i for i, grad in enumerate(grads) if grad is None]


def items_are(dicts: list[dict[str, Any]], key: str, values: list[Tensor]) -> bool:
    """Whether `dicts[i][key] is values[i]` for all i."""
    if _native is not None:
        return _native.items_are(dicts, key, values)
    try:
        return len(dicts) == len(values) and all(map(is_, map(itemgetter(key), dicts), values))
    except KeyError:
        return False
