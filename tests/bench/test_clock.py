from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adamas.bench import memory
from adamas.bench.clock import Effort, Party, Watch, interleave, ratios, turn
from adamas.bench.device import Cpu
from adamas.kernels import native
from tests.bench.conftest import BRIEF, tiny

native_is_built = native.missing is None


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

    monkeypatch.setattr("adamas.bench.clock.time.perf_counter", lambda: clock[0])
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
    moments = 16 if dtype == "float64" else 8
    assert memory.bytes_moved(dtype, "step", moments) == step
    assert memory.bytes_moved(dtype, "phase", 1.5 * moments) == phase
    Cpu().memory_pass(tiny(dtype, "phase"), phase * 52.0)()


def test_copies_read_and_write_as_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []

    def copy_(target: torch.Tensor, source: torch.Tensor) -> None:
        copied.append(target.numel() * 4 + source.numel() * 4)

    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    monkeypatch.setattr(memory, "LARGEST_COPY", 1000)
    memory.copies(28 * 100.0, torch.device("cpu"))()
    assert len(copied) == 2
    assert sum(copied) == 2800


def test_lean_formats_move_as_many_bytes_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the native kernel is not built, copies take its place."""
    monkeypatch.setattr("adamas.kernels.native.missing", "not built")
    Cpu().memory_pass(tiny(), 28 * 52.0)()
    if native_is_built:
        monkeypatch.undo()
        lean = replace(tiny("bfloat16"), storage={"state_dtype": "packed16", "master_weight_bits": 24})
        Cpu().memory_pass(lean, 12.1 * lean.parameters)()


def test_other_processes_are_noticed_or_unknown() -> None:
    share = Watch().others()
    assert share is None or share >= 0
    assert BRIEF.turn_seconds < 1
