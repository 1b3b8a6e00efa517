"""Measure every scenario beside every peer that is installed, and write a file of figures for this processor.

python -m benchmarks.run [--lean | --fronts] [--rounds 9] [--peers all] [--out benchmarks/results/cpu-amd-epyc.json]

The figures of each processor have a file of their own, named after it, so that none overwrites another's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from adamas.bench.clock import Effort
from adamas.bench.command import bench, choose_peers
from adamas.bench.device import processor
from benchmarks import RESULTS
from benchmarks.scenarios import FRONTS, LEAN, SCENARIOS

KINDS = {"cpu": SCENARIOS, "lean": LEAN, "fronts": FRONTS}  # by the first word of the name of a file of figures
TRIES = 3  # of a row that other processes disturb


def path_of(kind: str, processor: str) -> Path:
    """Return the file for the figures of a processor.

    Example:
        >>> path_of("cpu", "Intel(R) Xeon(R) Processor").name
        'cpu-intel-xeon.json'
    """
    words = re.sub(r"\((R|TM)\)|\b(Processor|CPU)\b", " ", processor, flags=re.IGNORECASE)
    return RESULTS / f"{kind}-{'-'.join(re.findall('[a-z0-9.]+', words.lower()))}.json"


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of each row; the median counts.")] = 9,
    peers: Annotated[str, typer.Option(help="Names with commas, or all.")] = "all",
    lean: Annotated[bool, typer.Option("--lean", help="Measure moments and weights in fewer bits.")] = False,
    fronts: Annotated[bool, typer.Option("--fronts", help="Measure NumPy, JAX and Keras.")] = False,
    out: Annotated[Path | None, typer.Option(help="File for the figures, if not in results.")] = None,
) -> None:
    """Measure and write; name the rows over their limit."""
    if lean and fronts:
        raise typer.BadParameter("--lean and --fronts write different files: give one of them")
    kind = "lean" if lean else "fronts" if fronts else "cpu"
    effort = Effort(rounds, torch.get_num_threads(), TRIES)
    out = out or path_of(kind, processor())
    consoles = Console(highlight=False), Console(stderr=True)
    result = bench(KINDS[kind], choose_peers(peers), effort, consoles, out)
    over = [str(row) for row in result.rows if row.within is False]
    if over:
        print("over the limit:", "; ".join(over))
    raise typer.Exit(0 if result.complete else 130)


if __name__ == "__main__":
    typer.run(main)
