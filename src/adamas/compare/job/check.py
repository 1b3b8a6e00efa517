"""Look a job over before anything is trained: is every piece there, and does the seed fix what it must?"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from adamas import user_code
from adamas.compare import workloads
from adamas.compare.job.job import Job, OwnLoop
from adamas.compare.runner.copies import Stack, groups_of, total
from adamas.compare.runner.training import figures, primary, randomness
from adamas.compare.study.arms import ARMS, Arm
from adamas.compare.study.margin import Margin
from adamas.compare.study.run import Cell
from adamas.compare.study.workload import Workload

SAME = 1e-4  # relative difference of losses that a GPU's order of summation may make
ALIKE = 0.05  # of a figure that may count: there, an example more or less may be right
PEEKED = 20  # steps of a scheduler that are looked at
CLASSIFIED = {
    "accuracy",
    "acc",
    "auc",
    "auroc",
    "auprc",
    "ap",
    "map",
    "f1",
    "precision",
    "recall",
    "iou",
    "miou",
    "dice",
}
HIGHER_IS_BETTER = CLASSIFIED | {"r2", "bleu", "rouge", "ndcg", "mrr", "psnr", "ssim", "reward"}
OPPOSITE = {"neg", "negative", "minus", "error", "err", "loss", "regret"}  # f1_loss is lower when better


def find(
    name: str,
    device: str,
    metric: str | None,
    margin: Margin | None = None,
    arms: Mapping[str, Arm] | None = None,
) -> Workload:
    """The built-in workload called `name`, or the user's own job, looked over.

    Args:
        name: of a built-in workload; or "my_job.py:job", "package.module:job"; without a function, "job" is meant.
        device: where it trains.
        metric: the primary one; None leaves it to the workload or the job.
        margin: that differences of it will be held against; None leaves it to the workload.
        arms: that are to train it; those that are not Adamas' own may refuse its weights.

    Raises:
        ValueError: there is no such workload, or a piece of the job is missing or wrong.
    """
    workload = of_user(name) if ":" in name or name.endswith(".py") else workloads.find(name)
    workload = replace(workload, device=device, metric=metric or workload.metric)
    # Standard output is the verdict's, and the folder that the tool was started in is where its paths begin.
    with contextlib.redirect_stdout(sys.stderr), contextlib.chdir("."), one_thread():
        return inspected(workload, margin or Margin.parse(workload.margin), arms or {})


@contextlib.contextmanager
def one_thread() -> Generator[None]:
    """As in a worker; two would wait for each other while the workers, which are starting, keep all cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def of_user(name: str) -> Workload:
    """A job of the user's own; its file's contents are part of what the study is."""
    source, _, function = name.rpartition(":") if ":" in name else (name, ":", "job")
    path = Path(source)
    called = path.stem if path.suffix == ".py" else source
    if path.suffix != ".py":
        path = Path(user_code.load(source, name, "job").__file__ or "")
    is_file = path.is_file()
    return Workload(
        name=called if function == "job" else f"{called}:{function}",
        factory=f"{path.resolve() if is_file and source.endswith('.py') else source}:{function}",
        metric="",
        summary=f"The job {function} of {source}.",
        revision=hashlib.sha256(path.read_bytes()).hexdigest()[:12] if is_file else 1,
        typed=name,
    )


def inspected(workload: Workload, margin: Margin, arms: Mapping[str, Arm]) -> Workload:
    """Build the job, take the gradient of a batch, validate, take a step; fill in what only the job knows.

    The job is built three times, so that what a seed fixes can be seen: twice from one seed it must start alike, and
    from another it must not.
    """
    where = workload.typed or workload.name
    check_device(workload.device)
    with randomness(0, workload.device):
        factory = workload.load()

    def start(seed: int) -> tuple[Job | OwnLoop, dict[str, float], tuple[float, ...]]:
        with randomness(seed, workload.device):
            with blamed(where, f"the call with (seed={seed}, device={workload.device!r})"):
                job = cast(object, factory(seed, workload.device))
            if not isinstance(job, (Job, OwnLoop)):
                raise ValueError(
                    f"job={where!r} returned a {type(job).__name__}; it must return an adamas.compare.Job or OwnLoop"
                )
            found = first_loss(where, job) if isinstance(job, Job) else first_step(where, job)
            check_place(where, job, workload.device)
            with blamed(where, 'evaluate("validation")'):
                validation = figures(job, job.evaluate, "validation")
            # Where the last layer begins at zero, every first loss is the same.
            return job, validation, (found, gradients(groups_of(job)), magnitude(weights(job)))

    (job, here, first), (twin, there, again), (_, _, other) = start(0), start(0), start(1)
    if abs(first[0] - again[0]) > SAME * abs(first[0]):
        raise ValueError(
            f"job={where!r}: built twice from seed 0, it started with {first[0]:.6g} and {again[0]:.6g}; the seed must "
            "fix weights, data order and augmentation (torch, NumPy and random are seeded before the call; generators "
            "of your own are yours to seed)"
        )
    if first == other:
        raise ValueError(
            f"job={where!r}: built from the seeds 0 and 1, it started alike ({first[0]:.6g}); the seed must choose the "
            "initial weights or the order of the data, or every pair of runs would be the same pair"
        )
    if not set(map(id, weights(job))).isdisjoint(map(id, weights(twin))):  # fine, if each call sets them anew
        optimizer = ARMS["none"].build(groups_of(twin), 0.1, 0.0)
        optimizer.step()
        optimizer.zero_grad()
        *_, later = start(0)
        if any(abs(before - after) > SAME * abs(before) for before, after in zip(first, later, strict=True)):
            raise ValueError(
                f"job={where!r}: two runs were given the same weights, and the second would go on where the first "
                "ended; make the model inside the function"
            )
    metric = workload.metric or job.metric
    check_metric(where, here, metric, margin)
    check_evaluation(where, metric, here[metric], there.get(metric, math.nan), workload.device)
    with blamed(where, 'evaluate("test")'):  # of untrained weights, and seen by nobody: else the finals might fail
        primary(figures(job, job.evaluate, "test"), "test", metric)
    check_arms(where, job, arms)
    stackable, groups = isinstance(job, Job) and job.stackable, job.parameter_groups is not None
    return replace(workload, metric=metric, stackable=stackable, groups=groups)


def check_device(device: str) -> None:
    """Refuse a device that is not there."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used ({reason}); it must be cpu, cuda or cuda:N") from None


def check_place(where: str, job: Job | OwnLoop, device: str) -> None:
    """See that the model is where it is to train."""
    places = sorted({param.device.type for param in job.model.parameters()})
    if torch.device(device).type not in places:
        raise ValueError(
            f"job={where!r}: device={device!r}, but the model's weights are on {' and '.join(places)}; the function is "
            "given the device and must put model and data there"
        )


def first_loss(where: str, job: Job) -> float:
    """The loss of the first batch, which follows from initial weights, data order and randomness."""
    with blamed(where, "batches(0)"):
        epoch = job.batches(0)
        batch = next(iter(epoch), None)
    if batch is None:
        raise ValueError(f"job={where!r}: batches(0) has no batch")
    with contextlib.suppress(TypeError):  # what has no length, or does not know it
        if (count := len(cast(Any, epoch))) != job.steps_per_epoch:
            raise ValueError(
                f"job={where!r}: steps_per_epoch={job.steps_per_epoch}, but batches(0) has {count}; give as many, as "
                "in steps_per_epoch=len(loader)"
            )
    job.model.train()
    with blamed(where, "loss(batch)"):
        loss = total(job.loss(batch))
    if loss.numel() != 1:
        raise ValueError(f"job={where!r}: loss(batch) has shape {tuple(loss.shape)}; it must be one number: .mean() it")
    if not loss.requires_grad:
        raise ValueError(
            f"job={where!r}: loss(batch) does not depend on any weight that trains; no .item(), .detach() or no_grad "
            "may stand between the model and the loss"
        )
    if not math.isfinite(loss.item()):
        raise ValueError(f"job={where!r}: the first loss is {loss.item()}; it must be finite at the initial weights")
    with blamed(where, "the backward pass", "loss(batch) must leave backward() to the comparison"):
        loss.backward()
    if not gradients(groups_of(job)):
        raise ValueError(
            f"job={where!r}: the loss gives none of the optimizer's weights a gradient; "
            "Job.model and Job.parameter_groups must be what loss(batch) uses"
        )
    check_layout(where, groups_of(job))
    check_schedule(where, job)
    check_scheduler(where, job)
    if job.stackable:
        together = "loss(batch) of two copies of the weights together, as stackable=True has it,"
        with blamed(where, together, "without stackable=True runs train one by one, and may do anything"):
            Stack({0: job}, ARMS, [Cell("search", "none", lr, 0.0, 0) for lr in (1e-3, 3e-3)]).gradients([batch])
    return loss.item()


class FirstStep(BaseException):
    """Raised into `fit` at its first step; no error, so that no `except Exception` of the user's holds it up."""


def first_step(where: str, job: OwnLoop) -> float:
    """The size of all gradients at the first step of `fit`, which follows from all that the first loss follows from."""
    optimizer = ARMS["none"].build(groups_of(job), 1e-3, 0.0)

    def stop(stepped: Optimizer, *_: object) -> None:
        check_layout(where, stepped.param_groups)
        raise FirstStep(gradients(stepped.param_groups))

    optimizer.register_step_pre_hook(stop)
    try:
        job.model.train()
        with blamed(where, "fit(optimizer)"):
            job.fit(optimizer)
    except FirstStep as reached:
        (size,) = reached.args
    else:
        raise ValueError(
            f"job={where!r}: fit(optimizer) never called optimizer.step(); it must train with the optimizer it is given"
        )
    if not 0 < size < math.inf:
        raise ValueError(
            f"job={where!r}: at the first step of fit(optimizer) the gradients' absolute values sum to {size:g}, which "
            "must be finite and above 0; OwnLoop.model and OwnLoop.parameter_groups must be what fit trains"
        )
    return size


def gradients(groups: Iterable[dict[str, Any]]) -> float:
    """Sum of the absolute values of all gradients; 0 where there are none."""
    return magnitude(param.grad for group in groups for param in group["params"] if param.grad is not None)


def weights(job: Job | OwnLoop) -> list[Tensor]:
    """What the job trains; a part that does not may well be made once for all runs."""
    return [param for group in groups_of(job) for param in group["params"] if param.requires_grad]


def magnitude(tensors: Iterable[Tensor]) -> float:
    """Sum of all absolute values."""
    return math.fsum(tensor.detach().abs().sum(dtype=torch.float64).item() for tensor in tensors)


def check_layout(where: str, groups: Iterable[dict[str, Any]]) -> None:
    """Refuse sparse gradients, as Adam and AdamW do, torch's too."""
    for param in (param for group in groups for param in group["params"] if param.grad is not None):
        if param.grad.layout != torch.strided:
            raise ValueError(
                f"job={where!r}: the gradient of a weight of shape {tuple(param.shape)} is sparse, which neither Adam "
                "nor AdamW takes; make the embedding with sparse=False"
            )


def check_schedule(where: str, job: Job) -> None:
    """See that the learning rate's multiplier is a number all the way."""
    for fraction in (0.0, 0.5, (job.steps - 1) / job.steps):
        with blamed(where, f"schedule({fraction:.3g})"):
            factor: Any = job.schedule(fraction)
        if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
            raise ValueError(
                f"job={where!r}: schedule({fraction:.3g}) returned {factor!r}; it must return what the learning rate "
                "is multiplied by after that fraction of the steps, a number >= 0"
            )


def check_scheduler(where: str, job: Job) -> None:
    """See that a torch scheduler steps without arguments, and follows the learning rate that it finds."""
    if job.scheduler is None:
        return
    courses: list[list[float]] = []
    for lr in (1e-3, 2e-3):
        optimizer, course = ARMS["none"].build(groups_of(job), lr, 0.0), []
        optimizer.zero_grad()
        needless = "one that wants a figure, as ReduceLROnPlateau does, needs a loop of your own: an OwnLoop"
        with blamed(where, "scheduler(optimizer), stepped after every step without arguments,", needless):
            scheduler = job.scheduler(optimizer)
            for _ in range(min(job.steps, PEEKED)):
                course += [group["lr"] for group in optimizer.param_groups]
                optimizer.step()
                scheduler.step()
        courses.append(course)
    if courses[0] == courses[1] and any(courses[0]):
        raise ValueError(
            f"job={where!r}: scheduler(optimizer) sets the same learning rates whatever the optimizer has "
            f"({courses[0][0]:g} at first), so there is nothing to tune; take them from the optimizer, as in "
            'max_lr=[group["lr"] for group in optimizer.param_groups]'
        )


def check_metric(where: str, found: Mapping[str, float], metric: str, margin: Margin) -> None:
    """See that the primary metric is among the figures, that lower is better, and that the margin suits it."""
    if metric not in found:
        raise ValueError(
            f'job={where!r}: evaluate("validation") returned {", ".join(found) or "nothing"}, but not {metric!r}; '
            "name the figure to judge by in Job(metric=...) or with --metric"
        )
    if wrong := {name: value for name, value in found.items() if not math.isfinite(value)}:
        shown = ", ".join(f"{name}={value}" for name, value in wrong.items())
        raise ValueError(
            f'job={where!r}: evaluate("validation") returned {shown} for the untrained weights; every figure must be '
            "finite, or the run counts as diverged: leave out what cannot be computed"
        )
    # eval_accuracy, acc@1 and acc1 too
    told = {*re.split(r"[^a-z0-9]+", metric.lower()), *re.split(r"[^a-z]+", metric.lower())}
    if told & HIGHER_IS_BETTER and not told & OPPOSITE:
        raise ValueError(
            f"job={where!r}: metric={metric!r} is better when higher, and the comparison looks for the lowest; return "
            f"the error instead, as in {{'error': 1 - {metric}}}"
        )
    if margin.relative and found[metric] < 0:
        raise ValueError(
            f"job={where!r}: {metric} is {found[metric]:g}, and margin={margin} is a fraction of it, which must be "
            "above 0; give the margin in the metric's own unit, as in --margin 0.002abs"
        )


def check_evaluation(where: str, metric: str, here: float, there: float, device: str) -> None:
    """See that a figure of the same weights is the same: what earlier calls left must not be in it.

    Args:
        where: the job, for errors.
        metric: the figure's name.
        here: it, when the job was made.
        there: it, when the job was made again.
        device: whose sums may differ from one another.
    """
    if not math.isclose(here, there, rel_tol=SAME if device == "cpu" else ALIKE):
        raise ValueError(
            f'job={where!r}: built twice from seed 0, evaluate("validation") gave {metric} {here:.6g} and {there:.6g}; '
            "it must follow from the model alone, not from what earlier calls left, or from random numbers of a "
            "generator that goes on"
        )


def check_arms(where: str, job: Job | OwnLoop, arms: Mapping[str, Arm]) -> None:
    """Let every optimizer take a step: some are for some weights only, as Muon is for matrices."""
    for arm in {"none": ARMS["none"], **arms}.values():
        with blamed(where, f"the first step of {arm.name} on its weights"):
            arm.build(groups_of(job), 1e-3, 1e-3).step()


@contextlib.contextmanager
def blamed(where: str, what: str, remedy: str = "") -> Generator[None]:
    """Turn what the user's code raises into an error that says where, and what may help."""
    try:
        yield
    except (Exception, SystemExit) as error:
        hint = f"; {remedy}" if remedy else ""
        raise ValueError(f"job={where!r}: {what} raised {user_code.told(error)}{hint}") from error
