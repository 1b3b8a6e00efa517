"""Measure the plan on this machine's GPU, row after row, and write results/gpu.json.

python -m benchmarks.gpu [--out benchmarks/results/gpu.json] [--seconds 270] [--rounds 7] [--check] [--dry-run]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from adamas.bench.clock import Effort
from adamas.bench.device import Cpu, Gpu
from adamas.bench.harness import Harness, compare
from adamas.bench.loop import blank, run
from adamas.bench.peak import measure_peak
from adamas.bench.peers import implementation
from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.scenario import PEAKS, Scenario
from adamas.bench.table import about_gpu, report, summary
from adamas.kernels import triton
from benchmarks import RESULTS
from benchmarks.gpu.plan import CHECKED, SHAPES, TINY, tasks_of

OUT = RESULTS / "gpu.json"
NO_GPU, NO_TRITON = 2, 3  # exit codes


def options(arguments: list[str]) -> argparse.Namespace:
    """Return the options that the user gave."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure on this machine's GPU.")
    parser.add_argument("--out", type=Path, help=f"file for the figures (default: {OUT})")
    parser.add_argument(
        "--seconds", type=float, default=270.0, help="time for everything; the last rows may be missing"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each row; the median counts")
    parser.add_argument("--check", action="store_true", help="only say whether there is a GPU to measure on")
    parser.add_argument("--dry-run", action="store_true", help="run all of it on the CPU, on tiny tensors")
    asked = parser.parse_args(arguments)
    if asked.dry_run and asked.out is None:
        parser.error("--dry-run needs --out: its figures must not replace measured ones")
    try:
        asked.effort = Effort(asked.rounds, turn_seconds=1e-4 if asked.dry_run else 0.05)
    except ValueError as error:
        parser.error(str(error))
    asked.out = asked.out or OUT
    return asked


def main(arguments: list[str]) -> int:
    """Measure, write and print a table; return an exit code that says whether there was a GPU."""
    asked = options(arguments)
    if (asked.check or not asked.dry_run) and not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} finds no CUDA device, and nothing was run", file=sys.stderr)
        return NO_GPU
    if asked.check:
        reason = triton.missing() or triton.unfit_device()
        if reason is not None:
            print(f"parameters on this GPU would be stepped by eager: {reason}", file=sys.stderr)
            return NO_TRITON
        print(f"on {torch.cuda.get_device_name()}")
        return 0
    result = measure(asked)
    print("A DRY RUN: no figure means anything.\n" if asked.dry_run else "", end="")
    print(*(text for text, _ in report(result)), sep="\n")
    ended = "complete" if result.complete else "NOT complete"
    print(f"\n{about_gpu(result)}\n\n{ended} after {result.seconds:.0f} s. {summary(result)}", flush=True)
    return 0


def measure(asked: argparse.Namespace) -> Result:
    """Return all rows; finished rows are in the file at any moment, and the rest is there with the reason."""
    harness = Harness(Cpu() if asked.dry_run else Gpu(), asked.effort, CHECKED)
    tasks = tasks_of(TINY if asked.dry_run else SHAPES, judged=not asked.dry_run)
    result = Result.of(harness.device, asked.effort)
    result.machine |= {"dry": True} if asked.dry_run else {}

    def measured(scenario: Scenario, name: str) -> Row:
        if scenario.work in PEAKS:
            return measure_peak(scenario, implementation(name), harness.device)
        return compare(scenario, implementation(name), harness)

    def tell(row: Row) -> None:
        found = f"{row.figures.ratio:.3f}" if row.figures else f"{row.peak.later:.2f} B a weight" if row.peak else ""
        if found:
            print(f"{result.seconds:4.0f} s  {row}: {found}", file=sys.stderr, flush=True)

    ended = run(tasks, measured, result, asked.out, tell, asked.seconds)
    result.machine |= harness.device.describe(asked.effort.threads)  # clocks of a device that has just worked
    result.rows += [blank(*task, f"not measured: {ended}") for task in tasks[len(result.rows) :]]
    result.write(asked.out)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
