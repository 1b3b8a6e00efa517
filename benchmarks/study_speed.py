"""How long does a study of 100 runs take, compared with one run after another by torch's AdamW in one process?

python -m benchmarks.study_speed

Both are started as a user starts them, in processes of their own, and timed from start to end, imports included. The
naive way trains every run for as long as the job says, on as many threads as torch chooses. It validates each run and
tests the finalists. It runs in two halves, before and after the study, so that a change of the machine's speed shows.

The last figure is a bound: the study's ratio if it consisted of its matrix products alone, shared evenly by the cores
and at torch's speed. Results are kept by processor, since the share of the products differs between processors.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Annotated

import torch
import typer

from adamas.bench.clock import Party, turn
from adamas.bench.device import processor
from adamas.compare import workloads
from adamas.compare.job.job import Job
from adamas.compare.workloads import digits
from benchmarks import RESULTS

RESULT = RESULTS / "study_speed.json"
WORKLOAD, RUNS, FINALS = "digits", 100, 9
LIMIT = 0.25
STUDY = ("--budget", "quick", "--trials", "29", "--seeds", "3", "--json")  # 4 runs in the pilot, 29 an arm, 9 finalists
COPIES, TURN_SECONDS = 12, 0.2  # how many copies of a product are stacked, and how long each product is timed


def naive(runs: int, finals: int) -> None:
    """Train the runs one after another, as a script without this library does."""
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
    """Return the seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def products() -> float:
    """Return the seconds on one core of the matrix products of one run's step, stacked as a study stacks them."""
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for layer in digits.network().modules():
        if isinstance(layer, torch.nn.Linear):
            weight = torch.randn(COPIES, layer.in_features, layer.out_features)
            inputs = torch.randn(COPIES, digits.BATCH, layer.in_features)
            grads = torch.randn(COPIES, digits.BATCH, layer.out_features)
            pairs += [(grads, weight.mT), (inputs, weight), (inputs.mT, grads)]
    del pairs[0]  # the gradient of the images is not needed
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    parties = [Party(partial(torch.bmm, left, right, out=torch.bmm(left, right))) for left, right in pairs]
    spent = sum(turn(party, TURN_SECONDS) for party in parties)
    torch.set_num_threads(threads)
    return spent / COPIES


def main(
    rounds: Annotated[int, typer.Option(help="Number of studies, each between two halves of the naive way.")] = 3,
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
            ours = timed("adamas.cli", "compare", WORKLOAD, *STUDY, "--out", out)
        theirs = before + timed(*half)
        rows.append({"study_seconds": round(ours, 2), "naive_seconds": round(theirs, 2), "ratio": ours / theirs})
        print(f"study {ours:.1f} s, naive {theirs:.1f} s, ratio {ours / theirs:.3f}", flush=True)
    ratio = statistics.median(row["ratio"] for row in rows)
    cores = os.cpu_count() or 1
    alone = RUNS * digits.EPOCHS * digits.TRAIN // digits.BATCH * products() / cores
    bound = alone / statistics.median(row["naive_seconds"] for row in rows)
    print(f"median ratio {ratio:.3f}, limit {LIMIT}; its matrix products alone would be {bound:.3f}")
    found = {"workload": WORKLOAD, "runs": RUNS, "cores": cores, "median_ratio": ratio, "products_alone": bound}
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    known[processor()] = {**found, "rounds": rows, "torch": torch.__version__}
    RESULT.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
