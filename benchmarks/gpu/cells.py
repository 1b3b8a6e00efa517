"""How a row's figures are written, on the terminal and in the docs alike."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import Any

from adamas.bench.duration import duration
from benchmarks.gpu.result import Result
from benchmarks.gpu.row import PeakBytes, PeakRow, Row, Side

TIMES = ("format", "peer", "ratio", "range", "ours", "peer's", "bandwidth", "error", "state", "limit")
PEAKS = ("who", "format", "first step", "later", "resident", "limit")


def time_cells(row: Row) -> tuple[str, ...]:
    """A row with figures, in the order of `TIMES`."""
    figures = row.figures
    assert figures is not None
    ours, peer = figures.ours, figures.peer
    return (
        row.format if ours.kernel == "triton" else f"{row.format} ({ours.kernel})",
        peer_name(row),
        f"{figures.ratio:.3f}",
        f"{figures.lowest:.3f}-{figures.highest:.3f}",
        time(ours),
        time(peer),
        f"{ours.bandwidth:.0%} / {peer.bandwidth:.0%}",
        f"{ours.error_ulps:.2g} / {peer.error_ulps:.2g}",
        f"{ours.state_bytes:.3g} / {peer.state_bytes:.3g}",
        verdicts(row.limits, row.verdicts),
    )


def peer_name(row: Row) -> str:
    """With the dtype of its parameters where that is not the usual one."""
    return row.peer if row.peer_dtype == "float32" else f"{row.peer} ({row.peer_dtype})"


def time(side: Side) -> str:
    """Of a call, and where the host's clock was read, of the device alone."""
    alone = "" if side.device_seconds is None else f" ({duration(side.device_seconds)})"
    return duration(side.seconds) + alone


def verdicts(limits: dict[str, float], held: dict[str, bool]) -> str:
    """Each limit, and whether it holds."""
    return ", ".join(f"{name} {limits[name]:.2f}: {'within' if within else 'MISSED'}" for name, within in held.items())


def peak_cells(row: PeakRow) -> tuple[str, ...]:
    """A row with figures, in the order of `PEAKS`."""
    figures = row.figures
    assert isinstance(figures, PeakBytes)
    return (
        row.who,
        f"{row.format}{', gradients released' if row.released else ''}",
        *(f"{bytes_:.2f}" for bytes_ in (figures.first, figures.later, figures.resident)),
        verdicts({"peak": row.limit or 0.0}, row.verdicts),
    )


def sections(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """The rows of each scenario and work under their heading, in the order in which they first appear."""
    order = {key: n for n, key in enumerate(dict.fromkeys((row.scenario, row.work) for row in rows))}
    ordered = sorted(rows, key=lambda row: order[row.scenario, row.work])
    return [
        (f"{name}: a {work}", list(group))
        for (name, work), group in groupby(ordered, lambda row: (row.scenario, row.work))
    ]


def reasons(rows: list[Any]) -> list[str]:
    """Why rows have no figures: each reason once, with those that it is the reason of."""
    without: dict[str, list[str]] = {}
    for row in rows:
        if row.reason is not None:
            named = peer_name(row) if isinstance(row, Row) else row.who
            without.setdefault(row.reason, []).append(f"{row.scenario} {row.format} {named}")
    return [f"{reason}: {'; '.join(who)}" for reason, who in without.items()]


def summary(result: Result) -> str:
    """How many limits hold, and which do not."""
    found = result.verdicts
    missed = [name for name, held in found if not held]
    said = f"{len(found) - len(missed)} of {len(found)} measured limits hold"
    return f"{said}; missed: {'; '.join(missed)}." if missed else f"{said}."


def measured_on(result: Result) -> str:
    """The device, its ceilings and versions."""
    smi, ceilings = defaultdict(lambda: "?", result.device["smi"]), result.ceilings
    said = [result.device["name"]]
    if result.device["smi"]:
        clocks = f"{smi['clocks.sm']} of {smi['clocks.max.sm']} MHz, memory {smi['clocks.mem']} MHz"
        said.append(f"driver {smi['driver_version']}, clocks after the ceilings: {clocks}")
    said.append(f"copies {ceilings['copy_bandwidth'] / 1e12:.2f} TB/s, reads and writes counted")
    said.append(f"bfloat16 matrices {ceilings['matrix_rate'] / 1e12:.0f} TFLOP/s")
    first = [row.figures.ours.first_seconds for row in result.rows if row.figures is not None]
    if first:
        said.append(f"our first calls, with what is compiled then, {min(first):.2g} to {max(first):.2g} s")
    said.append(", ".join(f"{name} {number}" for name, number in sorted(result.versions.items())))
    return ". ".join(said) + "."
