"""The harness with a GPU's checks and plan, on a CPU that stands in for the GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adamas.bench import clock
from adamas.bench import harness as harness_module
from adamas.bench.clock import Party, turn
from adamas.bench.device import Cpu
from adamas.bench.harness import Harness, compare, full, party
from adamas.bench.peak import measure_peak, released_step
from adamas.bench.peers import PEERS
from adamas.bench.peers.torch_peers import Ours, Torch, TorchFused
from adamas.bench.scenario import Scenario
from benchmarks.gpu.plan import BF16, F32, FLASH, FORMATS, FUSED, LARGE, LEAN, MASTERS24, MODEL, ONE, OURS, SMALL
from tests.bench.gpu.conftest import task


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_checked_and_timed(form: str, harness: Harness) -> None:
    dtype, storage = FORMATS[form]
    scenario = replace(task(ONE, "step", F32, FUSED), dtype=dtype, storage=storage, format=form)
    row = compare(scenario, TorchFused, harness)
    assert row.reason is None
    assert row.figures is not None
    assert 0 < row.figures.lowest <= row.figures.ratio <= row.figures.highest
    assert row.figures.memory_ratio > 0
    for side in (row.figures.ours, row.figures.peer):
        assert side.seconds > 0
        assert (side.device_seconds, side.first_seconds, side.kernel) == (None, None, None)
    assert (row.format, row.verdicts) == (form, {})


class LikeAGpu(Cpu):
    """A CPU with a device's clock, which the harness takes for a GPU."""

    queues = True

    def device_seconds(self, party: Party) -> float | None:
        return 0.5


@pytest.mark.parametrize("work", ["step", "phase"])
def test_a_gpu_has_figures_of_its_own(work: str, harness: Harness) -> None:
    row = compare(task(SMALL, work, F32, FUSED), TorchFused, replace(harness, device=LikeAGpu()))
    assert row.figures is not None
    for side in (row.figures.ours, row.figures.peer):
        assert side.device_seconds == 0.5
        assert (side.first_seconds or 0) > 0
    assert row.figures.ours.kernel in ("eager", "native")
    assert row.figures.peer.kernel is None


@pytest.mark.parametrize("shapes", [SMALL, MODEL])
def test_phases_are_measured(shapes: str, harness: Harness) -> None:
    row = compare(task(shapes, "phase", F32, FUSED), TorchFused, harness)
    assert row.figures is not None
    assert row.figures.ours.state_bytes >= 12


def test_a_phase_finds_its_gradients_each_time(harness: Harness) -> None:
    scenario = task(SMALL, "phase", F32, FUSED)
    side = full(Ours, scenario, harness.device)
    timed = party(side, scenario)
    for _ in range(2):
        timed.ready()
        assert isinstance(side, Ours)
        assert all(param.grad is not None and param.grad.any() for param in side.params)
        timed.call()
        assert all(param.grad is None for param in side.params)


def test_gradients_stay_for_a_step(harness: Harness) -> None:
    scenario = task(LARGE, "step", F32, FUSED)
    side = full(TorchFused, scenario, harness.device)
    party(side, scenario).call()
    assert isinstance(side, TorchFused)
    assert all(param.grad is not None and param.grad.any() for param in side.params)


def test_a_format_is_checked_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    check = harness_module.check
    monkeypatch.setattr(harness_module, "check", lambda peer, *rest: done.append(peer.name) or check(peer, *rest))
    for shapes in (LARGE, SMALL):
        assert compare(task(shapes, "step", F32, FUSED), TorchFused, harness).figures is not None
    assert compare(task(SMALL, "step", MASTERS24, FUSED), TorchFused, harness).figures is not None
    assert done == ["adamas", "torch-fused", "adamas"]


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
def test_a_peer_that_errs_or_refuses_gives_a_reason(peer: type[Torch], reason: str, harness: Harness) -> None:
    row = compare(task(ONE, "step", F32, FUSED), peer, harness)
    assert row.figures is None
    assert (row.reason or "").startswith(reason)


def test_a_wrong_result_of_ours_is_not_timed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ours, "make", SwappedBetas.make)
    row = compare(task(ONE, "step", F32, FUSED), TorchFused, harness)
    assert row.figures is None
    assert (row.reason or "").startswith("adamas errs by ")


def test_a_peer_that_is_missing_gives_a_reason(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = PEERS[FLASH]
    monkeypatch.setattr(peer, "modules", ("no_such_package",))
    time, memory = task(LARGE, "step", LEAN, FLASH, BF16), task(MODEL, "peak", BF16, FLASH, BF16)
    for row in (compare(time, peer, harness), measure_peak(memory, peer, harness.device)):
        assert (row.reason or "").startswith("not installed (no_such_package)")


class Counting(Cpu):
    """An allocator that counts what a test tells it."""

    def __init__(self) -> None:
        self.most = [0.0, 2.0, 3.0, 4.0, 5.0, 0.0]  # before all, before the first step, its most, and so on

    def allocated(self) -> tuple[int, int]:
        return 0, int(self.most.pop(0) * 1e6)


@pytest.mark.parametrize("work", ["peak", "released peak"])
def test_memory_is_asked_for_around_each_step(work: str) -> None:
    row = measure_peak(task(MODEL, work, LEAN, OURS), Ours, Counting())
    assert row.peak is not None
    assert row.peak.first * row.parameters == pytest.approx(3e6)
    assert row.peak.later * row.parameters == pytest.approx(5e6)
    assert ("released" in row.format_label) is (work == "released peak")


def test_memory_of_a_cpu_is_not_made_up() -> None:
    row = measure_peak(task(MODEL, "peak", F32, FUSED), TorchFused, Cpu())
    assert row.reason == "memory of a cpu is not counted"


def test_released_gradients_are_there_one_at_a_time() -> None:
    side = full(Ours, task(MODEL, "released peak", LEAN, OURS), Cpu())
    assert isinstance(side, Ours)
    before = side.parameters()
    step = released_step(side)
    step()
    step()
    assert all(param.grad is None for param in side.params)
    assert not any(map(torch.equal, before, side.params))
    assert {int(side.optimizer.state[param]["step"]) for param in side.params} == {2}


def test_queued_calls_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's clock runs until the device is done; a call that is waited for tells how many fill a turn."""
    now, pending = [0.0], [0.0]

    def call() -> None:
        now[0] += 1.0  # of the host
        pending[0] += 3.0  # of the device

    def synchronize() -> None:
        now[0] += pending[0]
        pending[0] = 0.0

    monkeypatch.setattr("adamas.bench.clock.time.perf_counter", lambda: now[0])
    assert clock.queued(Party(call), 8.0, synchronize) == 4.0
    made_ready = Party(call, lambda: now.__setitem__(0, now[0] + 100))
    assert turn(made_ready, 8.0, synchronize) == 4.0
