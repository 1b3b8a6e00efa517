"""The clocks of a CUDA device and what is said of it, by a made-up one whose queue runs on behind the host."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adamas.bench import clock
from adamas.bench import device as devices
from adamas.bench.clock import Party
from adamas.bench.device import Gpu
from benchmarks.gpu.plan import tasks_of


class Device:
    """Host and device time in seconds; each launch begins when both are ready."""

    def __init__(self) -> None:
        self.host = self.device = 0.0
        self.asleep = 0.05

    def launch(self, host: float, device: float) -> None:
        self.host += host
        self.device = max(self.device, self.host) + device

    def synchronize(self) -> None:
        self.host = max(self.host, self.device)

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        found = SimpleNamespace(at=None)
        found.record = lambda: setattr(found, "at", max(self.device, self.host))
        found.elapsed_time = lambda other: (other.at - found.at) * 1000
        return found


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: made.launch(0.0, made.asleep))
    monkeypatch.setattr(clock.time, "perf_counter", lambda: made.host)
    return made


def test_between_events_the_host_is_ahead(device: Device) -> None:
    large = Party(lambda: device.launch(0.001, 0.006))
    assert clock.between_events(large, 0.05) == pytest.approx(0.006)
    assert Gpu().clock(tasks_of()[0][0])(large, 0.05) == pytest.approx(0.006)


def test_between_events_a_slow_host_counts(device: Device) -> None:
    slow = Party(lambda: device.launch(0.004, 0.001), lambda: device.launch(0.002, 0.0))
    assert clock.between_events(slow, 0.05) == pytest.approx(0.006)


def test_the_device_alone_is_without_the_host(device: Device) -> None:
    small = Party(lambda: device.launch(0.004, 0.00001))
    assert Gpu().device_seconds(small) == pytest.approx(0.00001)


def test_steps_of_small_tensors_are_the_hosts(device: Device) -> None:
    small = Party(lambda: device.launch(0.004, 0.00001))
    (step, phase) = (
        Gpu().clock(next(each for each, _ in tasks_of() if each.clock == "host" and each.work == work))
        for work in ("step", "phase")
    )
    assert step(small, 0.05) == pytest.approx(0.004, rel=0.01)
    # A phase is waited for, and its gradients are put back outside of the clock.
    assert phase(Party(small.call, lambda: device.launch(0.1, 0.1)), 0.05) == pytest.approx(0.00401)


def test_what_is_said_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(major=9, minor=0, total_memory=150, multi_processor_count=132, uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    asked: list[list[str]] = []

    def answer(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        code = 6 if any(word.startswith("--id") for word in command) else 0
        return subprocess.CompletedProcess(command, code, "580.1, 1980, 3201, 1980, 3201, 40, 120.5, 700\n", "")

    monkeypatch.setattr(devices.subprocess, "run", answer)
    said = Gpu().describe(threads=1)
    assert (said["processor"], said["compute_capability"]) == ("NVIDIA H200", "9.0")
    assert (said["smi"]["driver_version"], said["smi"]["clocks.sm"]) == ("580.1", "1980")
    assert len(asked) == 2  # the id was not known: the first GPU
    for words in asked:  # it is only read, never set
        assert all(word.startswith(("nvidia-smi", "--query-gpu=", "--format=", "--id=")) for word in words)


def test_without_nvidia_smi_there_are_no_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert devices.smi("") == {}
