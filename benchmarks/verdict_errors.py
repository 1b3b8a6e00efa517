"""How often verdicts are wrong: simulated studies with a known truth, and real training with arms that are equal.

    python -m benchmarks.verdict_errors --studies 1000        simulated: null, power, and noise from 2 to 60%
    python -m benchmarks.verdict_errors --real --studies 100  real training, three jobs

Finished rows are kept: the same command goes on. `switch` and `keep` are wrong where the arms are equal; in the real
jobs `no_decay` is wrong as well. Results: benchmarks/results/verdict_errors.json; the sums that a verdict tells of its
budget go into the package.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adamas.compare.api import go_through
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.training import train_task
from adamas.compare.search.protocol import Protocol
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.run import Outcome, Run
from adamas.compare.study.settings import Settings
from adamas.compare.study.workload import Workload
from adamas.compare.verdict import reliability
from adamas.compare.verdict import statistics as figures
from adamas.compare.verdict.result import Summary, summarise
from adamas.whole_file import write_whole
from benchmarks.null_jobs import JOBS
from benchmarks.simulated_job import drawn, follow, study

RESULTS = Path(__file__).parent / "results" / "verdict_errors.json"
PACKAGED = Path(reliability.__file__).with_suffix(".json")  # what a verdict says of its budget
NOISES = (0.02, 0.05, 0.15, 0.3, 0.6)
POWER = (("scout", 0.05), ("quick", 0.05), ("standard", 0.05), ("scout", 0.3), ("standard", 0.3))
GAP, GAP_NOISE = 0.1, 0.05


def real_study(job: str, budget: str, number: int) -> Summary:
    """Return a study of a job on which all arms are equal."""
    metric = "distance" if job == "gan" else "loss"
    workload = Workload(job, "nowhere:job", metric, "Arms that are equal.", groups=True)
    settings = Settings(workload, budget=BUDGETS[budget], out=Path("unused"))
    factory: Any = JOBS[job](number)

    def outcome(run: Run) -> Outcome:
        return train_task(factory, "cpu", settings.trained_arms, Task((run,), metric))[0]

    return summarise(go_through(Protocol(settings, {}, lambda searches: follow(searches, outcome))))


def row(make: Callable[[int], Summary], number: int) -> tuple[str, int, bool]:
    """Return the verdict of a study, its number of runs, and whether a search was told to have failed."""
    torch.set_num_threads(1)
    figures.sign_flip_p = lambda values: 0.0  # it decides nothing, and takes most of the time
    found = make(number)
    return found.verdict.kind, len(found.record.outcomes), bool(found.verdict.failed)


def simulated(budget: str, noise: float, gap: float, number: int) -> Summary:
    """Return the simulated study of a number, which draws its world."""
    return study(drawn(number, noise, gap), budget)


def cells(real: bool) -> dict[str, Callable[[int], Summary]]:
    """Return what makes a study, by the name of its row."""
    if real:
        return {
            f"real {job}, {budget}": partial(real_study, job, budget) for budget in ("scout", "quick") for job in JOBS
        }
    null = {
        name_of("null", budget, noise): partial(simulated, budget, noise, 0.0)
        for budget in ("scout", "quick", "standard", "thorough")
        for noise in NOISES
    }
    power = {
        name_of(f"gap {GAP:.0%}", budget, noise): partial(simulated, budget, noise, GAP) for budget, noise in POWER
    }
    return power | null


def name_of(kind: str, budget: str, noise: float) -> str:
    """Return the name of a row of simulated studies."""
    return f"{kind}, {budget}, noise {noise:.0%}"


def packaged(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, for each budget of which all rows are counted, what its verdicts say of it."""
    found: dict[str, dict[str, Any]] = {}
    for budget in BUDGETS:
        null = [table.get(name_of("null", budget, noise)) for noise in NOISES]
        gap = table.get(name_of(f"gap {GAP:.0%}", budget, GAP_NOISE))
        if gap and all(null):
            found[budget] = {
                "equal": sum(row["studies"] for row in null if row),
                "told_apart": sum(row.get(kind, 0) for row in null if row for kind in ("switch", "keep")),
                "least_noise": f"{min(NOISES):.0%}",
                "most_noise": f"{max(NOISES):.0%}",
                "apart": gap["studies"],
                "found": gap.get("switch", 0),
                "reversed": gap.get("keep", 0),
                "gap": f"{GAP:.0%}",
                "gap_noise": f"{GAP_NOISE:.0%}",
            }
    return found


def main() -> None:
    """Run what is missing, and write the table after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--only", default="", help="a part of the names of the rows to run")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    table: dict[str, Mapping[str, Any]] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    with ProcessPoolExecutor(given.workers) as pool:
        for name, make in cells(given.real).items():
            if given.only not in name or table.get(name, {}).get("studies", 0) >= given.studies:
                continue
            kinds, runs, failed = zip(*pool.map(partial(row, make), range(given.studies), chunksize=5), strict=True)
            table[name] = {
                "studies": given.studies,
                **{kind: count for kind, count in sorted(Counter(kinds).items())},
                "failed searches": sum(failed),
                "median runs": statistics.median(runs),
            }
            print(name, table[name], flush=True)
            about = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
            write_whole(RESULTS, json.dumps({**about, "rows": table}, indent=1) + "\n")
            write_whole(PACKAGED, json.dumps(packaged(table), indent=1) + "\n")


if __name__ == "__main__":
    main()
