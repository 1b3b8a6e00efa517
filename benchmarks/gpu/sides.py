"""Implementations with their parameters on the device: at full size to be timed, and small to be checked."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from adamas.bench import rule
from adamas.bench.pair import Checked, act, check
from adamas.bench.peers.contract import Peer
from adamas.bench.scenario import Scenario
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.shapes import TWIN


@dataclass(frozen=True)
class Twin:
    """What an implementation came to on a few small tensors.

    Attributes:
        found: parameters and averages after the checked steps.
        wanted: those of the rule, in float64.
        error: the largest of a parameter, in ULPs.
        first_seconds: of the first call, with what is compiled then.
    """

    found: Checked
    wanted: rule.Expected
    error: float
    first_seconds: float


def full(peer: type[Peer], scenario: Scenario, machine: Machine) -> Peer:
    """An implementation with random parameters and gradients, drawn on the device."""
    random = torch.Generator(machine.device).manual_seed(0)

    def draw() -> list[torch.Tensor]:
        dtype = getattr(torch, scenario.dtype)
        empty = (torch.empty(shape, dtype=dtype, device=machine.device) for shape in scenario.shapes)
        return [tensor.normal_(generator=random) for tensor in empty]

    side = peer(scenario, draw())
    side.give(draw())
    return side


def twin(peer: type[Peer], scenario: Scenario, machine: Machine) -> Twin:
    """Check an implementation of a scenario on `shapes.TWIN`."""
    scenario = replace(scenario, shapes=TWIN)
    params, grads = ([tensor.to(machine.device) for tensor in tensors] for tensors in rule.initial(scenario))
    first = peer(scenario, params)
    first.give(grads)
    machine.synchronize()
    start = time.perf_counter()
    act(first, scenario)()
    machine.synchronize()
    seconds = time.perf_counter() - start
    found = check(peer(scenario, params), scenario, grads)
    wanted = rule.expected(scenario, peer.eps_mode)
    return Twin(found, wanted, rule.error_ulps(found.parameters, wanted.parameters), seconds)
