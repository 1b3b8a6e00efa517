"""Start a job without training it: the first steps of a run, with weights that stay as they are."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from adamas.compare.job.evaluate import build_all, figures, fit, groups_of, randomness, total
from adamas.compare.job.faults import Fault, faults_of
from adamas.compare.job.job import Job, JobFactory, OwnLoop
from adamas.compare.job.stacked import StackedWeights
from adamas.compare.study.arms import ARMS

STEPS = 3  # randomness after the first batch shows in so many steps
_PATIENCE = 100  # steps of an own loop at most, in which each of its optimizers should have stepped


class Start(NamedTuple):
    """A job that was just built, with the figures of its untrained weights and what its first steps computed.

    Attributes:
        job: The job itself.
        validation: The validation figures of the initial weights.
        fingerprint: Three numbers that show how the job starts: its first loss (in an own loop, the size of its first
            gradients), the size of its gradients, and the size of its weights.
        gradients: The size of all gradients in each of the first steps.
    """

    job: Job | OwnLoop
    validation: dict[str, float]
    fingerprint: tuple[float, float, float]
    gradients: list[float]


def start(factory: JobFactory, device: str, seed: int) -> Start:
    """Build the job, try its first steps and its evaluation."""
    with randomness(seed, device):
        with faults_of(f"the call with (seed={seed}, device={device!r})"):
            job = cast(object, factory(seed, device))
        if not isinstance(job, (Job, OwnLoop)):
            raise Fault(f"it returned a {type(job).__name__}", "it must return an adamas.compare.Job or OwnLoop")
        places = _places(job)
        job.model.zero_grad()  # the gradients of a run before, if its weights are the same
        if isinstance(job, Job):
            first, *sizes = _first_losses(job)
        else:
            sizes = _first_steps(job)
            first = sizes[0]
        places |= _places(job)  # the trainer of a library may move the model: there and back
        if torch.device(device).type not in places:
            raise Fault(
                f"device={device!r}, but the model's weights are on {' and '.join(sorted(places))}",
                "the function is given the device and must put model and data there",
            )
        # Random numbers that the evaluation draws must not differ between seeds: its figures are compared.
        with randomness(0, device), faults_of('evaluate("validation")'):
            validation = figures(job, job.evaluate, "validation")
        # The loss alone would not tell seeds apart: if the last layer starts at zero, every first loss is the same.
        return Start(job, validation, (first, _gradients(groups_of(job)), magnitude(weights(job))), sizes)


def weights(job: Job | OwnLoop) -> list[Tensor]:
    """Return the weights that the job trains; frozen weights may be shared by all runs."""
    return [param for group in groups_of(job) for param in group["params"] if param.requires_grad]


def magnitude(tensors: Iterable[Tensor]) -> float:
    """Return the sum of the absolute values of all elements."""
    return math.fsum(tensor.detach().abs().sum(dtype=torch.float64).item() for tensor in tensors)


def before_each_step(optimizer: Optimizer, ready: Callable[[Optimizer], None]) -> None:
    """Call `ready` before each step of an optimizer, when the gradients are there.

    `optimizer.step(closure)`, as Lightning calls it, computes the gradients inside of the step.
    """

    def hook(stepped: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            ready(stepped)
            return None

        def closure_then_ready() -> Any:
            loss = closure()
            ready(stepped)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure_then_ready}
        return (*args[:1], closure_then_ready, *args[2:]), kwargs

    optimizer.register_step_pre_hook(hook)


class Enough(BaseException):
    """Raised into `fit` to end it; an `except Exception` of the user's code does not catch it."""


def _places(job: Job | OwnLoop) -> set[str]:
    """Return the kinds of device that the model's weights are on."""
    return {param.device.type for param in job.model.parameters()}


def _first_losses(job: Job) -> list[float]:
    """Return the loss of the first batch, and the size of the gradients in each of the first steps.

    They depend on initial weights, data order and randomness.
    """
    with faults_of("batches(0)"):
        epoch = job.batches(0)
        batches = iter(epoch)
        batch = next(batches, None)
    if batch is None:
        raise Fault("batches(0) has no batch")
    with contextlib.suppress(TypeError):  # the length may be missing or unknown
        if (count := len(cast(Any, epoch))) != job.steps_per_epoch:
            raise Fault(
                f"steps_per_epoch={job.steps_per_epoch}, but batches(0) has {count}",
                "give as many, as in steps_per_epoch=len(loader)",
            )
    job.model.train()
    loss = _first_loss(job, batch)
    found = [loss, _gradients(groups_of(job))]
    with faults_of("a later batch, or loss(batch) of it,"):
        for later in itertools.islice(itertools.chain(batches, _later_epochs(job)), STEPS - 1):
            job.model.zero_grad()
            total(job.loss(later)).backward()
            found.append(_gradients(groups_of(job)))
    return found


def _later_epochs(job: Job) -> Iterator[Any]:
    """Yield the batches of all epochs but the first."""
    for epoch in range(1, job.epochs):
        yield from job.batches(epoch)


def _first_loss(job: Job, batch: Any) -> float:
    """Return the loss of the first batch and leave its gradients; check both."""
    with faults_of("loss(batch)"):
        loss = total(job.loss(batch))
    if loss.numel() != 1:
        raise Fault(f"loss(batch) has shape {tuple(loss.shape)}", "it must be one number: .mean() it")
    if not loss.requires_grad:
        raise Fault(
            "loss(batch) does not depend on any weight that trains",
            "no .item(), .detach() or no_grad may stand between the model and the loss",
        )
    if not math.isfinite(loss.item()):
        raise Fault(f"the first loss is {loss.item()}", "it must be finite at the initial weights")
    with faults_of("the backward pass", "loss(batch) must leave backward() to the comparison"):
        loss.backward()
    if not _gradients(groups_of(job)):
        raise Fault(
            "the loss gives none of the optimizer's weights a gradient",
            "Job.model and Job.parameter_groups must be what loss(batch) uses",
        )
    _check_layout(groups_of(job))
    if job.stackable:
        together = "loss(batch) of two copies of the weights together, as stackable=True has it,"
        with faults_of(together, "without stackable=True runs train one by one, and may do anything"):
            StackedWeights({0: job}, [0, 0]).gradients([batch])
    return loss.item()


def _first_steps(job: OwnLoop) -> list[float]:
    """Return the size of all gradients at each of the first steps of `fit`, which changes no weight.

    The first one must be above 0. If there are several optimizers, `fit` goes on until each of them has stepped.
    """
    optimizers = build_all(job, ARMS["none"], 1e-3, 0.0)
    names = {id(optimizer): name for name, optimizer in optimizers.items()}
    stepped: set[str] = set()
    sizes: list[float] = []
    rates: dict[int, list[float]] = {}

    def ready(optimizer: Optimizer) -> None:
        _check_layout(optimizer.param_groups)
        sizes.append(_gradients(optimizer.param_groups))
        if (name := names[id(optimizer)]) not in stepped:
            _check_size(sizes[-1], name)
            stepped.add(name)
        if len(sizes) >= STEPS and (len(stepped) == len(optimizers) or len(sizes) >= _PATIENCE):
            raise Enough
        rates[id(optimizer)] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # for this step alone: a scheduler must find the rate that it set

    def restore(optimizer: Optimizer, *_: object) -> None:
        for group, rate in zip(optimizer.param_groups, rates.pop(id(optimizer), ()), strict=False):
            group["lr"] = rate

    for optimizer in optimizers.values():
        before_each_step(optimizer, ready)
        optimizer.register_step_post_hook(restore)
    with contextlib.suppress(Enough), faults_of("fit(optimizer)"):
        fit(job, optimizers)
        check_steps(optimizers, stepped)
    return sizes


def check_steps(optimizers: Mapping[str, Optimizer], stepped: set[str]) -> None:
    """Refuse a `fit` that has ended without a step of one of its optimizers."""
    if missing := [name for name in optimizers if name not in stepped]:
        named = ", ".join(map(repr, missing))
        what = f"of the optimizer {named}" if len(optimizers) > 1 else "optimizer.step()"
        raise Fault(
            f"fit(optimizer) never called {what}" if len(optimizers) == 1 else f"fit(optimizers) took no step {what}",
            "it must train with the optimizer it is given",
        )


def _check_size(size: float, name: str) -> None:
    """Refuse first gradients that are 0 or not finite."""
    if not 0 < size < math.inf:
        whose = f" of the optimizer {name!r}" if name else ""
        raise Fault(
            f"at the first step{whose} of fit(optimizer) the gradients' absolute values sum to {size:g}, which must be "
            "finite and above 0",
            "OwnLoop.model and OwnLoop.parameter_groups must be what fit trains",
        )


def _check_layout(groups: Iterable[dict[str, Any]]) -> None:
    """Refuse sparse gradients; Adam and AdamW refuse them in torch too."""
    for param in (param for group in groups for param in group["params"] if param.grad is not None):
        if param.grad.layout != torch.strided:
            raise Fault(
                f"the gradient of a weight of shape {tuple(param.shape)} is sparse, which neither Adam nor AdamW takes",
                "make the embedding with sparse=False",
            )


def _gradients(groups: Iterable[dict[str, Any]]) -> float:
    """Return the sum of the absolute values of all gradients; 0 if there are none."""
    return magnitude(param.grad for group in groups for param in group["params"] if param.grad is not None)
