"""Train runs from their first step to their outcomes, one alone or several together."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from adamas.compare.job.evaluate import Evaluate, figures, groups_of, primary, randomness
from adamas.compare.job.job import Job, JobFactory, OwnLoop
from adamas.compare.runner.copies import Copy, Single, Stack, make_copy
from adamas.compare.runner.history import look_steps
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
    copies = list(group.copies)
    pilot, final = task.stage == "pilot", task.stage == "final"
    untrained = figures(job, partial(group.evaluate, copies[0]), "validation") if pilot else None  # of one seed
    pruned: list[Copy] = []
    looks = set(look_steps(job.steps)) if final else set()
    for each in jobs.values():
        each.model.train()
    for step, of_seeds in enumerate(zip(*map(_batches, jobs.values()), strict=True), start=1):
        losses = group.gradients(of_seeds)
        for copy, loss in zip(group.copies, losses, strict=True):
            copy.history.saw(loss)
        group.drop([copy for copy, loss in zip(group.copies, losses, strict=True) if not math.isfinite(loss)])
        factor = 1.0 if job.scheduler else job.schedule((step - 1) / job.steps)
        for copy in group.copies:
            copy.step(factor)
        if task.may_prune and task.stage in SEARCH_STAGES:
            useless = [copy for copy in group.copies if copy.history.should_prune]
            pruned += useless
            group.drop(useless)
        if not group.copies:
            break
        if step in looks:
            for copy in group.copies:
                found = figures(jobs[copy.run.seed], partial(group.evaluate, copy), "validation")
                copy.history.look(primary(found, "validation", task.metric)[task.metric])
    outcomes = {copy.run: _outcome(job, copy, "pruned" if copy in pruned else "diverged") for copy in copies}
    for copy in group.copies:
        outcomes[copy.run] = _judge(jobs[copy.run.seed], partial(group.evaluate, copy), copy, task.metric, test=final)
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


def _train_own_loop(job: OwnLoop, arms: Mapping[str, Arm], task: Task) -> Outcome:
    """Let a job train itself with the optimizer of a run, and record the optimizer's steps."""
    run = task.runs[0]
    copy = make_copy(job, arms[run.arm], run, groups_of(job))
    untrained = figures(job, job.evaluate, "validation") if run.stage == "pilot" else None
    copy.optimizer.register_step_pre_hook(lambda *_: copy.history.before_step())
    copy.optimizer.register_step_post_hook(lambda *_: copy.history.after_step())
    job.model.train()
    job.fit(copy.optimizer)
    if copy.history.steps == 0:
        raise ValueError("fit(optimizer) never called optimizer.step(): it must train with the optimizer it is given")
    return replace(_judge(job, job.evaluate, copy, task.metric, test=run.stage == "final"), untrained=untrained)


def _judge(job: Job | OwnLoop, evaluate: Evaluate, copy: Copy, metric: str, test: bool) -> Outcome:
    """Return the outcome of a run that trained to its end: validate the run, and test it if it is a finalist."""
    validation = primary(figures(job, evaluate, "validation"), "validation", metric)
    tested = primary(figures(job, evaluate, "test"), "test", metric) if test else None
    if not all(map(math.isfinite, [*validation.values(), *(tested or {}).values()])):
        return _outcome(job, copy, "failed")
    return replace(_outcome(job, copy, "ok"), validation=validation, test=tested)


def _outcome(job: Job | OwnLoop, copy: Copy, status: Status) -> Outcome:
    """Return an outcome from the history of a run, without validation and test figures."""
    history = copy.history
    return Outcome(
        status=status,
        total_decay=history.total_decay,
        steps=job.steps if isinstance(job, Job) else history.steps,
        epochs=job.epochs,
        gradient_scale=history.gradient_scale if status == "ok" else None,
        fit=history.fit,
        training_loss=history.training_loss,
        curve=tuple(history.curve),
    )
