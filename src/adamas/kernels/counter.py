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
    """The counts of a bucket's steps as 0-d tensors on its device, never read by the host.

    For steps that a graph captures or that the device may skip.

    Args:
        counts: steps taken so far, a number or a tensor for each parameter.
        device: where the counts lie.
    """

    def __init__(self, counts: list[float | Tensor], device: torch.device) -> None:
        # A counter that is already right is kept, not copied: a graph may be capturing this step.
        self.views: list[Tensor] = [_on_device(count, device) for count in counts]

    def upcoming(self) -> Tensor:
        """The number of each parameter's coming step, in float64 where the device has it: 1 - beta2**t cancels.

        A 0-d tensor where there is but one parameter.
        """
        counts = self.views[0] if len(self.views) == 1 else torch.stack(self.views)
        return (counts + 1).to(torch.float32 if counts.device.type == "mps" else torch.float64)

    def advance(self, absent: list[int], skip: Tensor | None = None) -> None:
        """Count one step of all parameters but those `absent`, unless the device says to skip it."""
        left_out = set(absent)
        counted = [view for i, view in enumerate(self.views) if i not in left_out]
        if counted:
            torch._foreach_add_(  # pyright: ignore[reportPrivateImportUsage]
                counted, 1 if skip is None else [(~skip).to(torch.float32)] * len(counted)
            )

    def untouched(self) -> bool:
        """Writes by others count: the tensors are the only record."""
        return True


def _on_device(count: float | Tensor, device: torch.device) -> Tensor:
    if not isinstance(count, Tensor):
        return torch.full((), float(count), dtype=torch.float32, device=device)
    fitting = count.dtype == torch.float32 and count.device == device and count.dim() == 0
    return count if fitting else count.detach().to(device=device, dtype=torch.float32).reshape(())
