"""The clocks: how long a call takes, on the host or on a device that runs behind it.

A single time says little on a shared machine. `interleave` takes the times of all parties in turns, in alternating
order, so that other processes disturb them equally. What they took all the same, `Watch` tells: where another process
keeps a core busy, an implementation whose threads wait for each other after every operation may take a hundred times
as long in each round, and no median corrects that.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

MOST_CALLS = 64  # in a turn: a CUDA stream holds about a thousand launches before the host has to wait
ASLEEP = 10**8  # cycles, about 50 ms: long enough for the host to queue the calls that follow
TOLERABLE = 0.05  # share of the machine above which figures are marked as doubtful


@dataclass(frozen=True)
class Effort:
    """How much is measured for each row.

    Attributes:
        rounds: turns that each party takes; medians and ratios are taken over the rounds.
        threads: number of threads of each implementation on a CPU.
        tries: how often a row may be measured while other processes disturb it; the least disturbed one is kept.
        turn_seconds: length of a turn, long compared with the timer and short compared with a disturbance.
    """

    rounds: int = 9
    threads: int = 1
    tries: int = 1
    turn_seconds: float = 0.15

    def __post_init__(self) -> None:
        """Refuse numbers with which a measurement would say nothing."""
        if self.rounds < 5:
            raise ValueError(f"rounds={self.rounds} must be >= 5: the median of fewer says little")
        if self.threads < 1:
            raise ValueError(f"threads={self.threads} must be >= 1: the work needs a thread")


@dataclass(frozen=True)
class Party:
    """One thing to time: `call` is timed, `ready` runs before it and is not timed."""

    call: Callable[[], object]
    ready: Callable[[], object] = lambda: None


Clock = Callable[[Party, float], float]  # takes a party and the length of a turn; returns the seconds of a call


def turn(party: Party, length: float, synchronize: Callable[[], None] | None = None) -> float:
    """Return the host's seconds for a call: the median of single calls that together fill `length`.

    Where calls are queued on a device, `synchronize` waits for it.
    """
    seconds: list[float] = []
    spent = 0.0
    while spent < length or not seconds:
        party.ready()
        if synchronize is not None:
            synchronize()
        start = time.perf_counter()
        party.call()
        if synchronize is not None:
            synchronize()
        seconds.append(time.perf_counter() - start)
        spent += seconds[-1]
    return statistics.median(seconds)


def queued(party: Party, length: float, synchronize: Callable[[], None]) -> float:
    """Return the host's seconds for a call, where calls are queued one behind another and then waited for."""
    calls = enough(party, length, synchronize)
    party.ready()
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        party.call()
    synchronize()
    return (time.perf_counter() - start) / calls


def between_events(party: Party, length: float) -> float:
    """Return the device's seconds for a call; one untimed call goes first, so that the host is ahead."""
    calls = enough(party, length, torch.cuda.synchronize)
    party.ready()
    party.call()
    return _recorded(party, calls)


def without_host(party: Party, calls: int = 2) -> float:
    """Return the device's seconds for a call, where the host queued all calls before the first one began."""
    torch.cuda._sleep(ASLEEP)
    return _recorded(party, calls)


def _recorded(party: Party, calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        party.ready()
        party.call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / calls


def enough(party: Party, length: float, synchronize: Callable[[], None]) -> int:
    """Return how many calls fill `length`, judged by a single call that is waited for."""
    party.ready()
    synchronize()
    start = time.perf_counter()
    party.call()
    synchronize()
    return max(2, min(MOST_CALLS, int(length / (time.perf_counter() - start))))


def interleave(parties: Sequence[Party], effort: Effort, clock: Clock = turn) -> list[list[float]]:
    """Return the seconds of each party in each round; every other round goes through the parties backwards.

    Each party takes one turn first that warms it up and is not counted.
    """
    for party in parties:
        clock(party, effort.turn_seconds)
    times: list[list[float]] = [[] for _ in parties]
    for index in range(effort.rounds):
        for i in range(len(parties))[:: 1 if index % 2 else -1]:
            times[i].append(clock(parties[i], effort.turn_seconds))
    return times


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of two parties in each round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


class Watch:
    """A counter of processor time that begins when the object is made."""

    def __init__(self) -> None:
        self.start = reading()

    def others(self) -> float | None:
        """Return the share of processor time that other processes took; None where the system does not tell."""
        end = reading()
        if self.start is None or end is None:
            return None
        busy, own, seconds = (b - a for a, b in zip(self.start, end, strict=True))
        return max(0.0, busy - own) / max(seconds * (os.cpu_count() or 1), 1e-9)


def reading() -> tuple[float, float, float] | None:
    """Return seconds that all processors were busy, stolen ones included; this process's seconds; and the clock."""
    try:
        counts = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    idle = counts[3] + counts[4]  # idle, and waiting for a device
    own = os.times()
    return (sum(counts) - idle) / os.sysconf("SC_CLK_TCK"), own.user + own.system, time.monotonic()
