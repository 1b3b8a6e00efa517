"""Look a job over before a study trains it: is every piece there, and does the seed fix what it must fix?"""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from adamas import user_code
from adamas.compare.job.evaluate import figures, groups_of, one_thread, primary, randomness, total
from adamas.compare.job.job import Job, OwnLoop
from adamas.compare.job.stacked import StackedWeights
from adamas.compare.study.arms import ARMS, Arm
from adamas.compare.study.margin import Margin
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


class UnusableJobError(ValueError):
    """A job cannot be used; the error carries the problem as data."""

    def __init__(self, where: str, what: str, remedy: str = "") -> None:
        self.problem = Problem(where, what, remedy)
        super().__init__(str(self.problem))


def inspect_job(workload: Workload, margin: Margin | None = None, arms: Mapping[str, Arm] | None = None) -> Workload:
    """Look a job over, and return its workload with what only the job knows filled in.

    Args:
        workload: The job's workload, with its device, and its metric where the user named one.
        margin: The margin that differences will be compared with; None takes the workload's.
        arms: The arms that will train the job; an arm that is not Adamas' own may refuse its weights.

    Raises:
        UnusableJobError: a piece of the job is missing or wrong.
    """
    # Standard output belongs to the verdict, and relative paths begin at the folder that the tool was started in.
    with contextlib.redirect_stdout(sys.stderr), contextlib.chdir("."), one_thread():
        return inspected(workload, margin or Margin.parse(workload.margin), arms or {})


def inspected(
    workload: Workload, margin: Margin, arms: Mapping[str, Arm], found: list[Problem] | None = None
) -> Workload:
    """Build the job three times, look at its pieces, and fill in what only the job knows.

    Two jobs that are built from one seed must start alike; a job that is built from another seed must not.

    Args:
        workload: The job's workload.
        margin: The margin that differences will be compared with.
        arms: The arms that will train the job.
        found: Takes the problems of pieces that are looked at one by one; None raises the first problem.
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
                raise UnusableJobError(
                    where, f"it returned a {type(job).__name__}", "it must return an adamas.compare.Job or OwnLoop"
                )
            first = first_loss(where, job) if isinstance(job, Job) else first_step(where, job)
            check_place(where, job, workload.device)
            with blamed(where, 'evaluate("validation")'):
                validation = figures(job, job.evaluate, "validation")
            # If the last layer begins at zero, every first loss is the same.
            return job, validation, (first, gradients(groups_of(job)), magnitude(weights(job)))

    (job, here, first), (twin, there, again), (_, _, other) = start(0), start(0), start(1)
    check_seeds(where, first, again, other)
    if not set(map(id, weights(job))).isdisjoint(map(id, weights(twin))):  # fine, if each call sets them again
        optimizer = ARMS["none"].build(groups_of(twin), 0.1, 0.0)
        optimizer.step()
        optimizer.zero_grad()
        *_, later = start(0)
        if any(abs(before - after) > SAME * abs(before) for before, after in zip(first, later, strict=True)):
            raise UnusableJobError(
                where,
                "two runs were given the same weights, and the second would go on where the first ended",
                "make the model inside the function",
            )
    metric = workload.metric or job.metric
    looks: list[Callable[[], object]] = [
        lambda: check_metric(where, here, metric, margin),
        lambda: check_evaluation(where, metric, here[metric], there.get(metric, math.nan), workload.device),
        lambda: check_test(where, job, metric),
        lambda: check_schedule(where, job),
        lambda: check_scheduler(where, job),
        lambda: check_arms(where, job, arms),
    ]
    with randomness(0, workload.device):
        for look in looks:
            try:
                look()
            except UnusableJobError as error:
                if found is None:
                    raise
                found.append(error.problem)
                if metric not in here:
                    break
    stackable, groups = isinstance(job, Job) and job.stackable, job.parameter_groups is not None
    return replace(workload, metric=metric, stackable=stackable, groups=groups)


def find_problems(workload: Workload, margin: Margin | None, arms: Mapping[str, Arm]) -> list[Problem]:
    """Look a job over, and return the reasons why a study cannot use it; the list is empty if there are none."""
    found: list[Problem] = []
    with contextlib.redirect_stdout(sys.stderr), contextlib.chdir("."), one_thread():
        try:
            inspected(workload, margin or Margin.parse(workload.margin), arms, found)
        except UnusableJobError as error:
            found.append(error.problem)
    return found


def check_seeds(where: str, first: Sequence[float], again: Sequence[float], other: Sequence[float]) -> None:
    """Check that a seed fixes how the job starts, and that another seed lets it start otherwise."""
    if abs(first[0] - again[0]) > SAME * abs(first[0]):
        raise UnusableJobError(
            where,
            f"built twice from seed 0, it started with {first[0]:.6g} and {again[0]:.6g}",
            "the seed must fix weights, data order and augmentation (torch, NumPy and random are seeded before the "
            "call; generators of your own are yours to seed)",
        )
    if first == other:
        raise UnusableJobError(
            where,
            f"built from the seeds 0 and 1, it started alike ({first[0]:.6g})",
            "the seed must choose the initial weights or the order of the data, or every pair of runs would be the "
            "same pair",
        )


def check_test(where: str, job: Job | OwnLoop, metric: str) -> None:
    """Check that the test split has the primary metric: of untrained weights, and nobody sees the figure."""
    with blamed(where, 'evaluate("test")'):
        primary(figures(job, job.evaluate, "test"), "test", metric)


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
        raise UnusableJobError(
            where,
            f"device={device!r}, but the model's weights are on {' and '.join(places)}",
            "the function is given the device and must put model and data there",
        )


def first_loss(where: str, job: Job) -> float:
    """The loss of the first batch, which follows from initial weights, data order and randomness."""
    with blamed(where, "batches(0)"):
        epoch = job.batches(0)
        batch = next(iter(epoch), None)
    if batch is None:
        raise UnusableJobError(where, "batches(0) has no batch")
    with contextlib.suppress(TypeError):  # what has no length, or does not know it
        if (count := len(cast(Any, epoch))) != job.steps_per_epoch:
            raise UnusableJobError(
                where,
                f"steps_per_epoch={job.steps_per_epoch}, but batches(0) has {count}",
                "give as many, as in steps_per_epoch=len(loader)",
            )
    job.model.train()
    with blamed(where, "loss(batch)"):
        loss = total(job.loss(batch))
    if loss.numel() != 1:
        raise UnusableJobError(where, f"loss(batch) has shape {tuple(loss.shape)}", "it must be one number: .mean() it")
    if not loss.requires_grad:
        raise UnusableJobError(
            where,
            "loss(batch) does not depend on any weight that trains",
            "no .item(), .detach() or no_grad may stand between the model and the loss",
        )
    if not math.isfinite(loss.item()):
        raise UnusableJobError(where, f"the first loss is {loss.item()}", "it must be finite at the initial weights")
    with blamed(where, "the backward pass", "loss(batch) must leave backward() to the comparison"):
        loss.backward()
    if not gradients(groups_of(job)):
        raise UnusableJobError(
            where,
            "the loss gives none of the optimizer's weights a gradient",
            "Job.model and Job.parameter_groups must be what loss(batch) uses",
        )
    check_layout(where, groups_of(job))
    if job.stackable:
        together = "loss(batch) of two copies of the weights together, as stackable=True has it,"
        with blamed(where, together, "without stackable=True runs train one by one, and may do anything"):
            StackedWeights({0: job}, [0, 0]).gradients([batch])
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
        raise UnusableJobError(
            where, "fit(optimizer) never called optimizer.step()", "it must train with the optimizer it is given"
        )
    if not 0 < size < math.inf:
        raise UnusableJobError(
            where,
            f"at the first step of fit(optimizer) the gradients' absolute values sum to {size:g}, which "
            "must be finite and above 0",
            "OwnLoop.model and OwnLoop.parameter_groups must be what fit trains",
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
            raise UnusableJobError(
                where,
                f"the gradient of a weight of shape {tuple(param.shape)} is sparse, which neither Adam nor AdamW takes",
                "make the embedding with sparse=False",
            )


def check_schedule(where: str, job: Job | OwnLoop) -> None:
    """See that the learning rate's multiplier is a number all the way."""
    if isinstance(job, OwnLoop):
        return
    for fraction in (0.0, 0.5, (job.steps - 1) / job.steps):
        with blamed(where, f"schedule({fraction:.3g})"):
            factor: Any = job.schedule(fraction)
        if not (isinstance(factor, (int, float)) and 0 <= factor < math.inf):
            raise UnusableJobError(
                where,
                f"schedule({fraction:.3g}) returned {factor!r}",
                "it must return what the learning rate "
                "is multiplied by after that fraction of the steps, a number >= 0",
            )


def check_scheduler(where: str, job: Job | OwnLoop) -> None:
    """See that a torch scheduler steps without arguments, and follows the learning rate that it finds."""
    if isinstance(job, OwnLoop) or job.scheduler is None:
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
        raise UnusableJobError(
            where,
            f"scheduler(optimizer) sets the same learning rates whatever the optimizer has "
            f"({courses[0][0]:g} at first), so there is nothing to tune",
            'take them from the optimizer, as in max_lr=[group["lr"] for group in optimizer.param_groups]',
        )


def check_metric(where: str, found: Mapping[str, float], metric: str, margin: Margin) -> None:
    """See that the primary metric is among the figures, that lower is better, and that the margin suits it."""
    if metric not in found:
        raise UnusableJobError(
            where,
            f'evaluate("validation") returned {", ".join(found) or "nothing"}, but not {metric!r}',
            "name the figure to judge by in Job(metric=...) or with --metric",
        )
    if wrong := {name: value for name, value in found.items() if not math.isfinite(value)}:
        shown = ", ".join(f"{name}={value}" for name, value in wrong.items())
        raise UnusableJobError(
            where,
            f'evaluate("validation") returned {shown} for the untrained weights',
            "every figure must be finite, or the run counts as diverged: leave out what cannot be computed",
        )
    # eval_accuracy, acc@1 and acc1 too
    told = {*re.split(r"[^a-z0-9]+", metric.lower()), *re.split(r"[^a-z]+", metric.lower())}
    if told & HIGHER_IS_BETTER and not told & OPPOSITE:
        raise UnusableJobError(
            where,
            f"metric={metric!r} is better when higher, and the comparison looks for the lowest",
            f"return the error instead, as in {{'error': 1 - {metric}}}",
        )
    if margin.relative and found[metric] < 0:
        raise UnusableJobError(
            where,
            f"{metric} is {found[metric]:g}, and margin={margin} is a fraction of it, which must be above 0",
            "give the margin in the metric's own unit, as in --margin 0.002abs",
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
        raise UnusableJobError(
            where,
            f'built twice from seed 0, evaluate("validation") gave {metric} {here:.6g} and {there:.6g}',
            ""
            "it must follow from the model alone, not from what earlier calls left, or from random numbers of a "
            "generator that goes on",
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
        raise UnusableJobError(where, f"{what} raised {user_code.told(error)}", remedy) from error
