"""The comparison as functions: `compare` runs a study, `check` looks a job over before one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from adamas.compare import workloads
from adamas.compare.job import load
from adamas.compare.job.check import Problem, find_problems, inspect_job
from adamas.compare.report.live import Progress
from adamas.compare.runner.conduct import Watch, open_study
from adamas.compare.runner.pool import make_runner
from adamas.compare.search.protocol import Protocol, expected_runs
from adamas.compare.search.record import Record
from adamas.compare.study.arms import DEFAULT
from adamas.compare.study.settings import Options, Settings
from adamas.compare.study.snapshot import Snapshot
from adamas.compare.study.specification import specification
from adamas.compare.study.workload import Workload
from adamas.compare.study_result import StudyResult
from adamas.compare.verdict.result import summarise

JobOrName = Callable[..., Any] | str


def compare(
    job: JobOrName,
    *,
    arms: Sequence[str] = DEFAULT,
    budget: str = "standard",
    trials: int | None = None,
    seeds: int = 8,
    margin: str | float | None = None,
    metric: str | None = None,
    device: str = "cpu",
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> StudyResult:
    """Tune Adam without decay, Adam with L2 and AdamW on a training job at equal cost, and say which one to use.

    Each arm is tuned over its own range of weight decay. The best config of each arm runs on fresh paired seeds and is
    tested once. An interrupted study keeps its finished runs, and the same call continues it.

    Args:
        job: A function of (seed, device) that returns a `Job` or an `OwnLoop`, also one defined in a notebook;
            "path.py:name" or "package.module:name" of such a function; or the name of a built-in workload.
        arms: Names of the candidates; further ones are torch optimizers, as in "torch.optim:RMSprop".
        budget: "quick", "standard" or "thorough": how many runs each arm may spend.
        trials: Runs for the search of each arm, in place of the budget's.
        seeds: Paired seeds on which the best config of each arm is rerun.
        margin: The smallest difference that matters: "2%" or .02 for a fraction of the metric, "0.002abs" for an
            amount. None takes 2 %, or the margin of a built-in workload.
        metric: The figure of `evaluate` to judge by; lower is better. None takes the job's own.
        device: The device to train on.
        workers: Worker processes, with one thread each; 0 trains in this process, so that a debugger can stop in the
            job. No figure depends on the number. None takes one worker a core, or one on a GPU.
        out: The folder of the trials; None takes "report" in the current folder.
        storage: A database URL for the trials; None takes an SQLite file in `out`.
        fresh: Whether to discard the runs of an earlier call.
        progress: Whether to show the progress on standard error, or in the notebook.

    Raises:
        ValueError: an argument is out of its range, the job cannot be used, or the storage holds a study with other
            settings.
        StudyError: the study could not be finished, for example because the job raised an error.

    Example:
        >>> from adamas.compare import compare
        >>> result = compare("digits", budget="quick")  # doctest: +SKIP
        >>> result.verdict.kind, result.arms["adamw"].weight_decay  # doctest: +SKIP
        ('no_difference', 0.3)
    """
    given = {"seeds": seeds, "metric": metric, "device": device, "workers": workers, "storage": storage, "fresh": fresh}
    options = Options.read(arms, budget, trials, margin, out, **given)
    settings = options.settings(look_over(job, options))
    return run_study(settings, Progress(Console(stderr=True)) if progress else None)


def check(
    job: JobOrName,
    *,
    arms: Sequence[str] = DEFAULT,
    margin: str | float | None = None,
    metric: str | None = None,
    device: str = "cpu",
) -> list[Problem]:
    """Look a job over without training it, and return the problems that a study would have with it.

    The job is built three times: two jobs of one seed must start alike, a job of another seed must not. Each piece is
    tried once.

    Args:
        job: The job, as in `compare`.
        arms: The arms that will train it, as in `compare`.
        margin: The margin, as in `compare`.
        metric: The primary metric, as in `compare`.
        device: The device to train on.

    Returns:
        Problems with `where`, `what` and `remedy`; the list is empty if the job is ready.

    Example:
        >>> from adamas.compare import check
        >>> check("digits")
        []
        >>> check("digit")[0].what
        "unknown workload 'digit'"
    """
    try:
        options = Options.read(arms, margin=margin, metric=metric, device=device)
        return find_problems(_find_workload(job, options), options.margin, options.arms)
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        return [Problem(str(job), what, remedy)]


def look_over(job: JobOrName, options: Options) -> Workload:
    """Find a job and look it over; raise an error that says what is wrong with it."""
    return inspect_job(_find_workload(job, options), options.margin, options.arms)


def run_study(settings: Settings, progress: Progress | None = None) -> StudyResult:
    """Train what is missing of a study and return its result; `progress` shows how far the study is."""
    with progress or contextlib.nullcontext(_show_nothing) as watch:
        return StudyResult(summarise(conduct(settings, watch)))


def conduct(settings: Settings, watch: Watch) -> Record:
    """Train what is missing of a study and return every run with its outcome.

    Args:
        settings: The settings of the study.
        watch: Called with a snapshot of the study when runs have ended, and when more are requested.
    """
    spec = specification(settings)
    with (
        make_runner(settings.workers) as runner,
        open_study(settings, spec, runner, expected_runs(settings), watch) as driver,
    ):
        return Protocol(settings, spec, driver.follow).go_through()


def _find_workload(job: JobOrName, options: Options) -> Workload:
    """Return the workload of a function, a file, a module or a built-in name."""
    if callable(job):
        workload = load.from_function(job)
    elif ":" in job or job.endswith(".py"):
        workload = load.from_name(job)
    else:
        workload = workloads.find(job)
    return replace(workload, device=options.device, metric=options.metric or workload.metric)


def _show_nothing(snapshot: Snapshot) -> None:
    """Ignore how far the study is."""
