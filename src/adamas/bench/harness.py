"""The harness: one implementation of ours beside one peer, on any device. First both are checked, then both are timed.

No speed is reported for a wrong result. `compare` is the way in; `Harness` holds what all comparisons of a run share.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from adamas.bench import rule
from adamas.bench.clock import Effort, Party, Watch, interleave, ratios
from adamas.bench.device import Device
from adamas.bench.memory import bytes_moved
from adamas.bench.peers import missing, versions
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.torch_peers import Ours
from adamas.bench.row import Figures, Row, Side
from adamas.bench.scenario import STEPS, Scenario, Shape

# How far two implementations of one rule may be apart, in the ULPs of `rule.error_ulps`. A step rounds the parameter
# twice, by half a ULP each; the update carries at most about ten roundings, relative to a length of lr, where a ULP is
# that of at least 5 lr: together below a ULP. That makes two ULPs a step for each of the two sides.
APART = 2 * 2 * len(rule.SCALES)


@dataclass(frozen=True)
class Checked:
    """What an implementation came to after the checked steps.

    Attributes:
        side: the implementation, ready to be timed; None where it was checked on other tensors than the scenario's.
        parameters: its parameters.
        averages: its averages of the weights; empty where none were asked for.
        wanted: parameters and averages of the rule in float64.
        error: error of the parameters in ULPs.
        first_seconds: seconds of the first call.
    """

    side: Peer | None
    parameters: list[Tensor]
    averages: list[Tensor]
    wanted: rule.Expected
    error: float
    first_seconds: float


@dataclass
class Harness:
    """What all comparisons of a run share.

    Attributes:
        device: where everything runs.
        effort: how much is measured.
        check_shapes: shapes on which implementations are checked; None for the scenario's own. A billion weights would
            take minutes in float64.
        known: checks on `check_shapes` that are done, by the implementation and what it was asked for.
    """

    device: Device
    effort: Effort
    check_shapes: tuple[Shape, ...] | None = None
    known: dict[str, Checked] = field(default_factory=dict[str, Checked])

    def check(self, peer: type[Peer], scenario: Scenario) -> Checked:
        """Return what an implementation came to; on `check_shapes` each format and work is checked only once."""
        if self.check_shapes is None:
            return check(peer, scenario, self.device)
        small = Scenario("", self.check_shapes, scenario.dtype, scenario.work, storage=scenario.storage)
        key = repr((peer.name, small))
        if key not in self.known:
            self.known[key] = replace(check(peer, small, self.device), side=None)
        return self.known[key]


def compare(scenario: Scenario, peer: type[Peer], harness: Harness) -> Row:
    """Check and time our implementation beside a peer; a row without figures says the reason."""
    row = Row.of(scenario, peer.name, versions(peer), missing(peer))
    if row.reason is not None:
        return row
    harness.device.free()
    ours = harness.check(peer.ours or Ours, scenario)
    try:
        theirs = harness.check(peer, scenario.theirs)
    except Exception as error:  # a peer may refuse with any exception
        return replace(row, reason=f"refuses: {said(error)}")
    exact = peer.exact and not scenario.lossy and scenario.theirs.dtype == scenario.dtype
    reason = wrong(ours, scenario.lossy) or difference(ours, theirs, exact)
    if reason is not None:
        return replace(row, reason=reason)
    return replace(row, figures=timed(scenario, peer, (ours, theirs), harness))


def check(peer: type[Peer], scenario: Scenario, device: Device) -> Checked:
    """Take the checked steps, or phases, and return what came of them with the implementation, ready to be timed.

    Ten steps are checked as single ones: a reference of fifty steps would take minutes.
    """
    params, grads = ([tensor.to(device.device) for tensor in tensors] for tensors in rule.initial(scenario))
    side = peer(scenario, params)
    seconds: list[float] = []
    for scale in rule.SCALES:
        side.give([grad * scale for grad in grads])
        device.synchronize()
        start = time.perf_counter()
        (side.phase if scenario.work == "phase" else side.step)()
        device.synchronize()
        seconds.append(time.perf_counter() - start)
    found, averages = side.parameters(), side.averages() if scenario.work == "phase" else []
    side.give(grads)
    wanted = rule.expected(scenario, peer.eps_mode)
    return Checked(side, found, averages, wanted, rule.error_ulps(found, wanted.parameters), seconds[0])


def work_of(side: Peer, scenario: Scenario) -> Callable[[], None]:
    """Return the function that is timed."""
    return {"phase": side.phase, "ten steps": side.ten_steps}.get(scenario.work, side.step)


def wrong(ours: Checked, lossy: bool) -> str | None:
    """Return why our own result is not timed, or None if it is near enough to the rule.

    With moments of fewer bits, no parameter may be off by more than a step and a half: each of the five steps is at
    most about lr long, and rounding to 5 bits changes none by a third.
    """
    if lossy:
        pairs = zip(rule.as_float64(ours.parameters), ours.wanted.parameters, strict=True)
        off = max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)
        allowed = 1.5 * rule.LR + max(rule.coarse_spacing(tensor) for tensor in ours.parameters)
        return None if off <= allowed else f"adamas is off by {off:.3g}; rounding its moments allows {allowed:.3g}"
    error = max(ours.error, rule.error_ulps(ours.averages, ours.wanted.averages) if ours.averages else 0.0)
    said = f"adamas errs by {error:.3g} ULPs after {len(rule.SCALES)} steps; rounding allows {APART}"
    return None if error <= APART else said


def difference(ours: Checked, theirs: Checked, exact: bool) -> str | None:
    """Return why the peer's result is not timed, or None if it may be; only an exact peer must agree with us."""
    if not math.isfinite(theirs.error):
        return f"differs: its parameters are not finite after {len(rule.SCALES)} steps"
    for what in ("parameters", "averages") if exact else ():
        apart = rule.error_ulps(getattr(theirs, what), rule.as_float64(getattr(ours, what)))
        if not apart <= APART:
            return (
                f"differs: {what} are {apart:.3g} ULPs apart after {len(rule.SCALES)} steps, where rounding allows "
                f"{APART}; parameters err by {ours.error:.3g} (ours) and {theirs.error:.3g} against float64"
            )
    return None


def full(peer: type[Peer], scenario: Scenario, device: Device) -> Peer:
    """Return an implementation with random parameters and gradients, drawn on the device."""
    random = torch.Generator(device.device).manual_seed(0)

    def draw() -> list[Tensor]:
        dtype = getattr(torch, scenario.dtype)
        empty = (torch.empty(shape, dtype=dtype, device=device.device) for shape in scenario.shapes)
        return [tensor.normal_(generator=random) for tensor in empty]

    side = peer(scenario, draw())
    side.give(draw())
    return side


def party(side: Peer, scenario: Scenario) -> Party:
    """Return what is timed: a step leaves its gradients in place, a phase gets them back between two calls."""
    call = work_of(side, scenario)
    return Party(call, side.ready) if scenario.work == "phase" else Party(call)


def moving(scenario: Scenario, state: float, device: Device) -> Callable[[], None]:
    """Return a function that moves the bytes of the work, with `state` bytes a parameter of our state."""
    bytes_ = scenario.parameters * bytes_moved(scenario.dtype, scenario.work, state)
    once = device.memory_pass(scenario, bytes_)

    def repeated() -> None:
        for _ in range(STEPS):
            once()

    return repeated if scenario.work == "ten steps" else once


def timed(scenario: Scenario, peer: type[Peer], checked: tuple[Checked, Checked], harness: Harness) -> Figures:
    """Time both sides and the memory pass in turns, and return all figures."""
    device = harness.device
    sides: list[Peer] = []
    parties: list[Party] = []
    for each, asked, done in zip((peer.ours or Ours, peer), (scenario, scenario.theirs), checked, strict=True):
        sides.append(done.side or full(each, asked, device))
        if done.side is None:
            work_of(sides[-1], asked)()  # the first step makes the state
        parties.append(party(sides[-1], asked))
    state = [side.state_bytes() / scenario.parameters for side in sides]
    memory = Party(moving(scenario, state[0], device))
    watch = Watch()
    ours, theirs, moved = interleave([*parties, memory], harness.effort, device.clock(scenario))
    others = watch.others()
    shows_first = device.queues or peer.compiles
    figures = [
        Side(
            seconds=statistics.median(seconds),
            error_ulps=done.error,
            state_bytes=bytes_,
            device_seconds=device.device_seconds(each) if scenario.clock == "host" else None,
            first_seconds=done.first_seconds if shows_first else None,
            kernel=", ".join(sorted(side.kernels())) if device.queues and side is sides[0] else None,
        )
        for seconds, done, bytes_, each, side in zip((ours, theirs), checked, state, parties, sides, strict=True)
    ]
    each = ratios(ours, theirs)
    return Figures(
        ours=figures[0],
        peer=figures[1],
        ratio=statistics.median(each),
        lowest=min(each),
        highest=max(each),
        memory_ratio=statistics.median(ratios(ours, moved)),
        others=others,
    )


def said(error: BaseException) -> str:
    """Return an exception as one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
