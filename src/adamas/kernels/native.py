"""The native CPU kernel (`native/` in the repository): float32, float64, bfloat16 and float16, in every storage.

One call steps all tensors of a bucket on the process's OpenMP threads, without the GIL. Where the extension was not
built, `refuses` says so and `eager` steps instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.kernels.bucket import Bucket, MismatchError, Traits, shared_refusal, state_names, tell_autograd
from adamas.kernels.counter import HostCounter, Upcoming
from adamas.kernels.extension import missing
from adamas.kernels.torch_extension import native as _native

if TYPE_CHECKING:
    from adamas.scalars import StepScalars

NAME = "native"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def isas() -> list[str]:
    """Return the kernel's instruction sets that this processor has, best first; none if the kernel was not built."""
    return [] if _native is None else _native.isas()


def refuses(traits: Traits) -> str | None:
    """Return why this kernel cannot step such a parameter; None if it can."""
    if missing is not None:
        return missing
    if traits.device != "cpu":
        return f"the parameter is on {traits.device}, and native is for the CPU"
    reason = shared_refusal(traits, NAME, DTYPES)
    if reason is not None:
        return reason
    if not traits.dense:
        return "the parameter has gaps in memory (a strided view)"
    if not traits.host_scalars:
        return "capturable and differentiable steps keep scalars in tensors"
    return None


@dataclass(slots=True, eq=False, repr=False)
class Prepared:
    """A bucket with the extension's table of its tensors, which also holds the gradients until the step is done."""

    bucket: Bucket
    table: Any
    copied: dict[int, Tensor]  # index -> the original of a gradient that the table holds a copy of
    counter: HostCounter | None  # None where the table counts the steps


def prepare(bucket: Bucket) -> Prepared:
    """Make the table, which remembers from step to step which tensors it has checked."""
    storage = bucket.storage
    names = list(state_names(bucket.amsgrad, bucket.averages, storage))
    counts = bucket.counts and all(state["step"].dtype == torch.float32 for state in bucket.states)
    table = _native.Table(names, storage.moments, storage.master_bits or 0, storage.stochastic, counts)
    if bucket.places:
        table.set_places(bucket.places)
    return Prepared(bucket, table, {}, HostCounter(bucket) if bucket.counts and not counts else None)


def take(prepared: Prepared, grads: list[Tensor | None] | None = None) -> None:
    """Check every tensor and take the gradients, by default those in `.grad`.

    A gradient with another layout than its parameter is copied.
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
    """Return the numbers of the coming steps, for a bucket that `counts`, between `take` and `step`.

    The index of a parameter without a gradient has no meaning.
    """
    return prepared.table.upcoming() if prepared.counter is None else prepared.counter.upcoming()


def squares(prepared: Prepared) -> list[float]:
    """Return each gradient's sum of squares, added in an order that does not depend on the threads."""
    return prepared.table.squares(torch.get_num_threads())


def release(prepared: Prepared) -> None:
    """Drop the gradients without a step."""
    prepared.table.release()
    prepared.copied = {}


def step(
    prepared: Prepared, scalars: list[StepScalars], which: list[int] | None = None, zero_grad: bool = False
) -> None:
    """Step every tensor whose gradient was taken, in one call, on as many threads as torch uses."""
    table, absent = prepared.table, prepared.table.absent()
    zeroed = table.grads() if zero_grad else []
    table.step(scalars, which, zero_grad, torch.get_num_threads())
    if prepared.counter is not None:
        prepared.counter.advance(absent)
    if zero_grad:
        for original in prepared.copied.values():
            original.detach().zero_()
    prepared.copied = {}
    tell_autograd(prepared.bucket.params, absent, zeroed)


def touch(prepared: Prepared) -> None:
    """Read and write the memory of a step without computing it, to measure how fast memory allows a step to be."""
    prepared.table.touch(torch.get_num_threads())
