"""Do smaller optimizer states train as well as float32? Paired runs of each on the workloads of `adamas compare`.

python -m benchmarks.parity [--seeds 8] [--workloads chars,digits] [--variants all] [--workers 2] [--fresh]

In a pair everything but the optimizer is the same: initial weights, data order, torch's random stream. Finished runs
are kept in results/parity.json and are not repeated: after Ctrl-C, the same command continues.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.optim import Optimizer

from adamas.compare.job.job import Job
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.training import train_task as train
from adamas.compare.study.arms import ARMS, Arm
from adamas.compare.study.run import Run as StudyRun
from adamas.compare.workloads import find
from benchmarks import RESULTS
from benchmarks.parity_result import Parity, Run, table
from benchmarks.parity_variants import RECIPES, VARIANTS, Factory, Groups

PATH = RESULTS / "parity.json"
Key = tuple[str, str, int]  # workload, variant and seed of a run


@dataclass(frozen=True)
class Built(Arm):
    """An arm of a comparison that builds the optimizer of a variant."""

    factory: Factory = field(kw_only=True)
    seed: int = field(kw_only=True)

    def build(self, params: Groups, lr: float, weight_decay: float) -> Optimizer:
        return self.factory(params, lr, weight_decay, self.seed)


def finish(key: Key) -> Run:
    """Train one run, inside a worker process."""
    workload, variant, seed = find(key[0]), VARIANTS[key[1]], key[2]
    recipe = RECIPES[workload.name]
    make = workload.load()

    def job(seed: int, device: str) -> Job:
        made = make(seed, device)
        if variant.prepare is not None:
            variant.prepare(made.model, seed)
        return made

    arm = Built(**vars(ARMS["adamw"]), factory=variant.build, seed=seed)
    cell = StudyRun("confirm", variant.name, recipe.lr, recipe.weight_decay, seed)
    (outcome,) = train(job, workload.device, {variant.name: arm}, Task((cell,), workload.metric))
    return Run(*key, outcome.validation, round(outcome.seconds, 3), variant.versions())


def recipes(workloads: list[str]) -> dict[str, dict[str, object]]:
    """Return what runs depend on as plain data: hyperparameters and the revision of each workload."""
    return {name: asdict(RECIPES[name]) | {"schedule": "cosine", "revision": find(name).revision} for name in workloads}


def earlier(path: Path, workloads: list[str], fresh: bool) -> Parity:
    """Return the runs to continue from; runs with another recipe are refused."""
    wanted = recipes(workloads)
    if fresh or not path.exists():
        return Parity(wanted)
    result = Parity.read(path)
    for name in wanted.keys() & result.recipes.keys():
        if wanted[name] != result.recipes[name]:
            raise typer.BadParameter(f"{path} was made with {result.recipes[name]}, not {wanted[name]}: use --fresh")
    result.recipes |= wanted
    return result


def chosen(names: str, known: list[str], what: str) -> list[str]:
    """Return a list of names from a text with commas, or all known ones."""
    wanted = known if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise typer.BadParameter(f"unknown {what} {name!r}; the known ones are: {', '.join(known)}")
    return wanted


def conduct(result: Parity, due: list[Key], workers: int, progress: Progress) -> Iterator[tuple[Key, Run | Exception]]:
    """Train runs in workers of one thread each; yield each run, or its error, as soon as it is finished."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read by the workers when they start
    context = multiprocessing.get_context("spawn")
    task = progress.add_task("", total=len(due))
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        futures: dict[Future[Run], Key] = {pool.submit(finish, key): key for key in due}
        try:
            for future in as_completed(futures):
                key = futures[future]
                progress.update(task, advance=1, description=", ".join(map(str, key)))
                error = future.exception()
                yield key, future.result() if error is None else error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def main(
    seeds: Annotated[int, typer.Option(help="Pairs of runs, at least 2.", min=2)] = 8,
    workloads: Annotated[str, typer.Option(help="Names with commas, or all.")] = "all",
    variants: Annotated[str, typer.Option(help="Names with commas, or all; float32 is always among them.")] = "all",
    workers: Annotated[
        int, typer.Option(help="Processes of one thread each; no loss depends on their number.", min=1)
    ] = 2,
    out: Annotated[Path, typer.Option(help="File for the runs.")] = PATH,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard the runs in the file.")] = False,
) -> None:
    """Train the runs that are missing, and print the table."""
    err = Console(stderr=True, highlight=False)
    names = chosen(workloads, list(RECIPES), "workload")
    wanted = [VARIANTS[name] for name in dict.fromkeys(["float32", *chosen(variants, list(VARIANTS), "variant")])]
    for variant in wanted:
        if variant.missing:
            err.print(f"{variant.name} is skipped: pip install {variant.package}")
    result = earlier(out, names, fresh)
    done = {run.key for run in result.runs}
    keys = [(name, each.name, seed) for seed in range(seeds) for name in names for each in wanted if not each.missing]
    failures: dict[str, str] = {}
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=err) as progress:
        for key, found in conduct(result, [key for key in keys if key not in done], workers, progress):
            if isinstance(found, Exception):
                failures[key[1]] = f"{type(found).__name__}: {found}"
                continue
            result.runs.append(found)
            result.write(out)
    print(table(result))
    for name, failure in failures.items():
        err.print(f"{name} failed: {failure}", markup=False)
    raise typer.Exit(1 if failures else 0)


if __name__ == "__main__":
    typer.run(main)
