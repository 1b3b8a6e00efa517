"""What `python -m benchmarks.gpu` does: measure row after row, keep each, print a table.

By the standard library, torch and NumPy alone: a machine with a GPU may have neither typer nor rich.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adamas.bench.measure import Effort
from adamas.kernels import triton
from benchmarks.gpu.ceilings import copy_bandwidth, matrix_rate
from benchmarks.gpu.compare import Bench, blank, compare
from benchmarks.gpu.conduct import conduct
from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.machine import Cpu, Gpu, Machine
from benchmarks.gpu.peak import blank_peak, peak
from benchmarks.gpu.plan import Comparison, Task, plan
from benchmarks.gpu.result import Result
from benchmarks.gpu.row import PeakRow, Row
from benchmarks.gpu.shapes import SHAPES, TINY
from benchmarks.gpu.surroundings import all_versions, device
from benchmarks.gpu.table import table

OUT = Path(__file__).parents[1] / "results" / "gpu.json"
TURN_SECONDS = {False: 0.05, True: 1e-4}  # by whether the run is dry
COPIED = {False: 2**32, True: 2**20}  # bytes
MATRIX = {False: 8192, True: 128}


def options(arguments: list[str]) -> argparse.Namespace:
    """What the user asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure on this machine's GPU.")
    parser.add_argument("--out", type=Path, help=f"where to write the figures ({OUT})")
    parser.add_argument("--seconds", type=float, default=270.0, help="when to be done; the last rows may be missing")
    parser.add_argument("--rounds", type=int, default=7, help="turns a row; the median counts")
    parser.add_argument("--check", action="store_true", help="only say whether there is a GPU to measure on")
    parser.add_argument("--dry-run", action="store_true", help="all of it on the CPU, on next to nothing")
    asked = parser.parse_args(arguments)
    if asked.dry_run and asked.out is None:
        parser.error("--dry-run needs --out: its figures are not to lie where measured ones do")
    try:
        asked.effort = Effort(asked.rounds, turn_seconds=TURN_SECONDS[asked.dry_run])
    except ValueError as error:
        parser.error(str(error))
    asked.out = asked.out or OUT
    return asked


def main(arguments: list[str]) -> int:
    """Measure, write, and print a table; the exit code says whether there was a GPU."""
    asked = options(arguments)
    deadline = Deadline(asked.seconds)
    if not asked.dry_run and not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} finds no CUDA device, and nothing was run", file=sys.stderr)
        return 2
    if asked.check:
        reason = triton.missing() or (triton.unfit_device() if torch.cuda.is_available() else None)
        if reason is not None:
            print(f"parameters on this GPU would be stepped by eager: {reason}", file=sys.stderr)
            return 3
        print(f"on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "on a CPU, dry")
        return 0
    result = measure(asked, deadline)
    print(table(result), flush=True)
    return 0


def measure(asked: argparse.Namespace, deadline: Deadline) -> Result:
    """All rows; what is finished is in the file at any moment."""
    dry = bool(asked.dry_run)
    machine: Machine = Cpu() if dry else Gpu()
    copied = int(min(COPIED[dry], machine.available() / 4))
    ceilings = {"copy_bandwidth": copy_bandwidth(machine, copied), "matrix_rate": matrix_rate(machine, MATRIX[dry])}
    about = device(machine)  # with the clocks of a device that has just worked
    machine.free()
    bench = Bench(machine, asked.effort, ceilings["copy_bandwidth"], TINY if dry else SHAPES, judged=not dry)
    tasks = plan()
    versions = all_versions(dict.fromkeys(task.peer for task in tasks if isinstance(task, Comparison)))
    result = Result(dry, False, 0.0, asked.rounds, versions, about, ceilings)
    result.write(asked.out)  # a folder that cannot be written is known now
    kept = partial(keep, result, asked.out, deadline)
    complete = conduct(tasks, partial(row_of, bench), partial(without, bench), deadline, kept)
    machine.free()
    if deadline.left() > 1:
        ceilings["copy_bandwidth_after"] = copy_bandwidth(machine, copied)
    result.complete, result.seconds = complete, deadline.spent()
    result.write(asked.out)
    return result


def row_of(bench: Bench, task: Task) -> Row | PeakRow:
    """Measured."""
    return compare(task, bench) if isinstance(task, Comparison) else peak(task, bench)


def without(bench: Bench, task: Task, reason: str) -> Row | PeakRow:
    """Not measured."""
    return blank(task, bench, reason) if isinstance(task, Comparison) else blank_peak(task, bench, reason)


def keep(result: Result, out: Path, deadline: Deadline, row: Any) -> None:
    """Add a row to the file, and say so."""
    (result.rows if isinstance(row, Row) else result.peaks).append(row)
    result.seconds = deadline.spent()
    result.write(out)
    if row.reason is None:
        figures = row.figures
        found = f"{figures.ratio:.3f}" if isinstance(row, Row) else f"{figures.later:.2f} B a weight"
        named = f"{row.work}, {row.format} beside {row.peer}" if isinstance(row, Row) else f"{row.who}, {row.format}"
        print(f"{result.seconds:4.0f} s  {row.scenario}, {named}: {found}", file=sys.stderr, flush=True)
