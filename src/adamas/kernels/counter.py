"""Step counts of a bucket: one tensor for all, of which each parameter's `state["step"]` is a view.

torch keeps a 0-d tensor for each parameter and adds 1 to them one by one, which for small parameters costs more than
the step itself. Here a bucket's parameters have taken the same number of steps, so one write serves them all.
"""

from __future__ import annotations

import torch
from torch import Tensor


class StepCounter:
    """The count of a bucket's steps, and the 0-d float32 tensors that show it in the state.

    The count is a host integer: it goes on where torch's float32 counters stop, at 2**24.

    Args:
        count: steps taken so far.
        parameters: how many parameters the bucket has.

    Example:
        >>> counter = StepCounter(3, parameters=2)
        >>> counter.advance()
        >>> counter.count, counter.views[1]
        (4, tensor(4.))
    """

    def __init__(self, count: int, parameters: int) -> None:
        self.count = count
        with torch.inference_mode(False):
            self._all = torch.full((parameters,), float(count), dtype=torch.float32, device="cpu")
            self.views: list[Tensor] = list(self._all.unbind()) if parameters else []
        self._version = self._all._version

    def next(self) -> int:
        """The number of the coming step, from 1."""
        return self.count + 1

    def advance(self, skip: None = None) -> None:
        """Count one step."""
        self.count += 1
        self._all.fill_(float(self.count))
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

    def next(self) -> Tensor:
        """The number of the coming step, in float64 where the device has it: 1 - beta2**t cancels in float32."""
        return (self._count + 1).to(torch.float32 if self._count.device.type == "mps" else torch.float64)

    def advance(self, skip: Tensor | None = None) -> None:
        """Count one step, unless the device says to skip it."""
        self._count += 1 if skip is None else ~skip

    def untouched(self) -> bool:
        """Writes by others count: the tensor is the only record."""
        return True
