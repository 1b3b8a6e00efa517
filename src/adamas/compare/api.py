"""The comparison as functions: `compare` runs a study, `check` looks a job over before one."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from adamas.compare import workloads
from adamas.compare.job import load
from adamas.compare.job.check import Problem, find_problems, inspect_job
from adamas.compare.report.live import Progress, failed_lines
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
from adamas.compare.verdict.contract import row
from adamas.compare.verdict.result import summarise
from adamas.compare.verdict.sequential import looks
from adamas.user_code import told

JobOrName = Callable[..., Any] | str
OnRunEnd = Callable[[dict[str, Any]], object]


def compare(
    job: JobOrName,
    *,
    arms: Sequence[str] = DEFAULT,
    budget: str = "standard",
    trials: int | None = None,
    seeds: int | None = None,
    margin: str | float | None = None,
    metric: str | None = None,
    device: str = "cpu",
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    fresh: bool = False,
    timeout: float | None = None,
    progress: bool = True,
    on_run_end: OnRunEnd | None = None,
) -> StudyResult:
    """Tune Adam without decay, Adam with L2 and AdamW on a training job at equal cost, and say which one to use.

    Each arm is tuned over its own range of weight decay. The best config of each arm runs on fresh paired seeds and is
    tested once. An interrupted study keeps its finished runs, and the same call continues it.

    Args:
        job: A function of (seed, device) that returns a `Job` or an `OwnLoop`, also one defined in a notebook;
            "path.py:name" or "package.module:name" of such a function; or the name of a built-in workload.
        arms: Names of the candidates; further ones are torch optimizers, as in "torch.optim:RMSprop".
        budget: "scout", "quick", "standard" or "thorough": how many runs each arm may spend.
        trials: Runs for the search of each arm, in place of the budget's.
        seeds: Paired seeds on which the best config of each arm is rerun, at most: the finals end where the verdict is
            clear. A larger number in a later call goes on with the same study. None takes the budget's.
        margin: The smallest difference that matters: "2%" or .02 for a fraction of the metric, "0.002abs" for an
            amount. None takes 2 %, or the margin of a built-in workload.
        metric: The figure of `evaluate` to judge by; lower is better. "-top1" judges by "top1", and higher is better.
            None takes the job's own.
        device: The device to train on.
        workers: Worker processes, with one thread each; 0 trains in this process, so that a debugger can stop in the
            job. No figure depends on the number. None takes one worker a core, or one on a GPU.
        out: The folder of the trials; None takes "report" in the current folder.
        storage: A database URL for the trials; None takes an SQLite file in `out`.
        fresh: Whether to discard the runs of an earlier call.
        timeout: The seconds that a run may take; a run that takes longer is `failed`. It needs worker processes. None
            sets no limit.
        progress: Whether to show the progress on standard error, or in the notebook.
        on_run_end: Called in this process with each run that ended in this call, as a dictionary like those of
            `StudyResult.runs`. An error in it is shown as a warning, and the study goes on.

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
    options = Options.read(arms, budget, trials, margin, out, timeout=timeout, **given)
    settings = options.settings(look_over(job, options))
    return run_study(settings, Progress(Console(stderr=True)) if progress else None, on_run_end)


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
    tried for a few steps that change no weight.

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


def run_study(settings: Settings, progress: Progress | None = None, on_run_end: OnRunEnd | None = None) -> StudyResult:
    """Train what is missing of a study and return its result.

    Args:
        settings: The settings of the study.
        progress: Shows how far the study is, and which runs failed.
        on_run_end: Called with each run that ended in this call: see `compare`.
    """
    with progress or contextlib.nullcontext(_show_nothing) as watch:
        record = conduct(settings, _call_for_each(on_run_end, settings.workload.metric, watch) if on_run_end else watch)
    if progress:
        for line in failed_lines(record.outcomes):
            progress.say(line)
    return StudyResult(summarise(record))


def _call_for_each(on_run_end: OnRunEnd, metric: str, watch: Watch) -> Watch:
    """Return a watch that first calls a function of the user with each run that has ended."""
    metrics = {metric}

    def call(snapshot: Snapshot) -> None:
        for run, outcome in snapshot.ended.items():
            metrics.update(outcome.validation)
            try:
                on_run_end(row(run, outcome, sorted(metrics)))
            except Exception as error:  # a tracker that is out of reach is no reason to lose a study
                warnings.warn(f"on_run_end raised {told(error)}; the study goes on", stacklevel=2)
        watch(snapshot)

    return call


def conduct(settings: Settings, watch: Watch) -> Record:
    """Train what is missing of a study and return every run with its outcome.

    The finals are judged at several numbers of pairs, and end where the verdict is settled.

    Args:
        settings: The settings of the study.
        watch: Called with a snapshot of the study when runs have ended, and when more are requested.
    """
    spec = specification(settings)
    with (
        make_runner(settings.workers) as runner,
        open_study(settings, spec, runner, expected_runs(settings), watch) as driver,
    ):
        return go_through(Protocol(settings, spec, driver.follow, driver.planned_pairs))


def go_through(protocol: Protocol) -> Record:
    """Go from the pilot to the look at the finals that settles the verdict, or to the last one."""
    record = protocol.search()
    for pairs in looks(_affordable(record), record.planned):
        record = protocol.finals(record, pairs)
        if summarise(record).verdict.settled:
            break
    return record


def _affordable(record: Record) -> int:
    """Return the number of pairs that the settings ask for, or fewer if the budget has a limit for the whole study."""
    settings, most = record.settings, record.settings.budget.most
    if most is None or settings.seeds is not None:
        return settings.pairs
    left, alone = most - len(record.outcomes), record.pairs_of("none", settings.pairs) * ("none" in record.winners)
    others = len(record.winners) - ("none" in record.winners)
    return max(2, min(settings.pairs, (left - alone) // others))


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
