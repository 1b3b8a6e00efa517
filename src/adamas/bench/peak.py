"""The memory of a training step: parameters, gradients, state and what the step takes, without activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adamas.bench.device import Device
from adamas.bench.harness import full, said
from adamas.bench.peers import missing, versions
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.torch_peers import Ours
from adamas.bench.row import Peak, Row
from adamas.bench.scenario import Scenario
from adamas.torch import release_gradients


def measure_peak(scenario: Scenario, peer: type[Peer], device: Device) -> Row:
    """Take two steps and read the allocator's counters; a row without figures says the reason."""
    row = Row.of(scenario, peer.name, versions(peer), missing(peer))
    if row.reason is not None:
        return row
    device.free()
    before, _ = device.allocated()
    try:
        side = full(peer, scenario, device)
        step = released_step(side) if row.work == "released peak" else side.step
        first, later = most_bytes(step, device), most_bytes(step, device)
    except Exception as error:  # too little memory, or a refusal of the peer
        return replace(row, reason=f"refuses: {said(error)}")
    if first == 0:
        return replace(row, reason=f"memory of a {device.device.type} is not counted")
    sizes = (first, later, device.allocated()[0])
    return replace(row, peak=Peak(*((size - before) / scenario.parameters for size in sizes)))


def most_bytes(step: Callable[[], None], device: Device) -> int:
    """Return the most bytes of all tensors during a step."""
    device.allocated()
    step()
    return device.allocated()[1]


def released_step(side: Peer) -> Callable[[], None]:
    """Return a step of ours inside of backward, as of a model without activations."""
    assert isinstance(side, Ours)
    side.grads = []
    side.optimizer.zero_grad()
    release_gradients(nn.ParameterList(side.params), side.optimizer)

    def step() -> None:
        torch.stack([Use.apply(param) for param in side.params]).sum().backward()
        side.optimizer.step()

    return step


class Use(torch.autograd.Function):
    """A number that depends on a parameter and gives it a random gradient."""

    @staticmethod
    def forward(ctx: Any, param: Tensor) -> Tensor:
        """Remember the gradient's shape, dtype and device; the parameter itself is stepped before backward ends."""
        ctx.like = {"size": param.shape, "dtype": param.dtype, "device": param.device}
        return param.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the random gradient of the weight."""
        return torch.empty(**ctx.like).normal_()
