"""Speed of a step beside torch's: pairs taken in turns, in alternating order; the median ratio of several rounds.

    python benchmarks/step.py [--rounds 9] [--out benchmarks/results/step-cpu.json]

A single time says little on a shared machine; the ratio of two that were taken in turns says more. The parameters of
both sides are compared in the same run: no speed is reported for a wrong result.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import adamas
from adamas.kernels import native
from adamas.torch import AdamW

SECONDS_A_TURN = 0.15  # long against the timer and a scheduler's slice, short against a neighbour's burst


@dataclass(frozen=True)
class Scenario:
    """Parameters to step, as a list of shapes, and the highest ratio to torch fused that is allowed."""

    name: str
    shapes: list[tuple[int, ...]]
    dtype: str = "float32"
    limit: float | None = None

    @property
    def parameters(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self.shapes)


SCENARIOS = [
    Scenario("48 tensors, 10 k", [(20, 20)] * 24 + [(16,)] * 24, limit=1 / 5),
    Scenario("144 tensors, 0.6 M", [(128, 64)] * 72 + [(128,)] * 72, limit=1 / 2),
    Scenario("144 tensors, 9.5 M", [(512, 256)] * 72 + [(512,)] * 72),
    Scenario("16 x 1 M", [(1024, 1024)] * 16, limit=1.05),
    Scenario("16 x 1 M, bfloat16", [(1024, 1024)] * 16, dtype="bfloat16"),
    Scenario("16 x 1 M, float16", [(1024, 1024)] * 16, dtype="float16"),
    Scenario("16 x 1 M, float64", [(1024, 1024)] * 16, dtype="float64"),
]
# Above 1e-8, which torch rounds to 0 in float16: its parameters would be NaN.
EPS = 1e-4
PEERS: dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]] = {
    "torch fused": lambda params: torch.optim.AdamW(params, eps=EPS, fused=True),
    "torch default": lambda params: torch.optim.AdamW(params, eps=EPS),
}


@dataclass(frozen=True)
class Row:
    """One scenario beside one peer: seconds a step (medians), and the median, lowest and highest ratio."""

    scenario: str
    parameters: int
    dtype: str
    peer: str
    ours_seconds: float
    peer_seconds: float
    ratio: float
    lowest: float
    highest: float
    limit: float | None


def problem(scenario: Scenario) -> list[torch.nn.Parameter]:
    """Fresh parameters with gradients; the same values each time."""
    random = torch.Generator().manual_seed(0)
    dtype = getattr(torch, scenario.dtype)
    params = []
    for shape in scenario.shapes:
        param = torch.nn.Parameter(torch.randn(shape, generator=random).to(dtype))
        draw = (
            torch.rand(shape, generator=random) - 0.5
        )  # of sizes .5 to 1: their squares must not underflow in float16
        param.grad = (draw + draw.sign() * 0.5).to(dtype)
        params.append(param)
    return params


def turn(step: Callable[[], object], repeats: int) -> float:
    """Seconds a call, over `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - start) / repeats


def compare(scenario: Scenario, peer: str, rounds: int) -> Row:
    """Interleave our step with a peer's, whoever begins alternating."""
    ours_params, peer_params = problem(scenario), problem(scenario)
    ours, theirs = AdamW(ours_params, eps=EPS), PEERS[peer](peer_params)
    for _ in range(3):
        ours.step()
        theirs.step()
    tolerance = {"float64": 1e-12, "float32": 1e-5}.get(scenario.dtype, 5e-2)
    for a, b in zip(ours_params, peer_params, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    repeats = max(1, round(SECONDS_A_TURN / max(turn(theirs.step, 2), 1e-6)))
    mine: list[float] = []
    other: list[float] = []
    for index in range(rounds):
        for step, times in ((ours.step, mine), (theirs.step, other))[:: 1 if index % 2 else -1]:
            times.append(turn(step, repeats))
    ratios = [a / b for a, b in zip(mine, other, strict=True)]
    return Row(
        scenario.name,
        scenario.parameters,
        scenario.dtype,
        peer,
        statistics.median(mine),
        statistics.median(other),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        scenario.limit if peer == "torch fused" else None,
    )


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


def show(rows: list[Row], console: Console) -> None:
    """The table, with the rows that are over their limit marked in words."""
    table = Table(title=f"a step of Adamas beside torch, {torch.get_num_threads()} threads")
    for heading in ("parameters", "dtype", "peer", "ns/parameter", "peer's", "ratio", "range", "limit", ""):
        table.add_column(heading, justify="left" if heading in ("parameters", "dtype", "peer", "") else "right")
    for row in rows:
        verdict = "" if row.limit is None else "within" if row.ratio <= row.limit else "OVER"
        table.add_row(
            row.scenario,
            row.dtype,
            row.peer,
            f"{row.ours_seconds / row.parameters * 1e9:.2f}",
            f"{row.peer_seconds / row.parameters * 1e9:.2f}",
            f"{row.ratio:.3f}",
            f"{row.lowest:.3f}-{row.highest:.3f}",
            "" if row.limit is None else f"{row.limit:.2f}",
            verdict,
        )
    console.print(table)


def main(
    rounds: Annotated[int, typer.Option(min=3, help="Pairs of turns a scenario; the median counts.")] = 9,
    out: Annotated[Path, typer.Option(help="Where to write the figures.")] = Path("benchmarks/results/step-cpu.json"),
) -> None:
    """Measure every scenario beside every peer, print the ratios and write them."""
    console = Console(width=120)
    pairs = [(scenario, peer) for scenario in SCENARIOS for peer in PEERS]
    rows = [compare(*pair, rounds) for pair in track(pairs, description="measuring", console=console)]
    show(rows, console)
    versions = {"adamas": adamas.__version__, "torch": torch.__version__, "python": platform.python_version()}
    machine = {"processor": processor(), "threads": torch.get_num_threads(), "instruction_sets": native.isas()}
    out.parent.mkdir(parents=True, exist_ok=True)
    result = {"versions": versions, "machine": machine, "rounds": rounds, "rows": [asdict(row) for row in rows]}
    out.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"written to {out}")


if __name__ == "__main__":
    typer.run(main)
