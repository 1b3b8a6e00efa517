"""Seconds of a call on a device that works on while the host goes ahead."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from adamas.bench.measure import Party

MOST_CALLS = 64  # of a turn; a stream holds about a thousand launches before the host waits
ASLEEP = 10**8  # cycles, some 50 ms: in these the host queues what is to be timed without it


def queued(party: Party, length: float, synchronize: Callable[[], None]) -> float:
    """By the host's clock, itself included: calls that fill `length`, queued behind each other, then waited for."""
    calls = enough(party, length, synchronize)
    party.ready()
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        party.call()
    synchronize()
    return (time.perf_counter() - start) / calls


def alone(party: Party, synchronize: Callable[[], None]) -> Party:
    """The same, each call waited for and what makes ready outside of the clock: for `measure.turn`."""

    def call() -> None:
        party.call()
        synchronize()

    def ready() -> None:
        party.ready()
        synchronize()

    return Party(call, ready)


def between_events(party: Party, length: float) -> float:
    """By the device's clock: calls that fill `length`, behind one that is not timed, so that the host is ahead."""
    calls = enough(party, length, torch.cuda.synchronize)
    party.ready()
    party.call()
    return _recorded(party, calls)


def of_the_device_alone(party: Party, calls: int = 2) -> float:
    """By the device's clock, of calls that were all queued before the first began: without the host's share."""
    torch.cuda._sleep(ASLEEP)
    return _recorded(party, calls)


def _recorded(party: Party, calls: int) -> float:
    """Between two events, behind what is queued already."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        party.ready()
        party.call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / calls


def enough(party: Party, length: float, synchronize: Callable[[], None]) -> int:
    """How many calls fill `length`, by one that is waited for."""
    party.ready()
    synchronize()
    start = time.perf_counter()
    party.call()
    synchronize()
    return max(2, min(MOST_CALLS, int(length / (time.perf_counter() - start))))
