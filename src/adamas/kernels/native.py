"""The native CPU kernel (`native/` in the repository): float32, float64, and bfloat16 or float16 with float32 moments.

One call steps all tensors of a bucket, in the process's OpenMP threads, without the GIL. Where the extension was not
built, `refuses` says so and `eager` takes its place.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.kernels.bucket import Bucket, MismatchError, Traits

if TYPE_CHECKING:
    from adamas.scalars import StepScalars

NAME = "native"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

try:
    from adamas.kernels import _native  # pyright: ignore[reportAttributeAccessIssue]

    missing: str | None = None
except ImportError as error:
    _native: Any = None
    missing = f"the native kernel is not built or cannot be loaded ({error})"
else:
    _native.use_torch(torch.Tensor.data_ptr, getattr(torch.Tensor, "__dlpack_c_exchange_api__", None))


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
    if not traits.host_scalars:
        return "capturable and differentiable steps keep scalars in tensors"
    return None


def prepare(bucket: Bucket) -> tuple[Any, Bucket]:
    """Put the bucket's tensors into a table, which keeps their addresses from one step to the next."""
    return _native.Table(bucket.params, bucket.exp_avgs, bucket.exp_avg_sqs, bucket.max_exp_avg_sqs), bucket


def take(prepared: tuple[Any, Bucket], grads: list[Tensor | None]) -> None:
    """Check every tensor and take the gradients; those laid out otherwise than their parameter are copied."""
    table, bucket = prepared
    try:
        relayout = table.take(grads)
        if relayout:
            grads = list(grads)
            for i in relayout:
                grad = grads[i]
                assert grad is not None  # the table has just read it
                grads[i] = torch.empty_like(bucket.params[i], requires_grad=False).copy_(grad.detach())
            table.take(grads)
    except _native.Mismatch as error:
        raise MismatchError(str(error)) from None


def step(prepared: tuple[Any, Bucket], scalars: StepScalars) -> None:
    """Step every tensor of a bucket whose gradients were taken, in torch's number of threads."""
    table, bucket = prepared
    table.step(scalars, torch.get_num_threads())
    # Tell autograd, which may have saved parameters for a backward pass, that they have changed.
    try:
        torch.autograd.graph.increment_version(bucket.params)
    except TypeError:  # older than the lists that torch 2.7 takes
        for param in bucket.params:
            torch.autograd.graph.increment_version(param)


def items_are(dicts: list[dict[str, Any]], key: str, values: list[Tensor]) -> bool:
    """Whether `dicts[i][key] is values[i]` for all i."""
    if _native is not None:
        return _native.items_are(dicts, key, values)
    return len(dicts) == len(values) and all(map(is_, (entry.get(key) for entry in dicts), values))
