"""What a run was made on and with: versions, the GPU, its driver and clocks. Nothing is set, only read."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import adamas
from adamas.bench.peers import find, missing, versions
from benchmarks.gpu.machine import Machine

FIELDS = (
    "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "temperature.gpu", "power.draw",
    "power.limit",
)  # fmt: skip


def device(machine: Machine) -> dict[str, Any]:
    """Name, memory, and what nvidia-smi says; of a CPU only its kind."""
    if machine.device.type != "cuda":
        return {"name": "CPU, a dry run", "smi": {}}
    properties = torch.cuda.get_device_properties(machine.device)
    return {
        "name": torch.cuda.get_device_name(),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "smi": smi(str(getattr(properties, "uuid", ""))),
    }


def smi(uuid: str) -> dict[str, str]:
    """The `FIELDS` of a GPU, by nvidia-smi; empty where that is missing or does not answer. MHz, degrees C, W."""
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    for one in ([f"--id=GPU-{uuid}"] if uuid else [], []):
        try:
            answer = subprocess.run([*command, *one], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        lines = answer.stdout.strip().splitlines()
        if answer.returncode == 0 and lines:
            values = [value.strip() for value in lines[0].split(",")]
            return dict(zip(FIELDS, values, strict=False))
    return {}


def all_versions(peers: Iterable[str]) -> dict[str, str]:
    """Of everything that takes part and is installed."""
    found = {"adamas": adamas.__version__, "torch": torch.__version__, "python": platform.python_version()}
    for name in ("numpy", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for peer in map(find, peers):
        if peer.modules != ("torch",) and missing(peer) is None:  # looking up a distribution takes a while
            found |= versions(peer)
    return {**found, "torch": torch.__version__}
