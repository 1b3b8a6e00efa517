"""Measure the memory of a training step: of all parameters of a model, without its activations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adamas.bench.pair import said
from adamas.bench.peers import find, missing
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.ours import Ours
from adamas.torch import release_gradients
from benchmarks.gpu.compare import Bench
from benchmarks.gpu.plan import OURS, Peak
from benchmarks.gpu.row import PeakBytes, PeakRow
from benchmarks.gpu.sides import full


def blank_peak(task: Peak, bench: Bench, reason: str | None = None) -> PeakRow:
    """A row without figures."""
    scenario = task.scenario(bench.shapes)
    limit = task.limit if bench.judged else None
    return PeakRow(scenario.name, scenario.parameters, task.who, task.format, task.released, limit, None, reason)


def peak(task: Peak, bench: Bench) -> PeakRow:
    """Take two steps and ask the allocator; what cannot be measured gives a reason."""
    peer = Ours if task.who == OURS else find(task.who)
    machine, scenario = bench.machine, task.scenario(bench.shapes)
    reason = missing(peer)
    if reason is not None:
        return blank_peak(task, bench, reason)
    machine.free()
    before = machine.held()
    try:
        side = full(peer, scenario, machine)
        step = released(side) if task.released else side.step
        first, later = at_peak(step, machine), at_peak(step, machine)
    except Exception as error:  # too little memory, or whatever a peer raises
        return blank_peak(task, bench, f"refuses: {said(error)}")
    figures = [(size - before) / scenario.parameters for size in (first, later, machine.held())]
    if first == 0:
        return blank_peak(task, bench, f"memory of a {machine.device.type} is not counted")
    return replace(blank_peak(task, bench), figures=PeakBytes(*figures))


def at_peak(step: Any, machine: Any) -> int:
    """The most bytes during a step, with what is there already."""
    machine.peak()
    step()
    return machine.peak()


def released(side: Peer) -> Any:
    """A step of ours inside of a backward: as `backward` of a model, without activations."""
    assert isinstance(side, Ours)
    side.grads = []
    side.optimizer.zero_grad()
    release_gradients(nn.ParameterList(side.params), side.optimizer)

    def step() -> None:
        torch.stack([Use.apply(param) for param in side.params]).sum().backward()
        side.optimizer.step()

    return step


class Use(torch.autograd.Function):
    """A number that depends on a parameter, with a random gradient."""

    @staticmethod
    def forward(ctx: Any, param: Tensor) -> Tensor:
        """Remember what the gradient has to be like, not the parameter: it is stepped before this is over."""
        ctx.like = {"size": param.shape, "dtype": param.dtype, "device": param.device}
        return param.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient."""
        return torch.empty(**ctx.like).normal_()
