"""Train the grids of the playground's heat maps: `python -m benchmarks.playground_maps`, about ten minutes on a core.

The job is `digits-deep` with its loss times 1 and times 10, under Adam with L2 and AdamW, on the same grid of weight
decays. A cell is the mean validation cross-entropy of two seeds, or null where a run diverged.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import adamas
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.training import train_task
from adamas.compare.study.arms import ARMS
from adamas.compare.study.run import Run
from adamas.compare.workloads import find

OUT = Path(adamas.__file__).parent / "understand" / "playground" / "maps.json"
LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
DECAYS = tuple(float(f"{10 ** (half / 2):.2g}") for half in range(-6, 5))  # 1e-3 to 1e2 in half powers of ten
SEEDS, SCALES = (11, 12), {1: "", 10: "loss x10"}


def grid(arm: str, variant: str) -> list[list[float | None]]:
    """Return the final loss for each weight decay (row) and learning rate (column)."""
    workload = find("digits-deep")
    rows: list[list[float | None]] = []
    for decay in DECAYS:
        runs = tuple(Run("search", arm, lr, decay, seed, variant) for lr in LRS for seed in SEEDS)
        found = [out.validation for out in train_task(workload.load(variant), "cpu", ARMS, Task(runs, workload.metric))]
        pairs = [found[place : place + len(SEEDS)] for place in range(0, len(found), len(SEEDS))]
        losses = [[one[workload.metric] for one in pair if one] for pair in pairs]
        rows.append([round(fmean(pair), 4) if len(pair) == len(SEEDS) else None for pair in losses])
        print(arm, variant, decay, rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    maps = {arm: {str(scale): grid(arm, name) for scale, name in SCALES.items()} for arm in ("adam_l2", "adamw")}
    job = {"workload": "digits-deep", "metric": "validation cross-entropy", "seeds": SEEDS, "steps": 400}
    OUT.write_text(
        json.dumps({**job, "version": adamas.__version__, "lr": LRS, "weight_decay": DECAYS, "maps": maps}) + "\n"
    )
