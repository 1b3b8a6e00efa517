"""The measuring code itself, on a CPU that stands in for the GPU: the same path, other clocks, next to no size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adamas.bench.measure import Party, turn
from adamas.bench.peers import PEERS
from adamas.bench.peers.ours import Ours
from adamas.bench.peers.torch_optim import Torch, TorchFused
from adamas.bench.scenario import Scenario
from benchmarks.gpu import clock, compare, peak
from benchmarks.gpu.ceilings import copy_bandwidth, matrix_rate
from benchmarks.gpu.compare import Bench, bytes_moved
from benchmarks.gpu.machine import Cpu
from benchmarks.gpu.plan import F32, FORMATS, FUSED, LEAN, OURS, Comparison, Peak
from benchmarks.gpu.shapes import LARGE, MODEL, ONE, SMALL
from benchmarks.gpu.sides import full


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_checked_and_timed(form: str, bench: Bench) -> None:
    row = compare.compare(Comparison(ONE, "step", form, FUSED), bench)
    assert row.reason is None
    assert row.figures is not None
    assert 0 < row.figures.lowest <= row.figures.ratio <= row.figures.highest
    for side in (row.figures.ours, row.figures.peer):
        assert side.seconds > 0
        assert side.first_seconds > 0
        assert side.bandwidth > 0
        assert side.device_seconds is None
    assert row.figures.ours.kernel in ("eager", "native")
    assert (row.limits, row.verdicts, row.clock) == ({}, {}, "device")


@pytest.mark.parametrize("scenario", [SMALL, MODEL])
def test_phases_are_measured(scenario: str, bench: Bench) -> None:
    row = compare.compare(Comparison(scenario, "phase", F32, FUSED), bench)
    assert row.figures is not None
    assert row.figures.ours.state_bytes >= 12
    assert row.clock == ("host" if scenario == SMALL else "device")


def test_a_phase_finds_its_gradients_each_time(bench: Bench) -> None:
    scenario = Comparison(SMALL, "phase", F32, FUSED).ours(bench.shapes)
    side = full(Ours, scenario, bench.machine)
    party = compare.party(side, scenario)
    for _ in range(2):
        party.ready()
        assert isinstance(side, Ours)
        assert all(param.grad is not None and param.grad.any() for param in side.params)
        party.call()
        assert all(param.grad is None for param in side.params)


def test_gradients_stay_for_a_step(bench: Bench) -> None:
    scenario = Comparison(LARGE, "step", F32, FUSED).ours(bench.shapes)
    side = full(TorchFused, scenario, bench.machine)
    compare.party(side, scenario).call()
    assert isinstance(side, TorchFused)
    assert all(param.grad is not None and param.grad.any() for param in side.params)


class SwappedBetas(Torch):
    name = "swapped"

    def make(self, scenario: Scenario) -> object:
        return torch.optim.AdamW(self.params, **{**self.options, "betas": (0.999, 0.9)})


class Refusing(Torch):
    name = "refusing"

    def make(self, scenario: Scenario) -> object:
        raise NotImplementedError("not with these")


@pytest.mark.parametrize(
    ("peer", "reason"),
    [(SwappedBetas, "differs: parameters are "), (Refusing, "refuses: NotImplementedError: not with these")],
)
def test_a_peer_that_errs_or_refuses_gives_a_reason(
    peer: type[Torch], reason: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PEERS, peer.name, peer)
    row = compare.compare(Comparison(ONE, "step", F32, peer.name), bench)
    assert row.figures is None
    assert (row.reason or "").startswith(reason)


def test_a_wrong_result_of_ours_is_not_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ours, "make", SwappedBetas.make)
    row = compare.compare(Comparison(ONE, "step", F32, FUSED), bench)
    assert row.figures is None
    assert (row.reason or "").startswith("adamas errs by ")


def test_a_peer_that_is_missing_gives_a_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PEERS["flashoptim"], "modules", ("no_such_package",))
    assert (compare.compare(Comparison(ONE, "step", LEAN, "flashoptim", "bfloat16"), bench).reason or "").startswith(
        "not installed (no_such_package)"
    )
    assert (peak.peak(Peak("flashoptim", "bfloat16"), bench).reason or "").startswith("not installed")


def test_what_does_not_fit_gives_a_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cpu, "available", lambda self: 2.0**20)
    row = compare.compare(Comparison(LARGE, "step", F32, FUSED), replace(bench, shapes={LARGE: ((1024, 1024),)}))
    assert row.reason == "needs about 0 GiB of memory, and 0 are free"


def test_bytes_moved_are_those_of_the_formats() -> None:
    assert bytes_moved(Scenario("", ((1,),)), 8) == 28
    assert bytes_moved(Scenario("", ((1,),), work="phase"), 12) == 40
    assert bytes_moved(Scenario("", ((1,),), "bfloat16"), 3.046875) == pytest.approx(12.09375)


class Counting(Cpu):
    """An allocator that counts what a test tells it."""

    def __init__(self) -> None:
        self.sizes = [2.0, 3.0, 4.0, 5.0]  # before the first step, its most, before the second, its most

    def held(self) -> int:
        return 0

    def peak(self) -> int:
        return int(self.sizes.pop(0) * 1e6)


@pytest.mark.parametrize("released", [False, True])
def test_memory_is_asked_for_around_each_step(released: bool, bench: Bench) -> None:
    row = peak.peak(Peak(OURS, LEAN, released), replace(bench, machine=Counting()))
    assert row.figures is not None
    assert row.figures.first * row.parameters == pytest.approx(3e6)
    assert row.figures.later * row.parameters == pytest.approx(5e6)


def test_memory_of_a_cpu_is_not_made_up(bench: Bench) -> None:
    assert peak.peak(Peak(FUSED, "float32"), bench).reason == "memory of a cpu is not counted"


def test_released_gradients_are_there_one_at_a_time(bench: Bench) -> None:
    side = full(Ours, Peak(OURS, LEAN, released=True).scenario(bench.shapes), bench.machine)
    assert isinstance(side, Ours)
    before = side.parameters()
    step = peak.released(side)
    step()
    step()
    assert all(param.grad is None for param in side.params)
    assert not any(map(torch.equal, before, side.params))
    assert {int(side.optimizer.state[param]["step"]) for param in side.params} == {2}


def test_ceilings_are_positive() -> None:
    assert copy_bandwidth(Cpu(), 2**16) > 0
    assert matrix_rate(Cpu(), 32) > 0


def test_queued_calls_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's clock runs until the device is done; a call that is waited for tells how many fill a turn."""
    now, pending = [0.0], [0.0]

    def call() -> None:
        now[0] += 1.0  # of the host
        pending[0] += 3.0  # of the device

    def synchronize() -> None:
        now[0] += pending[0]
        pending[0] = 0.0

    monkeypatch.setattr("benchmarks.gpu.clock.time.perf_counter", lambda: now[0])
    assert clock.queued(Party(call), 8.0, synchronize) == 4.0
    monkeypatch.setattr("adamas.bench.measure.time.perf_counter", lambda: now[0])
    made_ready = Party(call, lambda: now.__setitem__(0, now[0] + 100))
    assert turn(clock.alone(made_ready, synchronize), 8.0) == 4.0
