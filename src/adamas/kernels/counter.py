"""Step counts of a bucket: the tensors "step" in its states, read before a step and counted in place after it.

Whoever holds such a tensor (a user, another process through shared memory) sees the count, and what others write to it
is what the next step counts from. torch adds 1 to each tensor by itself, which for small parameters costs more than the
step; here new counts are views of one tensor, so that one addition counts all of them.
"""

from __future__ import annotations

from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor

from adamas.kernels.bucket import Bucket, MismatchError

Upcoming = tuple[list[Any], list[int] | None]  # numbers of different steps, and which of them each parameter takes


def counter_of(bucket: Bucket) -> HostCounter | DeviceCounter | None:
    """The counter of a bucket's states; None where its steps are not counted."""
    if not bucket.counts:
        return None
    steps = [state["step"] for state in bucket.states]
    return DeviceCounter(bucket, steps) if bucket.on_device else HostCounter(bucket, steps)


def new_steps(counts: list[int]) -> list[Tensor]:
    """0-d float32 tensors on the host that hold these counts: views of one."""
    with torch.inference_mode(False):
        return list(torch.tensor(counts, dtype=torch.float32, device="cpu").unbind()) if counts else []


class _Counter:
    """The tensors that count a bucket's steps."""

    def __init__(self, bucket: Bucket, steps: list[Tensor]) -> None:
        self._bucket, self._steps = bucket, steps

    def check(self) -> None:
        """Raise MismatchError where a state has another tensor now."""
        try:
            same = all(map(is_, map(itemgetter("step"), self._bucket.states), self._steps))
        except KeyError:
            same = False
        if not same:
            raise MismatchError("a state has another step than before")


class HostCounter(_Counter):
    """Counts that the host reads.

    The integers beside the tensors go on where float32 stops, at 2**24.

    Args:
        bucket: the bucket.
        steps: the tensors in its states: float32, of one element, on the host.

    Example:
        >>> steps = new_steps([3, 3])
        >>> counter = HostCounter(Bucket([], [{"step": step} for step in steps]), steps)
        >>> _ = counter.upcoming()
        >>> counter.advance([])
        >>> counter.advance([0])  # the first parameter had no gradient
        >>> counter.upcoming(), steps
        (([5, 6], [0, 1]), [tensor(4.), tensor(5.)])
    """

    def __init__(self, bucket: Bucket, steps: list[Tensor]) -> None:
        super().__init__(bucket, steps)
        self._whole, self._places = _shared_by(steps)
        self._shown: list[float] = []  # what the tensors held when they were last looked at
        self._counts: list[int] = []

    def upcoming(self) -> Upcoming:
        """The numbers of the coming steps, from 1.

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
        """Count one step of all parameters but those `absent`, after `upcoming`."""
        left_out = set(absent)
        if self._whole is not None and self._places is None and not absent:
            self._whole.add_(1)
        elif self._whole is not None:
            places = range(len(self._steps)) if self._places is None else self._places.tolist()
            self._whole[[place for i, place in enumerate(places) if i not in left_out]] += 1
        else:
            for i, step in enumerate(self._steps):
                if i not in left_out:
                    step.add_(1)
        self._counts = [count + (i not in left_out) for i, count in enumerate(self._counts)]
        self._shown = self._read()

    def _read(self) -> list[float]:
        if self._whole is not None:
            return (self._whole if self._places is None else self._whole[self._places]).tolist()
        return [float(step) for step in self._steps]


def _shared_by(steps: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """The tensor of which all of these are elements, and their places in it: None for all of it in order."""
    whole = steps[0]._base if steps else None
    if whole is None or whole.dim() != 1 or whole.storage_offset() or not whole.is_contiguous():
        return None, None
    if any(step._base is not whole for step in steps):
        return None, None
    places = [step.storage_offset() for step in steps]
    return whole, None if places == list(range(whole.numel())) else torch.tensor(places, device="cpu")


class DeviceCounter(_Counter):
    """Counts on the parameters' device, never read by the host: for steps that a graph captures or a device may skip.

    They are 0-d float32 tensors.
    """

    def upcoming(self) -> Upcoming:
        """The numbers of the coming steps in one tensor, 0-d where there is but one parameter.

        In float64 where the device has it: 1 - beta2**t cancels.
        """
        counts = self._steps[0] if len(self._steps) == 1 else torch.stack(self._steps)
        return [(counts + 1).to(torch.float32 if counts.device.type == "mps" else torch.float64)], None

    def advance(self, absent: list[int], skip: Tensor | None = None) -> None:
        """Count one step of all parameters but those `absent`, unless the device says to skip it."""
        left_out = set(absent)
        counted = [step for i, step in enumerate(self._steps) if i not in left_out]
        if counted:
            torch._foreach_add_(  # pyright: ignore[reportPrivateImportUsage]
                counted, 1 if skip is None else [(~skip).to(torch.float32)] * len(counted)
            )
