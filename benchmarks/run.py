"""Measure every scenario beside every peer that is installed, and write results/cpu.json, or lean.json.

python -m benchmarks.run [--lean] [--rounds 9] [--peers all] [--out benchmarks/results/cpu.json]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from adamas.bench.command import bench
from adamas.bench.measure import Effort
from adamas.bench.settings import Settings, choose_peers, choose_threads
from benchmarks.scenarios import LEAN, SCENARIOS

TRIES = 3  # of a row that a neighbour disturbs
RESULTS = Path(__file__).parent / "results"


def main(
    rounds: Annotated[int, typer.Option(help="Turns a row; the median counts.")] = 9,
    peers: Annotated[str, typer.Option(help="Names with commas, or all.")] = "all",
    lean: Annotated[bool, typer.Option("--lean", help="The rows with moments and weights in fewer bits.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write the figures, if not in results.")] = None,
) -> None:
    """Measure and write; name the rows over their limit."""
    effort = Effort(rounds, choose_threads(None), TRIES)
    out = out or RESULTS / ("lean.json" if lean else "cpu.json")
    settings = Settings(LEAN if lean else SCENARIOS, choose_peers(peers), effort, out)
    result = bench(settings, Console(highlight=False), Console(stderr=True))
    over = [f"{row.scenario}, {row.work}, {row.peer}" for row in result.rows if row.within is False]
    if over:
        print("over the limit:", "; ".join(over))
    raise typer.Exit(0 if result.complete else 130)


if __name__ == "__main__":
    typer.run(main)
