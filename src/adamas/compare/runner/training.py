"""Train runs from their first step to their outcomes, one alone or several together."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from adamas.compare.job.evaluate import Evaluate, build_all, figures, fit, primary, randomness
from adamas.compare.job.job import Job, JobFactory, OwnLoop, Split
from adamas.compare.runner.copies import Copy, Single, Stack
from adamas.compare.runner.history import History, look_steps
from adamas.compare.runner.tasks import Task
from adamas.compare.study.arms import Arm
from adamas.compare.study.run import SEARCH_STAGES, Outcome, Status


def train_task(factory: JobFactory, device: str, arms: Mapping[str, Arm], task: Task) -> list[Outcome]:
    """Train the runs of a task: together where the job lets several copies share a pass, else one after the other.

    Args:
        factory: Makes the job from (seed, device).
        device: The device that the job trains on.
        arms: The arms by name.
        task: Runs that agree in stage and variant, and in their seed unless the workload lets seeds share a pass.

    Returns:
        One outcome for each run. The random states of the caller are unchanged.
    """
    started = time.perf_counter()
    outcomes = _train_first(factory, device, arms, task)
    seconds = (time.perf_counter() - started) / len(outcomes)
    outcomes = [replace(outcome, seconds=seconds) for outcome in outcomes]
    rest = task.runs[len(outcomes) :]
    return outcomes + (train_task(factory, device, arms, replace(task, runs=rest)) if rest else [])


def _train_first(factory: JobFactory, device: str, arms: Mapping[str, Arm], task: Task) -> list[Outcome]:
    """Train the first runs of a task: all runs, or one where the job does not let several share a pass."""
    with randomness(task.seed, device):
        job = factory(task.seed, device)
        if isinstance(job, OwnLoop):
            return [_train_own_loop(job, arms, task)]
        now = task if job.stackable else replace(task, runs=task.runs[:1])
        jobs = {task.seed: job, **{seed: _job_of_seed(factory, device, seed) for seed in now.seeds[1:]}}
        return train(jobs, arms, now)


def _job_of_seed(factory: JobFactory, device: str, seed: int) -> Job:
    """Return the job of a further seed; the job draws no random number after it is made."""
    with randomness(seed, device):
        job = factory(seed, device)
    if not isinstance(job, Job):
        raise TypeError(f"the job of seed {seed} is a {type(job).__name__}, but the job of another seed is a Job")
    return job


def train(jobs: Mapping[int, Job], arms: Mapping[str, Arm], task: Task) -> list[Outcome]:
    """Train the runs of a task on the jobs of their seeds, each until it ends, diverges or is pruned.

    Args:
        jobs: The jobs by seed.
        arms: The arms by name.
        task: The runs that train together.
    """
    first, *others = task.runs
    job = jobs[first.seed]
    group = Stack(jobs, arms, task.runs) if others else Single(job, arms[first.arm], first)
    pilot, final = task.stage == "pilot", task.stage == "final"
    untrained = _figures(job, partial(group.evaluate, group.copies[0]), "validation", task.metric) if pilot else None
    ended: dict[Copy, tuple[Status, str]] = {}
    looks = set(look_steps(job.steps)) if final else set()
    for each in jobs.values():
        each.model.train()
    for step, of_seeds in enumerate(zip(*map(_batches, jobs.values()), strict=True), start=1):
        losses = group.gradients(of_seeds)
        for copy, loss in zip(group.copies, losses, strict=True):
            copy.history.saw(loss)
            if not math.isfinite(loss):
                ended[copy] = "diverged", f"the training loss became {loss} at step {step}"
        group.drop([copy for copy in group.copies if copy in ended])
        factor = 1.0 if job.scheduler else job.schedule((step - 1) / job.steps)
        for copy in group.copies:
            copy.step(factor)
        if task.may_prune and task.stage in SEARCH_STAGES:
            useless = [copy for copy in group.copies if copy.history.should_prune]
            ended |= {copy: ("pruned", _why_pruned(copy.history)) for copy in useless}
            group.drop(useless)
        if not group.copies:
            break
        if step in looks:
            for copy in group.copies:
                found = _figures(jobs[copy.run.seed], partial(group.evaluate, copy), "validation", task.metric)
                copy.history.look(found[task.metric])
    outcomes = {copy.run: _outcome(job, copy.history, *why) for copy, why in ended.items()}
    for copy in group.copies:
        evaluate = partial(group.evaluate, copy)
        outcomes[copy.run] = _judge(jobs[copy.run.seed], evaluate, copy.history, task.metric, test=final)
    return [replace(outcomes[run], untrained=untrained) for run in task.runs]


def _batches(job: Job) -> Iterator[Any]:
    """Yield every batch of the run, and check that each epoch has as many as the job promised."""
    for epoch in range(job.epochs):
        count = 0
        for count, batch in enumerate(job.batches(epoch), start=1):
            if count > job.steps_per_epoch:
                break
            yield batch
        if count != job.steps_per_epoch:
            many = "more" if count > job.steps_per_epoch else f"{count}"
            raise ValueError(
                f"steps_per_epoch={job.steps_per_epoch} must be the batches of an epoch; epoch {epoch} had {many}"
            )


def _why_pruned(history: History) -> str:
    """Return why a run was stopped half-way."""
    return f"half-way, the training loss was still {history.fit or math.nan:.3g} of the loss at the start"


def _train_own_loop(job: OwnLoop, arms: Mapping[str, Arm], task: Task) -> Outcome:
    """Let a job train itself with the optimizer of a run, and record the optimizer's steps."""
    run = task.runs[0]
    optimizers = build_all(job, arms[run.arm], run.lr, run.weight_decay)
    first, *others = optimizers.values()
    history = History(run, first, None, others, arms[run.arm].decay_power)
    stepped: set[str] = set()
    pilot, final = run.stage == "pilot", run.stage == "final"
    untrained = _figures(job, job.evaluate, "validation", task.metric) if pilot else None
    first.register_step_pre_hook(lambda *_: history.before_step())
    first.register_step_post_hook(lambda *_: history.after_step())
    for name, optimizer in optimizers.items():
        optimizer.register_step_post_hook(lambda *_, name=name: stepped.add(name))
    fit(job, optimizers)
    if missing := [name for name in optimizers if name not in stepped]:
        which = f" of {', '.join(map(repr, missing))}" if len(optimizers) > 1 else ""
        raise ValueError(
            f"fit(optimizer) never called optimizer.step(){which}: it must train with the optimizer it is given"
        )
    return replace(_judge(job, job.evaluate, history, task.metric, test=final), untrained=untrained)


def _figures(job: Job | OwnLoop, evaluate: Evaluate, split: Split, metric: str) -> dict[str, float]:
    """Return the figures of a split, the primary metric among them."""
    return primary(figures(job, evaluate, split), split, metric)


def _judge(job: Job | OwnLoop, evaluate: Evaluate, history: History, metric: str, test: bool) -> Outcome:
    """Return the outcome of a run that trained to its end: validate the run, and test it if it is a finalist."""
    validation = _figures(job, evaluate, "validation", metric)
    tested = _figures(job, evaluate, "test", metric) if test else None
    if wrong := _not_finite(validation):
        return _outcome(job, history, "failed", f"evaluate('validation') returned {wrong}")
    if wrong := _not_finite(tested or {}):
        while_fine = "while every validation figure was finite"
        return _outcome(job, history, "failed", f"evaluate('test') returned {wrong}, {while_fine}")
    return replace(_outcome(job, history, "ok"), validation=validation, test=tested)


def _not_finite(found: Mapping[str, float]) -> str:
    """Return the figures that are inf or NaN as text, without the negative of another figure."""
    own = {name: value for name, value in found.items() if not (name.startswith("-") and name[1:] in found)}
    return ", ".join(f"{name}={value}" for name, value in own.items() if not math.isfinite(value))


def _outcome(job: Job | OwnLoop, history: History, status: Status, message: str = "") -> Outcome:
    """Return an outcome from the history of a run, without validation and test figures."""
    return Outcome(
        status=status,
        total_decay=history.total_decay,
        steps=job.steps if isinstance(job, Job) else history.steps,
        epochs=job.epochs,
        gradient_scale=history.gradient_scale if status == "ok" else None,
        fit=history.fit,
        training_loss=history.training_loss,
        curve=tuple(history.curve),
        message=message,
    )
