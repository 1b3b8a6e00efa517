"""The devices: each one knows its clock, its memory and its name. `Cpu` also stands in for a GPU in dry runs."""

from __future__ import annotations

import gc
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adamas.bench import clock
from adamas.bench.clock import Clock, Party
from adamas.bench.memory import copies, native_pass
from adamas.bench.scenario import Scenario
from adamas.kernels import native

SMI_FIELDS = (
    "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "temperature.gpu", "power.draw",
    "power.limit",
)  # fmt: skip


class Cpu:
    """The host: every call is done when it returns. The memory that tensors take is not counted."""

    device = torch.device("cpu")
    queues = False  # whether calls return before they are done
    packages: tuple[str, ...] = ()  # packages that belong to the versions of every run

    def synchronize(self) -> None:
        """Return at once, since nothing is ever queued."""

    def clock(self, scenario: Scenario) -> Clock:
        """Return the host's clock for every scenario."""
        return clock.turn

    def device_seconds(self, party: Party) -> float | None:
        """Return None, since the host does all the work."""
        return None

    def memory_pass(self, scenario: Scenario, bytes_: float) -> Callable[[], None]:
        """Return a function that moves as many bytes as a step and computes next to nothing."""
        return copies(bytes_, self.device) if native.missing else native_pass(scenario, bytes_)

    def allocated(self) -> tuple[int, int]:
        """Return zeros, since the host's memory is not counted."""
        return 0, 0

    def free(self) -> None:
        """Release memory that nothing refers to."""
        gc.collect()

    def describe(self, threads: int) -> dict[str, Any]:
        """Return the processor's name, the number of threads and the instruction sets, best first."""
        return {"processor": processor(), "threads": threads, "instruction_sets": native.isas()}


class Gpu:
    """The current CUDA device, which works through a queue while the host goes on."""

    device = torch.device("cuda")
    queues = True
    packages = ("numpy", "triton")

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        torch.cuda.synchronize()

    def clock(self, scenario: Scenario) -> Clock:
        """Return the device's clock, or the host's clock where the host is the slower of the two.

        With the host's clock, steps are queued one behind another. A phase clears the gradients; they are put back
        between two phases, outside of the clock, so that each phase is waited for.
        """
        if scenario.clock == "device":
            return clock.between_events
        return partial(clock.queued if scenario.work == "step" else clock.turn, synchronize=self.synchronize)

    def device_seconds(self, party: Party) -> float | None:
        """Return the seconds of a call on the device alone."""
        return clock.without_host(party)

    def memory_pass(self, scenario: Scenario, bytes_: float) -> Callable[[], None]:
        """Return a function that copies so much that as many bytes are read and written as in a step."""
        return copies(bytes_, self.device)

    def allocated(self) -> tuple[int, int]:
        """Return the bytes of all tensors, and the most that there were since the last call of this method."""
        torch.cuda.synchronize()
        found = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return found

    def free(self) -> None:
        """Release memory that nothing refers to."""
        gc.collect()
        torch.cuda.empty_cache()

    def describe(self, threads: int) -> dict[str, Any]:
        """Return name and size of the GPU, and what nvidia-smi says of its driver and clocks."""
        properties = torch.cuda.get_device_properties(self.device)
        return {
            "processor": torch.cuda.get_device_name(),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "smi": smi(str(getattr(properties, "uuid", ""))),
        }


Device = Cpu | Gpu


def processor() -> str:
    """Return the processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


def smi(uuid: str) -> dict[str, str]:
    """Return the `SMI_FIELDS` of a GPU in MHz, degrees C and W; empty where nvidia-smi is missing or fails."""
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    for one in ([f"--id=GPU-{uuid}"] if uuid else [], []):
        try:
            answer = subprocess.run([*command, *one], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        lines = answer.stdout.strip().splitlines()
        if answer.returncode == 0 and lines:
            values = [value.strip() for value in lines[0].split(",")]
            return dict(zip(SMI_FIELDS, values, strict=False))
    return {}
