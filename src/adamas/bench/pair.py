"""One comparison in a process of its own, so that the thread pools of rivals never meet.

Started as `python -m adamas.bench.pair`, with an order in JSON on standard input; prints, in JSON,
either its row or what failed.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adamas.bench import rule
from adamas.bench.measure import Effort, Party, interleave, ratios
from adamas.bench.memory import memory_pass
from adamas.bench.neighbours import Watch
from adamas.bench.peers import find, versions
from adamas.bench.peers.contract import Peer
from adamas.bench.peers.ours import Ours
from adamas.bench.row import Figures, Row, Side
from adamas.bench.scenario import Scenario

# How far two that follow the same rule may be apart, in the ULPs of `rule.error_ulps`. A step rounds the parameter
# twice, half a ULP each; its update carries at most about ten roundings of its own, relative to a length of lr where
# a ULP is that of at least 5 lr: below a ULP. Two a step for each of two sides.
APART = 2 * 2 * len(rule.SCALES)


@dataclass(frozen=True)
class Checked:
    """What an implementation came to after the checked steps."""

    parameters: list[Tensor]
    averages: list[Tensor]


def compare(scenario: Scenario, peer: type[Peer], effort: Effort) -> Row:
    """Check and time our implementation beside another's; a peer that cannot gives a row with its reason."""
    params, grads = rule.initial(scenario)
    ours = Ours(scenario, params)
    mine = check(ours, scenario, grads)
    reason = peer.refuses(scenario)
    if reason is not None:
        return Row.of(scenario, peer.name, versions(peer), reason=reason)
    try:
        theirs = peer(scenario, params)
        other = check(theirs, scenario, grads)
    except Exception as error:  # whatever a peer raises is its refusal
        return Row.of(scenario, peer.name, versions(peer), reason=f"refuses: {said(error)}")
    wanted = rule.expected(scenario, ours.eps_mode)
    theirs_wanted = wanted if peer.eps_mode == ours.eps_mode else rule.expected(scenario, peer.eps_mode)
    errors = (
        rule.error_ulps(mine.parameters, wanted.parameters),
        rule.error_ulps(other.parameters, theirs_wanted.parameters),
    )
    averages = rule.error_ulps(mine.averages, wanted.averages) if mine.averages else 0.0
    reason = strayed(mine, wanted) if scenario.lossy else wrong(max(errors[0], averages))
    reason = reason or difference(mine, other, errors, peer.exact and not scenario.lossy)
    if reason is not None:
        return Row.of(scenario, peer.name, versions(peer), reason=reason)
    del mine, other, wanted, theirs_wanted  # memory
    return Row.of(scenario, peer.name, versions(peer), figures=timed(scenario, (ours, theirs), errors, effort))


def check(side: Peer, scenario: Scenario, grads: list[Tensor]) -> Checked:
    """Take the checked steps, or phases; leave the side ready to be timed."""
    for scale in rule.SCALES:
        side.give([grad * scale for grad in grads])
        act(side, scenario)()
    found = Checked(side.parameters(), side.averages() if scenario.work == "phase" else [])
    side.give(grads)
    return found


def act(side: Peer, scenario: Scenario) -> Callable[[], None]:
    """What is timed."""
    return side.step if scenario.work == "step" else side.phase


def wrong(error: float) -> str | None:
    """Why our own result is not to be timed; None if it may."""
    steps = len(rule.SCALES)
    return None if error <= APART else f"adamas errs by {error:.3g} ULPs after {steps} steps; rounding allows {APART}"


def strayed(mine: Checked, wanted: rule.Expected) -> str | None:
    """Why our result with moments of fewer bits is not to be timed: no parameter may be a step and a half off.

    Of five steps, each at most about lr long, rounding to 5 bits changes none by a third.
    """
    off = max(
        float(np.abs(a - b).max(initial=0.0))
        for a, b in zip(rule.as_float64(mine.parameters), wanted.parameters, strict=True)
    )
    allowed = 1.5 * rule.LR + max(rule.brief_spacing(tensor) for tensor in mine.parameters)
    return None if off <= allowed else f"adamas is off by {off:.3g}; rounding its moments allows {allowed:.3g}"


def difference(mine: Checked, other: Checked, errors: tuple[float, float], exact: bool) -> str | None:
    """Why the peer's result is not to be timed; None if it may. Only an exact one must agree with ours."""
    if not math.isfinite(errors[1]):
        return f"differs: its parameters are not finite after {len(rule.SCALES)} steps"
    if not exact:
        return None
    for what, a, b in (
        ("parameters", mine.parameters, other.parameters),
        ("averages", mine.averages, other.averages),
    ):
        apart = rule.error_ulps(b, rule.as_float64(a))
        if not apart <= APART:
            return (
                f"differs: {what} are {apart:.3g} ULPs apart after {len(rule.SCALES)} steps, where rounding allows "
                f"{APART}; parameters err by {errors[0]:.3g} (ours) and {errors[1]:.3g} against float64"
            )
    return None


def timed(scenario: Scenario, sides: tuple[Peer, Peer], errors: tuple[float, float], effort: Effort) -> Figures:
    """Time both sides and the memory pass."""
    parties = [Party(act(side, scenario), side.ready) for side in sides]
    watch = Watch()
    ours, theirs, memory = interleave([*parties, Party(memory_pass(scenario))], effort)
    others = watch.others()
    figures = [
        Side(statistics.median(seconds), error, side.state_bytes() / scenario.parameters)
        for side, seconds, error in zip(sides, (ours, theirs), errors, strict=True)
    ]
    each = ratios(ours, theirs)
    return Figures(
        ours=figures[0],
        peer=figures[1],
        ratio=statistics.median(each),
        lowest=min(each),
        highest=max(each),
        memory_ratio=statistics.median(ratios(ours, memory)),
        others=others,
    )


def said(error: Exception) -> str:
    """An exception on a line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main() -> None:
    """Carry out the order on standard input."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what peers print is no answer
    order = json.loads(sys.stdin.read())
    try:
        effort = Effort(**order["effort"])
        torch.set_num_threads(effort.threads)
        row = compare(Scenario.from_json(order["scenario"]), find(order["peer"]), effort)
        answer.write(json.dumps({"row": row.to_json()}))
    except Exception as error:
        answer.write(json.dumps({"failed": said(error)}))
    answer.close()


if __name__ == "__main__":
    main()
