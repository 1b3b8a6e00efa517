"""The native CPU kernel (`native/` in the repository): float32, float64, bfloat16 and float16, in every storage.

One call steps all tensors of a bucket, in the process's OpenMP threads, without the GIL. Where the extension was not
built, `refuses` says so and `eager` takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.kernels.bucket import Bucket, MismatchError, Traits, state_names, tell_autograd
from adamas.kernels.counter import HostCounter, Upcoming
from adamas.kernels.extension import missing
from adamas.kernels.extension import native as _native

if TYPE_CHECKING:
    from adamas.scalars import StepScalars

NAME = "native"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


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
        return "the parameter or its gradient is a tensor subclass, or a program is being traced"
    if not traits.dense:
        return "the parameter has gaps in memory (a strided view)"
    if traits.storage.moments == "float16":
        return "float16 moments have no native kernel"
    if not traits.storage.plain and not traits.row_major:
        return "the parameter is not row-major, and moments or weights of fewer bits are stored in rows"
    if not traits.host_scalars:
        return "capturable and differentiable steps keep scalars in tensors"
    return None


@dataclass(slots=True, eq=False, repr=False)
class Prepared:
    """A bucket and the table that reads it; until a step is done, the table holds its gradients.

    `copied` maps the index of a gradient that the table holds a copy of to the original.
    """

    bucket: Bucket
    table: Any
    copied: dict[int, Tensor]
    counter: HostCounter | None  # None where the table counts


def prepare(bucket: Bucket) -> Prepared:
    """Make the table that remembers the checked tensors from one step to the next."""
    storage = bucket.storage
    names = list(state_names(bucket.amsgrad, bucket.averages, storage))
    counts = bucket.counts and all(state["step"].dtype == torch.float32 for state in bucket.states)
    table = _native.Table(names, storage.moments, storage.master_bits or 0, storage.stochastic, counts)
    counter = HostCounter(bucket, [state["step"] for state in bucket.states]) if bucket.counts and not counts else None
    return Prepared(bucket, table, {}, counter)


def take(prepared: Prepared, grads: list[Tensor | None] | None = None) -> None:
    """Check every tensor and take the gradients, by default those in `.grad`.

    Gradients that are laid out otherwise than their parameter are copied.
    """
    bucket, table = prepared.bucket, prepared.table
    if prepared.counter is not None:
        prepared.counter.check()
    copied: dict[int, Tensor] = {}
    try:
        copy = table.take(bucket.params, bucket.states, grads)
        if copy:
            taken: list[Any] = table.grads()
            for i in copy:
                copied[i] = taken[i]
                grad = torch.empty_like(bucket.params[i], requires_grad=False, memory_format=torch.preserve_format)
                taken[i] = grad.copy_(copied[i].detach())
            table.take(bucket.params, bucket.states, taken)
    except _native.Mismatch as error:
        raise MismatchError(str(error)) from None
    prepared.copied = copied


def upcoming(prepared: Prepared) -> Upcoming:
    """The numbers of the coming steps, each once, and for each parameter the index of its own; None if all are equal.

    For a bucket that `counts`, between `take` and `step`. The index of a parameter without a gradient means nothing.
    """
    return prepared.table.upcoming() if prepared.counter is None else prepared.counter.upcoming()


def squares(prepared: Prepared) -> list[float]:
    """Each gradient's sum of squares, added in a fixed order whatever the threads."""
    return prepared.table.squares(torch.get_num_threads())


def release(prepared: Prepared) -> None:
    """Let the gradients go without a step."""
    prepared.table.release()
    prepared.copied = {}


def step(
    prepared: Prepared, scalars: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
) -> None:
    """Step every tensor of a bucket whose gradient was taken, in one call and torch's number of threads."""
    table, written = prepared.table, prepared.bucket.params
    missed = table.absent()
    if missed:
        left_out = set(missed)
        written = [param for i, param in enumerate(written) if i not in left_out]
    if zero_grad:
        written = written + [grad for grad in table.grads() if grad is not None]
    table.step(scalars, which, zero_grad, torch.get_num_threads())
    if prepared.counter is not None:
        prepared.counter.advance(missed)
    if zero_grad:
        for original in prepared.copied.values():
            original.detach().zero_()
    prepared.copied = {}
    tell_autograd(written)


def touch(prepared: Prepared) -> None:
    """Read and write what a step would, computing nothing: how fast the memory allows a step to be."""
    prepared.table.touch(torch.get_num_threads())
