"""Everything that is needed to do a study again."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from adamas.compare.report.phrases import plural
from adamas.compare.search.selection import FIRST_FINAL_SEED
from adamas.compare.verdict.result import Summary


def repeat(result: Summary) -> list[tuple[str, str]]:
    """Names and values, in the order of the page."""
    settings, spec = result.record.settings, result.record.specification
    versions = {**spec["versions"], **{name: version(name) for name in ("optuna", "scipy", "plotly")}}
    finals = f"finals {FIRST_FINAL_SEED} to {FIRST_FINAL_SEED + settings.seeds - 1}"
    return [
        ("Command", settings.command()),
        ("Versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ("Seeds", finals if settings.workload.fixed else f"pilot and grids from 0; {finals}"),
        ("Workload", f"{settings.workload.name}, revision {settings.workload.revision}, on {settings.workload.device}"),
        ("Workers", f"{plural(settings.workers, 'process')}, one thread each; no figure depends on their number"),
        ("Machine", f"{processor()}, {platform.system()} {platform.machine()}"),
        (
            "Time of a run",
            f"{max(arm.seconds for arm in result.arms.values()):.2g} s for a finalist of the slowest arm",
        ),
    ]


def processor() -> str:
    """Name of the CPU, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
