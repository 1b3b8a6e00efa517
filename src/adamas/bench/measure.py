"""Time several things in turns, in alternating order, so that a neighbour's burst hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: turns of each party; medians and ratios are taken over them.
        threads: of each implementation.
        tries: how often a row may be measured while other processes disturb it; the least disturbed counts.
        turn_seconds: length of a turn: long against the timer and a scheduler's slice, short against a burst.
    """

    rounds: int = 9
    threads: int = 1
    tries: int = 1
    turn_seconds: float = 0.15

    def __post_init__(self) -> None:
        """Refuse what would say nothing."""
        if self.rounds < 5:
            raise ValueError(f"rounds={self.rounds} must be >= 5: the median of fewer says little")
        if self.threads < 1:
            raise ValueError(f"threads={self.threads} must be >= 1: somebody has to do the work")


@dataclass(frozen=True)
class Party:
    """Something to time: `call`, and `ready` before each call, outside the clock."""

    call: Callable[[], object]
    ready: Callable[[], object] = lambda: None


def turn(party: Party, length: float) -> float:
    """Seconds of a call: the median of as many as fill `length`, at least one, each timed by itself."""
    seconds: list[float] = []
    spent = 0.0
    while spent < length or not seconds:
        party.ready()
        start = time.perf_counter()
        party.call()
        seconds.append(time.perf_counter() - start)
        spent += seconds[-1]
    return statistics.median(seconds)


Clock = Callable[[Party, float], float]  # of a party and the length of a turn: the seconds of a call


def interleave(parties: Sequence[Party], effort: Effort, clock: Clock = turn) -> list[list[float]]:
    """Seconds of each party in each round; who begins alternates. A first turn of each warms up and does not count."""
    for party in parties:
        clock(party, effort.turn_seconds)
    times: list[list[float]] = [[] for _ in parties]
    for index in range(effort.rounds):
        for i in range(len(parties))[:: 1 if index % 2 else -1]:
            times[i].append(clock(parties[i], effort.turn_seconds))
    return times


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of the rounds."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]
