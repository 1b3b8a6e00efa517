"""Inspect a job before a study trains it: every piece must work, and the seed must fix how the job starts."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from adamas import user_code
from adamas.compare.job.evaluate import figures, groups_of, one_thread, primary, randomness, total
from adamas.compare.job.job import Job, JobFactory, OwnLoop
from adamas.compare.job.stacked import StackedWeights
from adamas.compare.study.arms import ARMS, Arm
from adamas.compare.study.margin import Margin
from adamas.compare.study.workload import Workload

_SAME = 1e-4  # relative difference of two losses that the order of summation on a GPU may cause
_ALIKE = 0.05  # relative difference of two figures on a GPU, where one example more may be classified correctly
_PEEKED = 20  # steps for which a scheduler is tried
_OF_A_CLASSIFIER = {"accuracy", "acc", "auc", "auroc", "auprc", "ap", "map", "f1", "precision", "recall", "iou", "miou"}
_HIGHER_IS_BETTER = _OF_A_CLASSIFIER | {"dice", "r2", "bleu", "rouge", "ndcg", "mrr", "psnr", "ssim", "reward"}
_OPPOSITE = {"neg", "negative", "minus", "error", "err", "loss", "regret"}  # f1_loss is better when lower


@dataclass(frozen=True)
class Problem:
    """A reason why a study cannot use a job.

    Attributes:
        where: The job as the user named it.
        what: What is wrong.
        remedy: What the user can do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """Return the problem as an error message has it."""
        return f"job={self.where!r}: {self.what}; {self.remedy}" if self.remedy else f"job={self.where!r}: {self.what}"


class _Fault(Exception):
    """A piece of a job is wrong: the arguments are what is wrong, and what the user can do about it."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)

    def of(self, workload: Workload) -> Problem:
        """Return the problem with the name of the job."""
        return Problem(workload.typed or workload.name, *self.args)


class _Start(NamedTuple):
    """A job that was just built, its validation figures, and numbers that show how it starts."""

    job: Job | OwnLoop
    validation: dict[str, float]
    fingerprint: tuple[float, float, float]


def inspect_job(workload: Workload, margin: Margin | None, arms: Mapping[str, Arm]) -> Workload:
    """Inspect a job, and return its workload with the fields that only the job can tell.

    Args:
        workload: The workload, with its device, and with its metric if the user named one.
        margin: The margin with which differences are compared; None takes the workload's.
        arms: The arms that will train the job; an arm that is not Adamas' own may refuse its weights.

    Raises:
        ValueError: a piece of the job is missing or wrong.
    """
    try:
        return _inspect(workload, margin, arms, None)
    except _Fault as fault:
        raise ValueError(str(fault.of(workload))) from fault.__cause__


def find_problems(workload: Workload, margin: Margin | None, arms: Mapping[str, Arm]) -> list[Problem]:
    """Inspect a job, and return the reasons why a study cannot use it; the list is empty if there are none."""
    faults: list[_Fault] = []
    try:
        _inspect(workload, margin, arms, faults)
    except _Fault as fault:
        faults.append(fault)
    return [fault.of(workload) for fault in faults]


def _inspect(
    workload: Workload, margin: Margin | None, arms: Mapping[str, Arm], faults: list[_Fault] | None
) -> Workload:
    """Build the job three times, check each of its pieces, and return the completed workload.

    The list `faults` takes the faults of pieces that are checked one by one; if it is None, the first fault is raised.
    """
    margin = margin or Margin.parse(workload.margin)
    # Standard output belongs to the verdict, and relative paths begin at the folder in which the tool was started.
    with contextlib.redirect_stdout(sys.stderr), contextlib.chdir("."), one_thread():
        _check_device(workload.device)
        with randomness(0, workload.device):
            factory = workload.load()
        job, here, there = _check_starts(factory, workload.device)
        metric = workload.metric or job.metric
        checks = [
            partial(_check_metric, here, metric, margin),
            partial(_check_evaluation, metric, here, there, workload.device),
            partial(_check_test, job, metric),
            partial(_check_schedule, job),
            partial(_check_scheduler, job),
            partial(_check_arms, job, arms),
        ]
        with randomness(0, workload.device):
            for check in checks:
                try:
                    check()
                except _Fault as fault:
                    if faults is None:
                        raise
                    faults.append(fault)
                    if metric not in here:
                        break
    stackable, groups = isinstance(job, Job) and job.stackable, job.parameter_groups is not None
    return replace(workload, metric=metric, stackable=stackable, groups=groups)


def _check_device(device: str) -> None:
    """Refuse a device that this machine does not have."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used ({reason}); it must be cpu, cuda or cuda:N") from None


def _check_starts(factory: JobFactory, device: str) -> tuple[Job | OwnLoop, dict[str, float], dict[str, float]]:
    """Check that one seed lets the job start alike and another seed does not, also after another run has trained.

    Returns:
        The job of seed 0, its validation figures, and those of a second job of seed 0.
    """
    start = partial(_start, factory, device)
    (job, here, first), (twin, there, again), (_, _, other) = start(0), start(0), start(1)
    if abs(first[0] - again[0]) > _SAME * abs(first[0]):
        raise _Fault(
            f"built twice from seed 0, it started with {first[0]:.6g} and {again[0]:.6g}",
            "the seed must fix weights, data order and augmentation (torch, NumPy and random are seeded before the "
            "call; seed your own generators in the function)",
        )
    if first == other:
        raise _Fault(
            f"built from the seeds 0 and 1, it started alike ({first[0]:.6g})",
            "the seed must choose the initial weights or the order of the data; otherwise all seeds give the same run",
        )
    if not set(map(id, _weights(job))).isdisjoint(map(id, _weights(twin))):  # allowed if each call resets the weights
        optimizer = ARMS["none"].build(groups_of(twin), 0.1, 0.0)
        optimizer.step()
        optimizer.zero_grad()
        later = start(0).fingerprint
        if any(abs(before - after) > _SAME * abs(before) for before, after in zip(first, later, strict=True)):
            raise _Fault(
                "two runs were given the same weights, and the second would go on where the first ended",
                "make the model inside the function",
            )
    return job, here, there


def _start(factory: JobFactory, device: str, seed: int) -> _Start:
    """Build the job and try its first step and its evaluation."""
    with randomness(seed, device):
        with _faults_of(f"the call with (seed={seed}, device={device!r})"):
            job = cast(object, factory(seed, device))
        if not isinstance(job, (Job, OwnLoop)):
            raise _Fault(f"it returned a {type(job).__name__}", "it must return an adamas.compare.Job or OwnLoop")
        first = _first_loss(job) if isinstance(job, Job) else _first_step(job)
        places = sorted({param.device.type for param in job.model.parameters()})
        if torch.device(device).type not in places:
            raise _Fault(
                f"device={device!r}, but the model's weights are on {' and '.join(places)}",
                "the function is given the device and must put model and data there",
            )
        with _faults_of('evaluate("validation")'):
            validation = figures(job, job.evaluate, "validation")
        # The loss alone would not tell seeds apart: if the last layer starts at zero, every first loss is the same.
        return _Start(job, validation, (first, _gradients(groups_of(job)), _magnitude(_weights(job))))


def _first_loss(job: Job) -> float:
    """Return the loss of the first batch, which depends on initial weights, data order and randomness."""
    with _faults_of("batches(0)"):
        epoch = job.batches(0)
        batch = next(iter(epoch), None)
    if batch is None:
        raise _Fault("batches(0) has no batch")
    with contextlib.suppress(TypeError):  # the length may be missing or unknown
        if (count := len(cast(Any, epoch))) != job.steps_per_epoch:
            raise _Fault(
                f"steps_per_epoch={job.steps_per_epoch}, but batches(0) has {count}",
                "give as many, as in steps_per_epoch=len(loader)",
            )
    job.model.train()
    with _faults_of("loss(batch)"):
        loss = total(job.loss(batch))
    if loss.numel() != 1:
        raise _Fault(f"loss(batch) has shape {tuple(loss.shape)}", "it must be one number: .mean() it")
    if not loss.requires_grad:
        raise _Fault(
            "loss(batch) does not depend on any weight that trains",
            "no .item(), .detach() or no_grad may stand between the model and the loss",
        )
    if not math.isfinite(loss.item()):
        raise _Fault(f"the first loss is {loss.item()}", "it must be finite at the initial weights")
    with _faults_of("the backward pass", "loss(batch) must leave backward() to the comparison"):
        loss.backward()
    if not _gradients(groups_of(job)):
        raise _Fault(
            "the loss gives none of the optimizer's weights a gradient",
            "Job.model and Job.parameter_groups must be what loss(batch) uses",
        )
    _check_layout(groups_of(job))
    if job.stackable:
        together = "loss(batch) of two copies of the weights together, as stackable=True has it,"
        with _faults_of(together, "without stackable=True runs train one by one, and may do anything"):
            StackedWeights({0: job}, [0, 0]).gradients([batch])
    return loss.item()


class _FirstStep(BaseException):
    """Raised into `fit` at its first step; an `except Exception` of the user's code does not catch it."""


def _first_step(job: OwnLoop) -> float:
    """Return the size of all gradients at the first step of `fit`, which depends on all that the first loss does."""
    optimizer = ARMS["none"].build(groups_of(job), 1e-3, 0.0)

    def stop(stepped: Optimizer, *_: object) -> None:
        _check_layout(stepped.param_groups)
        raise _FirstStep(_gradients(stepped.param_groups))

    optimizer.register_step_pre_hook(stop)
    try:
        job.model.train()
        with _faults_of("fit(optimizer)"):
            job.fit(optimizer)
    except _FirstStep as reached:
        (size,) = reached.args
    else:
        raise _Fault("fit(optimizer) never called optimizer.step()", "it must train with the optimizer it is given")
    if not 0 < size < math.inf:
        raise _Fault(
            f"at the first step of fit(optimizer) the gradients' absolute values sum to {size:g}, which must be finite "
            "and above 0",
            "OwnLoop.model and OwnLoop.parameter_groups must be what fit trains",
        )
    return size


def _check_layout(groups: Iterable[dict[str, Any]]) -> None:
    """Refuse sparse gradients; Adam and AdamW refuse them in torch too."""
    for param in (param for group in groups for param in group["params"] if param.grad is not None):
        if param.grad.layout != torch.strided:
            raise _Fault(
                f"the gradient of a weight of shape {tuple(param.shape)} is sparse, which neither Adam nor AdamW takes",
                "make the embedding with sparse=False",
            )


def _gradients(groups: Iterable[dict[str, Any]]) -> float:
    """Return the sum of the absolute values of all gradients; 0 if there are none."""
    return _magnitude(param.grad for group in groups for param in group["params"] if param.grad is not None)


def _weights(job: Job | OwnLoop) -> list[Tensor]:
    """Return the weights that the job trains; frozen weights may be shared by all runs."""
    return [param for group in groups_of(job) for param in group["params"] if param.requires_grad]


def _magnitude(tensors: Iterable[Tensor]) -> float:
    """Return the sum of the absolute values of all elements."""
    return math.fsum(tensor.detach().abs().sum(dtype=torch.float64).item() for tensor in tensors)


def _check_metric(found: Mapping[str, float], metric: str, margin: Margin) -> None:
    """Check that the primary metric is among the figures, that lower is better, and that the margin suits it."""
    if metric not in found:
        raise _Fault(
            f'evaluate("validation") returned {", ".join(found) or "nothing"}, but not {metric!r}',
            "name the figure to judge by in Job(metric=...) or with --metric",
        )
    if wrong := ", ".join(f"{name}={value}" for name, value in found.items() if not math.isfinite(value)):
        raise _Fault(
            f'evaluate("validation") returned {wrong} for the untrained weights',
            "every figure must be finite, or the run counts as failed: leave out what cannot be computed",
        )
    # The second pattern splits at digits too: eval_accuracy, acc@1 and acc1 are all better when higher.
    words = {*re.split(r"[^a-z0-9]+", metric.lower()), *re.split(r"[^a-z]+", metric.lower())}
    if words & _HIGHER_IS_BETTER and not words & _OPPOSITE:
        raise _Fault(
            f"metric={metric!r} is better when higher, and the comparison looks for the lowest",
            f"return the error instead, as in {{'error': 1 - {metric}}}",
        )
    if margin.relative and found[metric] < 0:
        raise _Fault(
            f"{metric} is {found[metric]:g}, and margin={margin} is a fraction of it, which must be above 0",
            "give the margin in the metric's own unit, as in --margin 0.002abs",
        )


def _check_evaluation(metric: str, here: Mapping[str, float], there: Mapping[str, float], device: str) -> None:
    """Check that equal weights give equal figures: a figure must not depend on earlier calls.

    Args:
        metric: The primary metric.
        here: The validation figures of the first job.
        there: The validation figures of a second job with the same seed.
        device: The device of the jobs; on a GPU, equal sums may differ a little.
    """
    first, second = here[metric], there.get(metric, math.nan)
    if not math.isclose(first, second, rel_tol=_SAME if device == "cpu" else _ALIKE):
        raise _Fault(
            f'built twice from seed 0, evaluate("validation") gave {metric} {first:.6g} and {second:.6g}',
            "it must follow from the model alone, not from earlier calls or from a random generator that goes on",
        )


def _check_test(job: Job | OwnLoop, metric: str) -> None:
    """Check that the test figures contain the primary metric; the figures are of untrained weights and are not kept."""
    with _faults_of('evaluate("test")'):
        primary(figures(job, job.evaluate, "test"), "test", metric)


def _check_schedule(job: Job | OwnLoop) -> None:
    """Check that the multiplier of the learning rate is a number from the first step to the last."""
    if isinstance(job, OwnLoop):
        return
    for fraction in (0.0, 0.5, (job.steps - 1) / job.steps):
        with _faults_of(f"schedule({fraction:.3g})"):
            factor: Any = job.schedule(fraction)
        if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
            raise _Fault(
                f"schedule({fraction:.3g}) returned {factor!r}",
                "it must return what the learning rate is multiplied by after that fraction of the steps, a number "
                ">= 0",
            )


def _check_scheduler(job: Job | OwnLoop) -> None:
    """Check that a torch scheduler steps without arguments, and follows the learning rate of the optimizer."""
    if isinstance(job, OwnLoop) or job.scheduler is None:
        return
    rates: dict[float, list[float]] = {1e-3: [], 2e-3: []}
    for lr, found in rates.items():
        optimizer = ARMS["none"].build(groups_of(job), lr, 0.0)
        optimizer.zero_grad()
        own_loop = "one that wants a figure, as ReduceLROnPlateau does, needs a loop of your own: an OwnLoop"
        with _faults_of("scheduler(optimizer), stepped after every step without arguments,", own_loop):
            scheduler = job.scheduler(optimizer)
            for _ in range(min(job.steps, _PEEKED)):
                found += [group["lr"] for group in optimizer.param_groups]
                optimizer.step()
                scheduler.step()
    one, other = rates.values()
    if one == other and any(one):
        raise _Fault(
            f"scheduler(optimizer) sets the same learning rates whatever the optimizer has ({one[0]:g} at first), so "
            "there is nothing to tune",
            'take them from the optimizer, as in max_lr=[group["lr"] for group in optimizer.param_groups]',
        )


def _check_arms(job: Job | OwnLoop, arms: Mapping[str, Arm]) -> None:
    """Let the optimizer of every arm take a step: some take certain weights only, as Muon takes matrices."""
    for arm in {"none": ARMS["none"], **arms}.values():
        with _faults_of(f"the first step of {arm.name} on its weights"):
            arm.build(groups_of(job), 1e-3, 1e-3).step()


@contextlib.contextmanager
def _faults_of(what: str, remedy: str = "") -> Generator[None]:
    """Turn an error of the user's code into a fault that names the piece, and a remedy if there is one."""
    try:
        yield
    except _Fault:
        raise
    except (Exception, SystemExit) as error:
        raise _Fault(f"{what} raised {user_code.told(error)}", remedy) from error
