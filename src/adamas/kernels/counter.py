"""Step counts of a bucket: the tensors "step" in its states, read before a step and increased in place after it.

A user or another process that shares these tensors sees the count, and the next step continues from any value written
to them. Increasing each tensor alone, as torch does, costs more than the step itself for small parameters; so new
counts are views of one tensor, and one addition counts all of them.
"""

from __future__ import annotations

from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor

from adamas.kernels.bucket import Bucket, MismatchError

# The numbers of the coming steps, each once, and for each parameter the index of its own; None if there is one number.
Upcoming = tuple[list[Any], list[int] | None]


def counter_of(bucket: Bucket) -> HostCounter | DeviceCounter | None:
    """Return the counter of a bucket's steps; None where they are not counted."""
    if not bucket.counts:
        return None
    return DeviceCounter(bucket) if bucket.on_device else HostCounter(bucket)


def new_steps(counts: list[int]) -> list[Tensor]:
    """Return 0-d float32 tensors on the host that hold these counts: views of one tensor."""
    with torch.inference_mode(False):
        return list(torch.tensor(counts, dtype=torch.float32, device="cpu").unbind()) if counts else []


class _Counter:
    """The tensors that count a bucket's steps."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self._steps = bucket, [state["step"] for state in bucket.states]

    def check(self) -> None:
        """Raise MismatchError where the tensor "step" of a state was replaced."""
        try:
            same = all(map(is_, map(itemgetter("step"), self._bucket.states), self._steps))
        except KeyError:
            same = False
        if not same:
            raise MismatchError("a state has another step than before")


class HostCounter(_Counter):
    """Counts in tensors of one element on the host, with integers that go on where float32 stops, at 2**24.

    Example:
        >>> steps = new_steps([3, 3])
        >>> counter = HostCounter(Bucket([], [{"step": step} for step in steps]))
        >>> _ = counter.upcoming()
        >>> counter.advance([])
        >>> counter.advance([0])  # the first parameter had no gradient
        >>> counter.upcoming(), steps
        (([5, 6], [0, 1]), [tensor(4.), tensor(5.)])
    """

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        self._whole, self._places = _shared_by(self._steps)
        self._shown: list[float] = []  # the values of the tensors when they were last read
        self._counts: list[int] = []

    def upcoming(self) -> Upcoming:
        """Return the numbers of the coming steps, from 1.

        Raises:
            ValueError: a tensor holds no number of steps.
        """
        shown = self._read()
        if shown != self._shown:
            wrong = next((x for x in shown if not 0 <= x < 2**53), None)
            if wrong is not None:
                raise ValueError(f"step={wrong} must be a number of steps, >= 0 and finite")
            self._shown, self._counts = shown, [int(x) for x in shown]
        different = {count: n for n, count in enumerate(dict.fromkeys(self._counts))}
        coming = [count + 1 for count in different]
        return coming, None if len(coming) < 2 else [different[count] for count in self._counts]

    def advance(self, absent: list[int], skip: None = None) -> None:
        """Count one step of all parameters except those in `absent`; called after `upcoming`."""
        left_out = set(absent)
        self._counts = [count + (i not in left_out) for i, count in enumerate(self._counts)]
        if self._whole is not None and self._places is None and not absent:
            self._whole.add_(1)
        else:
            present = [i for i in range(len(self._steps)) if i not in left_out]
            if self._whole is not None:
                self._whole[present if self._places is None else self._places[present]] += 1
            else:
                for i in present:
                    self._steps[i].add_(1)
        self._shown = self._read()

    def _read(self) -> list[float]:
        if self._whole is not None:
            return (self._whole if self._places is None else self._whole[self._places]).tolist()
        return [float(step) for step in self._steps]


def _shared_by(steps: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """Return the tensor that all `steps` are elements of, and their indices in it; None for all of it in order."""
    whole = steps[0]._base if steps else None
    if whole is None or whole.dim() != 1 or whole.storage_offset() or not whole.is_contiguous():
        return None, None
    if any(step._base is not whole for step in steps):
        return None, None
    places = [step.storage_offset() for step in steps]
    return whole, None if places == list(range(whole.numel())) else torch.tensor(places, device="cpu")


class DeviceCounter(_Counter):
    """Counts in 0-d float32 tensors on the parameters' device, which the host never reads.

    Steps that a graph captures, or that a device may skip, need this.
    """

    def upcoming(self) -> Upcoming:
        """Return the numbers of the coming steps in one tensor, 0-d for one parameter.

        Its dtype is float64 where the device has it, because 1 - beta2**t cancels.
        """
        counts = self._steps[0] if len(self._steps) == 1 else torch.stack(self._steps)
        return [(counts + 1).to(torch.float32 if counts.device.type == "mps" else torch.float64)], None

    def advance(self, absent: list[int], skip: Tensor | None = None) -> None:
        """Count one step of all parameters except those in `absent`, unless `skip` is true on the device."""
        left_out = set(absent)
        counted = [step for i, step in enumerate(self._steps) if i not in left_out]
        if counted:
            torch._foreach_add_(  # pyright: ignore[reportPrivateImportUsage]
                counted, 1 if skip is None else [(~skip).to(torch.float32)] * len(counted)
            )
