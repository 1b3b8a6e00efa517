"""Step counts of a bucket: one tensor for all, of which each parameter's `state["step"]` is a view.

torch keeps a 0-d tensor for each parameter and adds 1 to them one by one, which for small parameters costs more than
the step itself. Here one write serves all parameters of a bucket.
"""

from __future__ import annotations

import torch
from torch import Tensor


class StepCounter:
    """The counts of a bucket's steps, and the 0-d float32 tensors that show them in the states.

    Counts are host integers: they go on where torch's float32 counters stop, at 2**24.

    Args:
        counts: steps taken so far, a number a parameter.

    Example:
        >>> counter = StepCounter([3, 3])
        >>> counter.advance([])
        >>> counter.advance([0])  # the first parameter had no gradient
        >>> counter.upcoming(), counter.views
        ([5, 6], [tensor(4.), tensor(5.)])
    """

    def __init__(self, counts: list[int]) -> None:
        self._same = counts[0] if counts and min(counts) == max(counts) else None  # one number for all, or
        self._each = counts  # where that is None, a number each
        with torch.inference_mode(False):
            self._all = torch.tensor(counts, dtype=torch.float32, device="cpu")
            self.views: list[Tensor] = list(self._all.unbind()) if counts else []
        self._version = self._all._version

    def upcoming(self) -> int | list[int]:
        """The number of the coming step, from 1: one number if it is the same for all, else a number a parameter."""
        return [count + 1 for count in self._each] if self._same is None else self._same + 1

    def advance(self, absent: list[int], skip: None = None) -> None:
        """Count one step of all parameters but those `absent`."""
        if self._same is not None and not absent:
            self._same += 1
            self._all.fill_(float(self._same))
        else:
            before = self._each if self._same is None else [self._same] * len(self.views)
            left_out = set(absent)
            self._each = [count + (i not in left_out) for i, count in enumerate(before)]
            self._same = self._each[0] if min(self._each) == max(self._each) else None
            self._all.copy_(torch.tensor(self._each, dtype=torch.float32, device="cpu"))
        self._version = self._all._version

    def untouched(self) -> bool:
        """Whether nobody else wrote to a view since: the views share the version counter of the whole."""
        return self._all._version == self._version


class DeviceCounter:
    """The count of one parameter as a 0-d tensor on its device, never read by the host.

    For steps that a graph captures or that the device may skip.

    Args:
        count: steps taken so far, a number or a tensor.
        device: where the count lies.
    """

    def __init__(self, count: float | Tensor, device: torch.device) -> None:
        if not isinstance(count, Tensor):
            count = torch.full((), float(count), device=device)
        # A counter that is already right is kept, not copied: a graph may be capturing this step.
        self._count = count.detach().to(device=device, dtype=torch.float32).reshape(())
        self.views: list[Tensor] = [count if self._count.data_ptr() == count.data_ptr() else self._count]

    def upcoming(self) -> Tensor:
        """The number of the coming step, in float64 where the device has it: 1 - beta2**t cancels in float32."""
        return (self._count + 1).to(torch.float32 if self._count.device.type == "mps" else torch.float64)

    def advance(self, absent: list[int], skip: Tensor | None = None) -> None:
        """Count one step, unless there was no gradient or the device says to skip it."""
        if not absent:
            self._count += 1 if skip is None else ~skip

    def untouched(self) -> bool:
        """Writes by others count: the tensor is the only record."""
        return True
