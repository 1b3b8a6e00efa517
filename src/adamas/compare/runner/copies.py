"""The weights of a job, once for each cell: alone, or stacked so that one forward pass serves them all.

Cells of one seed share initial weights, batches and random numbers; only optimizers differ. Stacked, their losses are
computed by `torch.vmap` over `torch.func.functional_call`, each layer as one batched product, and every cell's
optimizer steps its own slice. That is the arithmetic of training them one by one: in float64 the two agree to rounding,
and where torch's batched products equal its single ones bit for bit, so do the runs. Where a workload allows it, cells
of several seeds share a stack: each then has its own batch. A pass is repeated from a recording of what it comes to,
where that does the same: see `adamas.compare.runner.repeating`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from adamas.compare.job.job import Job, OwnLoop, Split
from adamas.compare.runner.history import History
from adamas.compare.runner.repeating import Repeater
from adamas.compare.study.arms import Arm
from adamas.compare.study.run import Cell
from adamas.kernels.bucket import is_dense


@dataclass(eq=False)
class Copy:
    """One cell's optimizer on one copy of the weights, and what is known of the run."""

    cell: Cell
    optimizer: Optimizer
    rates: list[float]
    scheduler: LRScheduler | None
    history: History

    def step(self, factor: float) -> None:
        """Step at `factor` of the learning rate, or at what the job's own scheduler has set."""
        if self.scheduler is None:
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
        self.history.before_step()
        self.optimizer.step()
        self.history.after_step()
        if self.scheduler is not None:
            self.scheduler.step()


def make_copy(job: Job | OwnLoop, arm: Arm, cell: Cell, groups: Any) -> Copy:
    """Build the optimizer of a cell on its copy of the weights."""
    optimizer = arm.build(groups, cell.lr, cell.weight_decay)
    rates = [group["lr"] for group in optimizer.param_groups]
    history = History(cell, optimizer, job.steps if isinstance(job, Job) else None)
    scheduler = job.scheduler(optimizer) if isinstance(job, Job) and job.scheduler else None
    return Copy(cell, optimizer, rates, scheduler, history)


def groups_of(job: Job | OwnLoop) -> list[dict[str, Any]]:
    """The job's parameter groups, each a dictionary of its own; all parameters of the model where it has none."""
    groups = [{"params": list(job.model.parameters())}] if job.parameter_groups is None else job.parameter_groups
    return [{**group, "params": list(group["params"])} for group in groups]


class Lone:
    """One cell on the model's own weights."""

    def __init__(self, job: Job, arm: Arm, cell: Cell) -> None:
        self._job = job
        self.copies = [make_copy(job, arm, cell, groups_of(job))]

    def gradients(self, batches: Sequence[Any]) -> list[float]:
        """Compute the gradients on the batch; return the loss."""
        (batch,) = batches
        loss = total(self._job.loss(batch))
        self.copies[0].optimizer.zero_grad()
        loss.backward()
        return [loss.item()]

    def evaluate(self, copy: Copy, split: Split) -> Mapping[str, float]:
        """The job's figures with a copy's weights."""
        return self._job.evaluate(split)

    def drop(self, gone: Sequence[Copy]) -> None:
        """Train these no further."""
        self.copies = [copy for copy in self.copies if copy not in gone]


class Stack:
    """Several cells on stacked weights: the copy i is the slice i of every tensor.

    Args:
        jobs: by seed; the loss is that of the first, with each copy's weights and its seed's batch.
        arms: by name.
        cells: what is trained.
        repeats: whether passes may be repeated from a recording: see `adamas.compare.runner.repeating`.
    """

    def __init__(
        self, jobs: Mapping[int, Job], arms: Mapping[str, Arm], cells: Sequence[Cell], repeats: bool = True
    ) -> None:
        self._calls = {seed: Calls(job) for seed, job in jobs.items()}
        self._first = next(iter(self._calls.values()))
        self._aliases = aliases(self._first)
        named = {seed: dict(calls.named_parameters()) for seed, calls in self._calls.items()}
        buffers = {seed: dict(calls.named_buffers()) for seed, calls in self._calls.items()}
        self._params = stacked([named[cell.seed] for cell in cells])
        self._buffers = stacked([buffers[cell.seed] for cell in cells])
        self._trained = [name for name, param in next(iter(named.values())).items() if param.requires_grad]
        for name in self._trained:
            self._params[name].requires_grad_()
        self._laid_out = False
        tensors = len(self._params) + len(self._buffers)
        own_batches = None if len(jobs) == 1 else 0
        self._loss = torch.vmap(self._loss_of_one, in_dims=(own_batches, *[0] * tensors), randomness="same")
        self._pass = Repeater(self._run, next(iter(jobs.values())).steps, repeats)
        self._seeds = list(jobs)
        self._slices: list[dict[str, nn.Parameter]] = []
        self.copies: list[Copy] = []
        for place, cell in enumerate(cells):
            slices = {
                name: nn.Parameter(param.detach()[place], requires_grad=name in self._trained)
                for name, param in self._params.items()
            }
            names = {id(param): name for name, param in named[cell.seed].items()}
            groups = [
                {**group, "params": [slices[names[id(param)]] for param in group["params"]]}
                for group in groups_of(jobs[cell.seed])
            ]
            self._slices.append(slices)
            self.copies.append(make_copy(jobs[cell.seed], arms[cell.arm], cell, groups))

    def gradients(self, batches: Sequence[Any]) -> list[float]:
        """Compute the gradients of every copy on the batch of its seed, in the jobs' order; return their losses."""
        if len(batches) == 1:
            batch = batches[0]
        else:
            batch = together(batches, [self._seeds.index(copy.cell.seed) for copy in self.copies])
        losses, *found = self._pass(batch, list(self._params.values()), list(self._buffers.values()))
        assert losses is not None
        if not self._laid_out:
            self._lay_out(found)
        for name, grads in zip(self._trained, found, strict=True):
            parts = [None] * len(self.copies) if grads is None else like(self._params[name], grads).unbind()
            for slices, part in zip(self._slices, parts, strict=True):
                slices[name].grad = part
        return losses.tolist()

    def _run(self, batch: Any) -> list[Tensor | None]:
        """The copies' losses, and the gradients of what is trained: None where the loss does not use it."""
        losses = self._loss(batch, *self._params.values(), *self._buffers.values())
        weights = [self._params[name] for name in self._trained]
        return [losses, *torch.autograd.grad(losses.sum(), weights, allow_unused=True)]

    def evaluate(self, copy: Copy, split: Split) -> Mapping[str, float]:
        """The job's figures with a copy's weights."""
        place, calls = self.copies.index(copy), self._calls[copy.cell.seed]
        buffers = {name: buffer[place] for name, buffer in self._buffers.items()}
        with calls.evaluating(split):
            return self._call(calls, {**self._slices[place], **buffers}, None)

    def drop(self, gone: Sequence[Copy]) -> None:
        """Train these no further: the others move together."""
        if not gone:
            return
        self._pass.check()
        stay = [place for place, copy in enumerate(self.copies) if copy not in gone]
        self.copies = [self.copies[place] for place in stay]
        self._slices = [self._slices[place] for place in stay]
        if not stay:  # nothing is left to move
            return
        self._buffers = {name: buffer[stay] for name, buffer in self._buffers.items()}
        for name, param in self._params.items():
            self._move(name, param.detach()[stay], param.stride()[1:])

    def _lay_out(self, grads: Sequence[Tensor | None]) -> None:
        """Give weights the layout in which their gradients come: a batched product returns some of them transposed.

        An optimizer would else copy each of these gradients in each step, which took as long as a quarter of the step.
        """
        self._laid_out = True
        for name, grad in zip(self._trained, grads, strict=True):
            # Each copy's part by itself: an embedding's gradients come with the copies' rows in turns.
            if grad is not None and is_dense(tuple(grad.shape[1:]), strides := grad.stride()[1:]):
                self._move(name, self._params[name].detach(), strides)

    def _move(self, name: str, values: Tensor, strides: Sequence[int]) -> None:
        """Move a stacked tensor, and the copies' slices with it, to new memory."""
        moved = torch.empty_strided(
            values.shape, (values[0].numel(), *strides), dtype=values.dtype, device=values.device
        )
        moved.copy_(values)
        self._params[name] = moved.requires_grad_(self._params[name].requires_grad)
        for place, slices in enumerate(self._slices):
            slices[name].data = moved.detach()[place]

    def _loss_of_one(self, batch: Any, *tensors: Tensor) -> Tensor:
        """One copy's loss; a plain list of arguments is what vmap takes apart fastest."""
        named = dict(zip((*self._params, *self._buffers), tensors, strict=True))
        return self._call(self._first, named, batch)

    def _call(self, calls: Calls, tensors: Mapping[str, Tensor], batch: Any) -> Any:
        """Call with these in the place of the model's: tied ones under all their names, which torch would look for."""
        tied = {alias: tensors[name] for alias, name in self._aliases.items()}
        return torch.func.functional_call(calls, {**tensors, **tied}, (batch,), tie_weights=False)


class Calls(nn.Module):
    """Lets a job's closures be called with other weights in its model's place."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.model = job.model
        self._job = job
        self._split: Any = None  # not annotated as what it is: torch types a module's attributes as tensors and modules

    @contextlib.contextmanager
    def evaluating(self, split: Split) -> Generator[None]:
        """While the block runs, a call evaluates."""
        self._split = split
        try:
            yield
        finally:
            self._split = None

    def forward(self, batch: Any) -> Any:
        """The loss of a batch, or the figures of a split."""
        return total(self._job.loss(batch)) if self._split is None else self._job.evaluate(self._split)


def aliases(module: nn.Module) -> dict[str, str]:
    """Further names of tied parameters and buffers, and the name that torch gives each of them."""
    found: dict[str, str] = {}
    for listed in (module.named_parameters, module.named_buffers):
        names = {id(tensor): name for name, tensor in listed()}
        every = ((name, names[id(tensor)]) for name, tensor in listed(remove_duplicate=False))
        found |= {alias: name for alias, name in every if alias != name}
    return found


def stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of one shape under each name to (copies, *shape), each copy's in memory of its own."""
    return {name: torch.stack([each[name].detach() for each in tensors]) for name in tensors[0]}


def like(params: Tensor, grads: Tensor) -> Tensor:
    """Gradients of all copies as their weights lie: what an optimizer would have to copy for each by itself."""
    return grads if grads.stride()[1:] == params.stride()[1:] else torch.empty_like(params).copy_(grads)


def together(batches: Sequence[Any], places: Sequence[int]) -> Any:
    """The batches at `places`, alike in structure and shapes, with a first dimension for the copies."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.stack([batches[place] for place in places])
    if isinstance(first, Mapping):
        return {key: together([batch[key] for batch in batches], places) for key in first}
    return tuple(together(parts, places) for parts in zip(*batches, strict=True))


def total(loss: Any) -> Tensor:
    """One loss; several, in a list or by name, are added up."""
    if isinstance(loss, Tensor):
        return loss.reshape(()) if loss.numel() == 1 else loss
    given: object = loss.values() if isinstance(loss, Mapping) else loss
    parts: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise TypeError(f"loss(batch) returned {kinds}; it must return a tensor, or tensors to be added up")
    return torch.stack(parts).sum()


def as_parts(loss: Any) -> list[Any]:
    """The parts of what is no tensor; itself where it has none."""
    return list(loss) if isinstance(loss, Iterable) else [loss]
