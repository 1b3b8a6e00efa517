"""How near the weight decay that one run predicts comes to that of a full search, on six jobs.

    python -m benchmarks.decay_prediction

For each job a study with the budget `quick` is made, or continued, in the folder of --studies. The prediction uses the
study's pilot alone: one run of Adam without decay, at its best learning rate. `adamas.understand.xray` predicts the
decay of AdamW and of Adam with L2 at that rate. Both settings then train on the study's final seeds, beside the
settings that the search has found. Results: benchmarks/results/decay_prediction.json, and a table in docs/xray.md.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from adamas.compare.api import look_over, run_study
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.training import train_task
from adamas.compare.study.run import Run
from adamas.compare.study.settings import Options
from adamas.compare.verdict.result import Summary
from adamas.understand.xray.predict import Windows, predict_windows
from benchmarks import RESULTS
from benchmarks.markdown import filled, table

PATH = RESULTS / "decay_prediction.json"
PAGE = Path(__file__).parents[1] / "docs" / "xray.md"
ARMS = {"adamw": "AdamW", "adam_l2": "Adam with L2"}
JOBS = (
    "digits-deep",
    "modular",
    "sparse",
    "examples/jobs/gru_job.py:job",
    "examples/jobs/recommender_job.py:job",
    "chars",
)
PAIRS = 8


def predicted(result: Summary) -> Windows:
    """Return what the pilot of a study predicts."""
    pilot = result.record.pilot
    assert pilot is not None
    return predict_windows([np.array(pilot.gradient_scale)], pilot.lr, pilot.steps_per_epoch, pilot.epochs)


def figures_at(result: Summary, arm: str, lr: float, weight_decay: float, pairs: int) -> list[float]:
    """Train an arm with a setting on the final seeds of a study, and return its test figures; inf where it diverged."""
    settings = result.record.settings
    factory, metric = settings.workload.load(), settings.workload.metric
    runs = [Run("final", arm, lr, weight_decay, run.seed) for run in result.arms[arm].winner.finals(pairs)]
    outcomes = [train_task(factory, "cpu", settings.trained_arms, Task((run,), metric))[0] for run in runs]
    return [outcome.test[metric] if outcome.ok else math.inf for outcome in outcomes]


def rows_of(job: str, folder: Path) -> dict[str, Any]:
    """Return the rows of both arms for a job."""
    options = Options.read(budget="quick", workers=1, out=folder / Path(job.partition(":")[0]).stem)
    result = run_study(options.settings(look_over(job, options))).summary
    windows, metric = predicted(result), result.record.settings.workload.metric
    margin = result.record.settings.margin
    found: dict[str, Any] = {}
    for arm, window in (("adamw", windows.adamw), ("adam_l2", windows.l2)):
        chosen = result.arms[arm]
        values = chosen.test[metric].values[:PAIRS]
        at = figures_at(result, arm, windows.lr, window.central, len(values))
        found[arm] = {
            "lr": windows.lr,
            "predicted": window.central,
            "window": [window.low, window.high],
            "lr of the search": chosen.lr,
            "found": chosen.weight_decay,
            "ratio": windows.lr * window.central / (chosen.lr * chosen.weight_decay),
            "figure": fmean(at),
            "figure of the search": fmean(values),
            "margin": str(margin),
            "pairs": len(values),
        }
    return found


def changed(ratio: float) -> str:
    """Return the change of a figure by this factor, in words where per cent would be hard to read."""
    return f"{ratio - 1:+.1%}" if ratio < 10 else f"{ratio:.0f} times as high"


def page(text: str, jobs: dict[str, Any]) -> str:
    """Return docs/xray.md with the table of predictions."""
    columns = ("job", "arm", "predicted", "search", "ratio", "loss at the prediction", "at the search's", "change")
    rows = [
        (
            Path(job.partition(":")[0]).stem,
            ARMS[arm],
            *(f"{each['lr']:.2g}, {each['predicted']:.2g}", f"{each['lr of the search']:.2g}, {each['found']:.2g}"),
            f"{each['ratio']:.2g}",
            *(f"{each['figure']:.4g}", f"{each['figure of the search']:.4g}"),
            changed(each["figure"] / each["figure of the search"]),
        )
        for job, arms in jobs.items()
        for arm, each in arms.items()
    ]
    return filled(text, "predictions", table(columns, rows))


def main() -> None:
    """Measure the jobs that the results lack, and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=Path, default=Path("studies"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    jobs: dict[str, Any] = json.loads(PATH.read_text())["jobs"] if PATH.exists() else {}
    for job in JOBS:
        if job not in jobs:
            jobs[job] = rows_of(job, given.studies)
            print(job, json.dumps(jobs[job], indent=1), flush=True)
            PATH.write_text(json.dumps({"torch": torch.__version__, "jobs": jobs}, indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), jobs), encoding="utf-8")


if __name__ == "__main__":
    main()
