"""Measure a comparison: check both sides on small tensors, then time them in turns at full size."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from adamas.bench import rule
from adamas.bench.measure import Effort, Party, interleave, ratios
from adamas.bench.pair import act, difference, said, strayed, wrong
from adamas.bench.peers import find, missing
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.ours import Ours
from adamas.bench.scenario import Scenario, Shape
from benchmarks.gpu.machine import Machine, small
from benchmarks.gpu.plan import Comparison
from benchmarks.gpu.row import Figures, Row, Side
from benchmarks.gpu.shapes import SHAPES, SMALL
from benchmarks.gpu.sides import Twin, full, twin


@dataclass
class Bench:
    """What all measurements share.

    Attributes:
        machine: the device.
        effort: rounds and length of a turn.
        bandwidth: of a copy on it, bytes a second.
        shapes: of the scenarios.
        judged: whether limits are held against figures.
        twins: what was checked already, by implementation and what it was asked for.
    """

    machine: Machine
    effort: Effort
    bandwidth: float
    shapes: Mapping[str, tuple[Shape, ...]] = field(default_factory=lambda: SHAPES)
    judged: bool = True
    twins: dict[str, Twin] = field(default_factory=dict[str, Twin])

    def twin(self, peer: type[Peer], scenario: Scenario) -> Twin:
        """As `sides.twin`, once for all scenarios of the same format and work."""
        key = repr((peer.name, replace(scenario, name="", shapes=((1,),))))
        if key not in self.twins:
            self.twins[key] = twin(peer, scenario, self.machine)
        return self.twins[key]


def blank(task: Comparison, bench: Bench, reason: str | None = None) -> Row:
    """A row without figures."""
    ours = task.ours(bench.shapes)
    return Row(
        scenario=task.scenario,
        work=task.work,
        tensors=len(ours.shapes),
        parameters=ours.parameters,
        format=task.format,
        peer=task.peer,
        peer_dtype=task.peer_dtype,
        clock="host" if task.scenario == SMALL else "device",
        limits=task.limits if bench.judged else {},
        reason=reason,
    )


def compare(task: Comparison, bench: Bench) -> Row:
    """Check and time one of our formats beside a peer; what cannot be measured gives a reason."""
    peer = find(task.peer)
    bench.machine.free()
    reason = missing(peer) or unfit(task, bench)
    if reason is not None:
        return blank(task, bench, reason)
    mine = bench.twin(Ours, task.ours(bench.shapes))
    try:
        other = bench.twin(peer, task.theirs(bench.shapes))
    except Exception as error:  # whatever a peer raises is its refusal
        return blank(task, bench, f"refuses: {said(error)}")
    reason = wrong_or_different(task, peer, mine, other)
    if reason is not None:
        return blank(task, bench, reason)
    return replace(blank(task, bench), figures=timed(task, peer, (mine, other), bench))


def unfit(task: Comparison, bench: Bench) -> str | None:
    """Why a comparison does not fit the device's memory; None if it does."""
    bytes_ = 0
    for scenario in (task.ours(bench.shapes), task.theirs(bench.shapes)):
        size = getattr(torch, scenario.dtype).itemsize
        # Parameter, gradient, two moments, an average, a temporary or two of whoever takes some, and what is drawn.
        bytes_ += scenario.parameters * (2 * size + 8 + 4 + 8) + scenario.parameters * size
    free = bench.machine.available()
    return (
        None if bytes_ <= free else f"needs about {bytes_ / 2**30:.0f} GiB of memory, and {free / 2**30:.0f} are free"
    )


def wrong_or_different(task: Comparison, peer: type[Peer], mine: Twin, other: Twin) -> str | None:
    """Why a result is not to be timed; None if it may. Held equal are those that follow one rule in float32."""
    ours = task.ours()
    averages = rule.error_ulps(mine.found.averages, mine.wanted.averages) if mine.found.averages else 0.0
    reason = strayed(mine.found, mine.wanted) if ours.lossy else wrong(max(mine.error, averages))
    exact = peer.exact and not ours.lossy and ours.dtype == task.peer_dtype == "float32"
    return reason or difference(mine.found, other.found, (mine.error, other.error), exact)


def timed(task: Comparison, peer: type[Peer], twins: tuple[Twin, Twin], bench: Bench) -> Figures:
    """Both sides at full size, in turns."""
    machine, host = bench.machine, task.scenario == SMALL
    scenarios = (task.ours(bench.shapes), task.theirs(bench.shapes))
    sides = [full(each, scenario, machine) for each, scenario in zip((Ours, peer), scenarios, strict=True)]
    parties = [party(side, scenario) for side, scenario in zip(sides, scenarios, strict=True)]
    clock = small(machine, task.work) if host else machine.large()
    ours, theirs = interleave(parties, bench.effort, clock)
    alone = [machine.device_seconds(party) if host else None for party in parties]
    each = ratios(ours, theirs)
    figures = [
        measured(side, scenario, statistics.median(seconds), twin, bench)
        for side, scenario, seconds, twin in zip(sides, scenarios, (ours, theirs), twins, strict=True)
    ]
    return Figures(
        ours=replace(figures[0], device_seconds=alone[0], kernel=kernels(sides[0])),
        peer=replace(figures[1], device_seconds=alone[1]),
        ratio=statistics.median(each),
        lowest=min(each),
        highest=max(each),
    )


def party(side: Peer, scenario: Scenario) -> Party:
    """What is timed. A step leaves its gradients where they are; a phase's are put back."""
    call = act(side, scenario)
    return Party(call) if scenario.work == "step" else Party(call, side.ready)


def measured(side: Peer, scenario: Scenario, seconds: float, twin: Twin, bench: Bench) -> Side:
    """The figures of one side."""
    state = side.state_bytes() / scenario.parameters
    moved = scenario.parameters * bytes_moved(scenario, state)
    return Side(
        seconds=seconds,
        device_seconds=None,
        first_seconds=twin.first_seconds,
        error_ulps=twin.error,
        state_bytes=state,
        bandwidth=moved / seconds / bench.bandwidth,
    )


def bytes_moved(scenario: Scenario, state: float) -> float:
    """Bytes a weight that a call has to read and write: 28 for a step in float32, 40 for a phase.

    Parameter and state in and out, the gradient in; in a phase a second time, since its norm is of all.
    """
    size = getattr(torch, scenario.dtype).itemsize
    return 3 * size + 2 * state + (size if scenario.work == "phase" else 0)


def kernels(ours: Peer) -> str:
    """Which of our kernels stepped."""
    assert isinstance(ours, Ours)
    return ", ".join(sorted({kernel for _, kernel, _ in ours.optimizer.kernel_choices()}))
