"""What is asked of a device: to wait, to be timed, to count and free memory. For dry runs a CPU stands in."""

from __future__ import annotations

import gc
import math
import time
from functools import partial
from itertools import pairwise

import torch

from adamas.bench.measure import Clock, Party, turn
from benchmarks.gpu import clock


class Gpu:
    """The current CUDA device."""

    device = torch.device("cuda")

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        torch.cuda.synchronize()

    def large(self) -> Clock:
        """For work that is long beside a launch."""
        return clock.between_events

    def device_seconds(self, party: Party) -> float | None:
        """Of a call, without the host."""
        return clock.of_the_device_alone(party)

    def seconds(self, party: Party, calls: int) -> list[float]:
        """Of each of some calls, one after another: for ceilings."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
        events[0].record()
        for event in events[1:]:
            party.call()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in pairwise(events)]

    def available(self) -> float:
        """Bytes that can still be had."""
        return torch.cuda.mem_get_info()[0]

    def held(self) -> int:
        """Bytes of tensors."""
        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        """The most bytes of tensors that there were since the last call."""
        torch.cuda.synchronize()
        found = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return found

    def free(self) -> None:
        """Let go what nobody uses."""
        gc.collect()
        torch.cuda.empty_cache()


class Cpu:
    """Takes the same calls: its figures mean nothing, and its memory is not counted."""

    device = torch.device("cpu")

    def synchronize(self) -> None:
        """Everything is done already."""

    def large(self) -> Clock:
        """By the host's clock."""
        return lambda party, length: turn(clock.alone(party, self.synchronize), length)

    def device_seconds(self, party: Party) -> float | None:
        """There is no device apart from the host."""
        return None

    def seconds(self, party: Party, calls: int) -> list[float]:
        """Of each of some calls."""
        found: list[float] = []
        for _ in range(calls):
            start = time.perf_counter()
            party.call()
            found.append(time.perf_counter() - start)
        return found

    def available(self) -> float:
        """Enough for a dry run."""
        return math.inf

    def held(self) -> int:
        """Not counted."""
        return 0

    def peak(self) -> int:
        """Not counted."""
        return 0

    def free(self) -> None:
        """Let go what nobody uses."""
        gc.collect()


Machine = Gpu | Cpu


def small(machine: Machine, work: str) -> Clock:
    """For work of which the host's part is the longer one: its clock.

    Steps follow each other. A phase clears the gradients, which are put back between two, outside of the clock.
    """
    if work == "step":
        return partial(clock.queued, synchronize=machine.synchronize)
    return lambda party, length: turn(clock.alone(party, machine.synchronize), length)
