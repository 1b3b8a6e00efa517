"""Several copies of a job's weights in stacked tensors, so that one pass computes the gradients of all copies.

Copies of one seed share initial weights, batches and random numbers; only their optimizers differ. Their losses are
computed by `torch.vmap` over `torch.func.functional_call`: each layer is one batched product. The arithmetic is that
of training the copies one by one. In float64 the two agree to rounding; where torch's batched products equal its
single products bit for bit, so do the runs. Copies of several seeds may share a stack if the workload allows it; each
copy then has its own batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adamas.compare.job.evaluate import groups_of, total
from adamas.compare.job.job import Job, Split
from adamas.kernels.bucket import is_dense


class StackedWeights:
    """The weights of several copies of a job: the copy i is the slice i of every tensor.

    Args:
        jobs: The jobs by seed. The loss of the first job is used for all copies, each with its own weights and batch.
        seeds: The seed of each copy.
    """

    def __init__(self, jobs: Mapping[int, Job], seeds: Sequence[int]) -> None:
        self._jobs = jobs
        self._seeds = list(seeds)
        self._calls = {seed: _Calls(job) for seed, job in jobs.items()}
        self._first = next(iter(self._calls.values()))
        self._aliases = _aliases(self._first)
        self._named = {seed: dict(calls.named_parameters()) for seed, calls in self._calls.items()}
        buffers = {seed: dict(calls.named_buffers()) for seed, calls in self._calls.items()}
        self._params = _stacked([self._named[seed] for seed in seeds])
        self._buffers = _stacked([buffers[seed] for seed in seeds])
        self._trained = [name for name, param in next(iter(self._named.values())).items() if param.requires_grad]
        for name in self._trained:
            self._params[name].requires_grad_()
        self._laid_out = False
        tensors = len(self._params) + len(self._buffers)
        own_batches = None if len(jobs) == 1 else 0
        self._loss = torch.vmap(self._loss_of_one, in_dims=(own_batches, *[0] * tensors), randomness="same")
        self._slices = [
            {
                name: nn.Parameter(param.detach()[place], requires_grad=name in self._trained)
                for name, param in self._params.items()
            }
            for place in range(len(seeds))
        ]

    def groups(self, place: int) -> list[dict[str, Any]]:
        """Return the parameter groups of one copy, made of its slices."""
        seed, slices = self._seeds[place], self._slices[place]
        names = {id(param): name for name, param in self._named[seed].items()}
        return [
            {**group, "params": [slices[names[id(param)]] for param in group["params"]]}
            for group in groups_of(self._jobs[seed])
        ]

    def gradients(self, batches: Sequence[Any]) -> list[float]:
        """Set the gradients of every copy and return their losses.

        Args:
            batches: One batch for each seed, in the order of the jobs.
        """
        if len(batches) == 1:
            batch = batches[0]
        else:
            order = list(self._jobs)
            batch = _together(batches, [order.index(seed) for seed in self._seeds])
        losses = self._loss(batch, *self._params.values(), *self._buffers.values())
        weights = [self._params[name] for name in self._trained]
        found: list[Tensor | None] = list(torch.autograd.grad(losses.sum(), weights, allow_unused=True))
        if not self._laid_out:
            self._lay_out(found)
        for name, grads in zip(self._trained, found, strict=True):
            parts = [None] * len(self._seeds) if grads is None else _like(self._params[name], grads).unbind()
            for slices, part in zip(self._slices, parts, strict=True):
                slices[name].grad = part
        return losses.tolist()

    def evaluate(self, place: int, split: Split) -> Mapping[str, float]:
        """Return the job's figures of a split, computed with the weights of one copy."""
        calls = self._calls[self._seeds[place]]
        buffers = {name: buffer[place] for name, buffer in self._buffers.items()}
        with calls.evaluating(split):
            return self._call(calls, {**self._slices[place], **buffers}, None)

    def keep(self, places: Sequence[int]) -> None:
        """Keep the copies at these places and remove the others."""
        self._seeds = [self._seeds[place] for place in places]
        self._slices = [self._slices[place] for place in places]
        if not places:
            return
        chosen = list(places)
        self._buffers = {name: buffer[chosen] for name, buffer in self._buffers.items()}
        for name, param in self._params.items():
            self._move(name, param.detach()[chosen], param.stride()[1:])

    def _lay_out(self, grads: Sequence[Tensor | None]) -> None:
        """Give the weights the memory layout of their gradients: batched products return some of them transposed.

        Without this, the optimizer copies each of these gradients in each step, a quarter of the step's time.
        """
        self._laid_out = True
        for name, grad in zip(self._trained, grads, strict=True):
            # The layout of one copy's part decides: the gradients of an embedding interleave the rows of all copies.
            if grad is not None and is_dense(tuple(grad.shape[1:]), strides := grad.stride()[1:]):
                self._move(name, self._params[name].detach(), strides)

    def _move(self, name: str, values: Tensor, strides: Sequence[int]) -> None:
        """Move a stacked tensor and the slices of it to new memory."""
        moved = torch.empty_strided(
            values.shape, (values[0].numel(), *strides), dtype=values.dtype, device=values.device
        )
        moved.copy_(values)
        self._params[name] = moved.requires_grad_(self._params[name].requires_grad)
        for place, slices in enumerate(self._slices):
            slices[name].data = moved.detach()[place]

    def _loss_of_one(self, batch: Any, *tensors: Tensor) -> Tensor:
        """Return the loss of one copy; vmap splits a flat list of arguments faster than a nested one."""
        named = dict(zip((*self._params, *self._buffers), tensors, strict=True))
        return self._call(self._first, named, batch)

    def _call(self, calls: _Calls, tensors: Mapping[str, Tensor], batch: Any) -> Any:
        """Call the job with these tensors as its weights; tied weights are passed under each of their names."""
        tied = {alias: tensors[name] for alias, name in self._aliases.items()}
        return torch.func.functional_call(calls, {**tensors, **tied}, (batch,), tie_weights=False)


class _Calls(nn.Module):
    """A module whose call runs a job's loss or evaluation, so that `functional_call` can replace the weights."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.model = job.model
        self._job = job
        self._split: Any = None  # Any: torch types a module's attributes as tensors and modules

    @contextlib.contextmanager
    def evaluating(self, split: Split) -> Generator[None]:
        """Let a call evaluate the split while the block runs."""
        self._split = split
        try:
            yield
        finally:
            self._split = None

    def forward(self, batch: Any) -> Any:
        """Return the loss of the batch, or the figures of the split."""
        return total(self._job.loss(batch)) if self._split is None else self._job.evaluate(self._split)


def _aliases(module: nn.Module) -> dict[str, str]:
    """Return the further names of tied parameters and buffers, each with the name that torch lists."""
    found: dict[str, str] = {}
    for listed in (module.named_parameters, module.named_buffers):
        names = {id(tensor): name for name, tensor in listed()}
        every = ((name, names[id(tensor)]) for name, tensor in listed(remove_duplicate=False))
        found |= {alias: name for alias, name in every if alias != name}
    return found


def _stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of each name to the shape (copies, *shape)."""
    return {name: torch.stack([each[name].detach() for each in tensors]) for name in tensors[0]}


def _like(params: Tensor, grads: Tensor) -> Tensor:
    """Return the gradients in the memory layout of the weights, copied where the layouts differ."""
    return grads if grads.stride()[1:] == params.stride()[1:] else torch.empty_like(params).copy_(grads)


def _together(batches: Sequence[Any], places: Sequence[int]) -> Any:
    """Stack the batches at `places`, which agree in structure and shapes, along a new first dimension."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.stack([batches[place] for place in places])
    if isinstance(first, Mapping):
        return {key: _together([batch[key] for batch in batches], places) for key in first}
    return tuple(_together(parts, places) for parts in zip(*batches, strict=True))
