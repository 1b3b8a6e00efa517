"""Train cells: the loop of a run, whether it trains one copy of the weights or several together."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from adamas.compare.job.job import Job, JobFactory, OwnLoop, Split
from adamas.compare.runner.copies import Copy, Lone, Stack, groups_of, make_copy
from adamas.compare.runner.history import look_steps
from adamas.compare.runner.repeating import RepetitionError
from adamas.compare.runner.tasks import Task
from adamas.compare.study.arms import Arm
from adamas.compare.study.run import SEARCH_STAGES, Outcome

log = logging.getLogger(__name__)

Evaluate = Callable[[Split], Mapping[str, float]]


def run(factory: JobFactory, device: str, arms: Mapping[str, Arm], task: Task) -> list[Outcome]:
    """Train the cells of a task, together where the job lets several copies share a pass, else one after the other.

    Args:
        factory: makes the job from (seed, device).
        device: where it trains.
        arms: by name, all that the cells need.
        task: the cells; they agree in stage and variant, and in their seed unless the workload lets seeds share a pass.

    Returns:
        An outcome a cell. The caller's random streams are left as they were.
    """
    started = time.perf_counter()
    try:
        outcomes = begin(factory, device, arms, task)
    except RepetitionError as error:
        log.warning("%s: training anew, without repeating passes", error)
        outcomes = begin(factory, device, arms, task, repeats=False)
    seconds = (time.perf_counter() - started) / len(outcomes)
    outcomes = [replace(outcome, seconds=seconds) for outcome in outcomes]
    rest = task.cells[len(outcomes) :]
    return outcomes + (run(factory, device, arms, replace(task, cells=rest)) if rest else [])


def begin(factory: JobFactory, device: str, arms: Mapping[str, Arm], task: Task, repeats: bool = True) -> list[Outcome]:
    """Train the first cells of a task: all of them, or one where the job does not let several share a pass."""
    with randomness(task.seed, device):
        job = factory(task.seed, device)
        if isinstance(job, OwnLoop):
            return [own_loop(job, arms, task)]
        now = task if job.stackable else replace(task, cells=task.cells[:1])
        jobs = {task.seed: job, **{seed: another(factory, device, seed) for seed in now.seeds[1:]}}
        return train(jobs, arms, now, repeats)


def another(factory: JobFactory, device: str, seed: int) -> Job:
    """The job of a further seed, which draws nothing once it is made."""
    with randomness(seed, device):
        job = factory(seed, device)
    if not isinstance(job, Job):
        raise TypeError(f"the job of seed {seed} is a {type(job).__name__}, that of another seed a Job")
    return job


@contextlib.contextmanager
def randomness(seed: int, device: str) -> Generator[None]:
    """Seed Python, NumPy and torch, and put everything back afterwards."""
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def train(jobs: Mapping[int, Job], arms: Mapping[str, Arm], task: Task, repeats: bool = True) -> list[Outcome]:
    """Train the cells of a task on the jobs of their seeds, to the end or until they are infeasible.

    Args:
        jobs: by seed.
        arms: by name.
        task: the cells.
        repeats: whether a stack may repeat its passes from a recording.
    """
    first, *others = task.cells
    job = jobs[first.seed]
    group = Stack(jobs, arms, task.cells, repeats) if others else Lone(job, arms[first.arm], first)
    copies = list(group.copies)
    pilot, final = task.stage == "pilot", task.stage == "final"
    untrained = figures(job, partial(group.evaluate, copies[0]), "validation") if pilot else None  # of one seed
    given_up: list[Copy] = []
    looks = set(look_steps(job.steps)) if final else set()
    for each in jobs.values():
        each.model.train()
    for step, of_seeds in enumerate(zip(*map(batches, jobs.values()), strict=True), start=1):
        losses = group.gradients(of_seeds)
        for copy, loss in zip(group.copies, losses, strict=True):
            copy.history.saw(loss)
        group.drop([copy for copy, loss in zip(group.copies, losses, strict=True) if not math.isfinite(loss)])
        factor = 1.0 if job.scheduler else job.schedule((step - 1) / job.steps)
        for copy in group.copies:
            copy.step(factor)
        if task.may_give_up and task.stage in SEARCH_STAGES:
            hopeless = [copy for copy in group.copies if copy.history.hopeless]
            given_up += hopeless
            group.drop(hopeless)
        if not group.copies:
            break
        if step in looks:
            for copy in group.copies:
                found = figures(jobs[copy.cell.seed], partial(group.evaluate, copy), "validation")
                copy.history.look(primary(found, "validation", task.metric)[task.metric])
    outcomes = {copy.cell: outcome(job, copy, feasible=False, given_up=copy in given_up) for copy in copies}
    for copy in group.copies:
        outcomes[copy.cell] = judged(jobs[copy.cell.seed], partial(group.evaluate, copy), copy, task.metric, test=final)
    return [replace(outcomes[cell], untrained=untrained) for cell in task.cells]


def batches(job: Job) -> Iterator[Any]:
    """Every batch of the run; an epoch has as many as the job promised."""
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


def own_loop(job: OwnLoop, arms: Mapping[str, Arm], task: Task) -> Outcome:
    """Let a job train itself with a cell's optimizer, and watch the optimizer."""
    cell = task.cells[0]
    copy = make_copy(job, arms[cell.arm], cell, groups_of(job))
    untrained = figures(job, job.evaluate, "validation") if cell.stage == "pilot" else None
    copy.optimizer.register_step_pre_hook(lambda *_: copy.history.before_step())
    copy.optimizer.register_step_post_hook(lambda *_: copy.history.after_step())
    job.model.train()
    job.fit(copy.optimizer)
    if copy.history.steps == 0:
        raise ValueError("fit(optimizer) never called optimizer.step(): it must train with the optimizer it is given")
    return replace(judged(job, job.evaluate, copy, task.metric, test=cell.stage == "final"), untrained=untrained)


def judged(job: Job | OwnLoop, evaluate: Evaluate, copy: Copy, metric: str, test: bool) -> Outcome:
    """The outcome of a run that went to its end: validate it, test finalists only."""
    validation = primary(figures(job, evaluate, "validation"), "validation", metric)
    tested = primary(figures(job, evaluate, "test"), "test", metric) if test else None
    if not all(map(math.isfinite, [*validation.values(), *(tested or {}).values()])):
        return outcome(job, copy, feasible=False)
    return replace(outcome(job, copy, feasible=True), validation=validation, test=tested)


def primary(found: dict[str, float], split: Split, metric: str) -> dict[str, float]:
    """The figures of a split, of which the primary metric must be one."""
    if metric not in found:
        raise ValueError(
            f"evaluate({split!r}) returned {', '.join(found) or 'nothing'}, but not {metric!r}, which the comparison "
            "judges by; every split must be given the same names"
        )
    return found


def outcome(job: Job | OwnLoop, copy: Copy, feasible: bool, given_up: bool = False) -> Outcome:
    """What a run's history says, its figures left out."""
    history = copy.history
    return Outcome(
        feasible=feasible,
        given_up=given_up,
        total_decay=history.total_decay,
        steps=job.steps if isinstance(job, Job) else history.steps,
        epochs=job.epochs,
        gradient_scale=history.gradient_scale if feasible else None,
        fit=history.fit,
        training_loss=history.training_loss,
        curve=tuple(history.curve),
    )


def figures(job: Job | OwnLoop, evaluate: Evaluate, split: Split) -> dict[str, float]:
    """Evaluate a split without gradients, in evaluation mode; no random number of the training is used up."""
    job.model.eval()
    devices = [param.device for param in job.model.parameters() if param.is_cuda][:1]
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        found: Any = evaluate(split)
    job.model.train()
    if not isinstance(found, Mapping):
        raise TypeError(f"evaluate({split!r}) returned a {type(found).__name__}; it must return figures by name")
    try:
        return {name: float(value) for name, value in found.items()}
    except (TypeError, ValueError, RuntimeError):
        kinds = ", ".join(f"{name}: {type(value).__name__}" for name, value in found.items())
        raise TypeError(f"evaluate({split!r}) returned {kinds}; every figure must be one number") from None
