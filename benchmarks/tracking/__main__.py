"""Feed every format the same gradients, and write results/tracking.json.

python -m benchmarks.tracking [--beta1 0.9] [--beta2 0.999] [--steps 3000] [--out benchmarks/results/tracking.json]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.tracking.experiment import PATH, Result, Scenario, run
from benchmarks.tracking.formats import SCHEMES


def main(
    beta1: Annotated[float, typer.Option(help="Decay rate of m.")] = Scenario.betas[0],
    beta2: Annotated[float, typer.Option(help="Decay rate of v.")] = Scenario.betas[1],
    steps: Annotated[int, typer.Option(help="Steps before the gradients fall, and again after it.")] = Scenario.steps,
    out: Annotated[Path, typer.Option(help="File for the figures.")] = PATH,
) -> None:
    """Run the experiment for all formats together, and write."""
    scenario = Scenario(betas=(beta1, beta2), steps=steps)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{len(SCHEMES)} schemes, {scenario.elements:,} elements", total=2 * scenario.steps)
        stores = {name: scheme.store for name, scheme in SCHEMES.items()}
        steps, records = run(stores, scenario, lambda step: progress.update(task, completed=step))
    Result.of(scenario, steps, records).write(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
