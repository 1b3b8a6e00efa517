"""How long a study of 100 runs takes beside the naive way: one run after the other, one process, torch's AdamW.

python -m benchmarks.study_speed

Both are started as a user would, in processes of their own, and timed from start to end, imports included. The naive
way trains every run for as long as the job says, on torch's own choice of threads; it validates each and tests the
finalists. It runs in two halves, before and after the study, so that a machine that changes speed is seen.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from adamas.bench.result import processor
from adamas.compare import workloads
from adamas.compare.job import Job

RESULT = Path(__file__).parent / "results" / "study_speed.json"
WORKLOAD, RUNS, FINALS = "digits", 100, 18
LIMIT = 0.25


def naive(runs: int, finals: int) -> None:
    """What a script without any of this does."""
    for run in range(runs):
        job = workloads.find(WORKLOAD).load()(run, "cpu")
        assert isinstance(job, Job)
        optimizer = torch.optim.AdamW(job.model.parameters(), lr=1e-3, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step, job=job: job.schedule(step / job.steps))
        for epoch in range(job.epochs):
            for batch in job.batches(epoch):
                optimizer.zero_grad()
                loss = job.loss(batch)
                loss.backward()
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            job.evaluate("validation")
            if run < finals:
                job.evaluate("test")


def timed(*arguments: str) -> float:
    """Seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def study(out: str) -> float:
    """Seconds of a study of 100 runs: 4 in the pilot, 26 an arm, 18 finalists."""
    options = ["--budget", "quick", "--trials", "26", "--seeds", "6", "--json", "--out", out]
    return timed("adamas.cli", "compare", WORKLOAD, *options)


def main(
    rounds: Annotated[int, typer.Option(help="Studies, each between two halves of the naive way.")] = 3,
    only_naive: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Measure both in turns and write the figures."""
    if only_naive:
        naive(only_naive, FINALS * only_naive // RUNS)
        return
    half = ("benchmarks.study_speed", "--only-naive", str(RUNS // 2))
    rows: list[dict[str, float]] = []
    for _ in range(rounds):
        before = timed(*half)
        with tempfile.TemporaryDirectory() as out:
            ours = study(out)
        theirs = before + timed(*half)
        rows.append({"study_seconds": round(ours, 2), "naive_seconds": round(theirs, 2), "ratio": ours / theirs})
        print(f"study {ours:.1f} s, naive {theirs:.1f} s, ratio {ours / theirs:.3f}", flush=True)
    ratio = statistics.median(row["ratio"] for row in rows)
    print(f"median ratio {ratio:.3f}, limit {LIMIT}")
    found = {"workload": WORKLOAD, "runs": RUNS, "cores": os.cpu_count(), "median_ratio": ratio, "rounds": rows}
    RESULT.write_text(json.dumps({**found, "torch": torch.__version__, "cpu": processor()}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
