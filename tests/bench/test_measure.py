from __future__ import annotations

import pytest

from adamas.bench import memory
from adamas.bench.measure import Effort, Party, interleave, ratios, turn
from adamas.bench.neighbours import Watch
from tests.bench.conftest import BRIEF, tiny


def test_turns_alternate() -> None:
    said: list[str] = []
    parties = [Party(lambda name=name: said.append(name)) for name in "abc"]
    times = interleave(parties, Effort(5, turn_seconds=1e-9))
    assert [len(seconds) for seconds in times] == [5, 5, 5]
    assert "".join(said[3:]) == "cba" + "abc" + "cba" + "abc" + "cba"  # after one turn each to warm up


def test_turns_can_be_timed_by_another_clock() -> None:
    asked: list[float] = []

    def clock(party: Party, length: float) -> float:
        asked.append(length)
        return 2.0

    assert interleave([Party(lambda: None)], Effort(5, turn_seconds=0.5), clock) == [[2.0] * 5]
    assert asked == [0.5] * 6


def test_what_makes_ready_is_outside_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def spend(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("adamas.bench.measure.time.perf_counter", lambda: clock[0])
    assert turn(Party(lambda: spend(2), lambda: spend(100)), 10) == 2
    assert clock[0] == 5 * 102


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]


@pytest.mark.parametrize(
    ("rounds", "threads", "message"), [(4, 1, "rounds=4 must be >= 5"), (5, 0, "threads=0 must be >= 1")]
)
def test_an_effort_that_says_nothing_is_refused(rounds: int, threads: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Effort(rounds, threads)


@pytest.mark.parametrize(
    ("dtype", "step", "phase"),
    [("float32", 28, 40), ("bfloat16", 22, 32), ("float64", 56, 80)],
)
def test_the_memory_pass_moves_what_a_step_moves(dtype: str, step: int, phase: int) -> None:
    assert memory.bytes_moved(tiny(dtype)) == step
    assert memory.bytes_moved(tiny(dtype, "phase")) == phase
    memory.memory_pass(tiny(dtype, "phase"))()


def test_other_processes_are_noticed_or_unknown() -> None:
    share = Watch().others()
    assert share is None or share >= 0
    assert BRIEF.turn_seconds < 1
