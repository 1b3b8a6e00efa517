"""Warnings: sentences that a reader must know about a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adamas.compare.search.record import Record
from adamas.compare.search.selection import WEAKEST
from adamas.compare.study.arms import ARMS, JUDGED
from adamas.compare.study.direction import looks_reversed, reversed_warning
from adamas.compare.verdict.decision import Verdict, relation
from adamas.compare.verdict.statistics import Difference

if TYPE_CHECKING:
    from adamas.compare.verdict.result import ArmResult

_NEAR_ZERO = 1e-3  # of the untrained weights' figure
_NARROW = 1.5  # if neighbouring decays of a grid differ by this ratio or less, no window lies between them
_WIDE = 20  # if they differ by this ratio or more, a whole window may; those of AdamW differ by 10 or less
_INERT = 0.1  # D below which a weight without gradient keeps over 90% of its size


def warnings_of(
    record: Record, arms: dict[str, ArmResult], verdict: Verdict, over_none: Mapping[str, Difference]
) -> list[str]:
    """Return the warnings about a verdict: first those about the study, then those about each arm."""
    found: list[str] = []
    if verdict.kind in ("switch", "keep") and all(_is_inert(record, arms[name]) for name in JUDGED):
        found.append(
            "Both arms do best with almost no decay, and without decay they are the same optimizer: the difference "
            "between them comes from chance, for example from the rounding of weights with almost no gradient. More "
            "--seeds may show a tie."
        )
    if record.pilot and record.pilot.memorises:
        found.append(
            "Without decay, no learning rate validates better than the untrained weights, so the training loss chose "
            "the learning rate of the pilot."
        )
    found += [f"Left out: {why}." for why in record.left_out.values()]
    if _near_zero(record, arms):
        found.append(
            "Both arms' figures are below a thousandth of the untrained weights' figure: a relative difference between "
            "figures this small may not matter. Give the margin in the metric's own unit, as in --margin 0.002abs."
        )
    pilots = [outcome for run, outcome in record.outcomes.items() if run.stage == "pilot"]
    if looks_reversed(pilots, record.settings.workload.metric):
        found.append(reversed_warning(record.settings.workload.metric))
    found += _missed_window(record, verdict, over_none)
    return found + [f"{arm.arm.title}: {text}" for arm in arms.values() for text in _arm_warnings(record, arm)]


def _arm_warnings(record: Record, arm: ArmResult) -> list[str]:
    """Return the warnings about an arm: inert decay, edges of the grid, runs without a figure."""
    found: list[str] = []
    in_finals = sum(not outcome.ok for outcome in record.finals(arm.arm.name))
    diverged = arm.without_figures - arm.pruned - in_finals
    inert = _is_inert(record, arm)
    if inert and arm.total_decay is not None:
        # D of a diverged run is too small, because it ended early; this is the D it would have had.
        per_step = arm.total_decay / arm.weight_decay_paper
        strongest = per_step * max(run.weight_decay_paper for run in record.searched[arm.arm.name])
        tried = (
            "stronger decay scored worse"
            if strongest >= 1
            else "no decay that was tried reached a total of 1: the run is too short for decay to act"
        )
        found.append(f"the best setting uses almost no decay (total decay D = {arm.total_decay:.2g}); {tried}.")
    if arm.winner.at_edge and not (inert and arm.winner.at_edge == WEAKEST):  # weaker than inert would change nothing
        found.append(f"the best setting has {arm.winner.at_edge}; a wider search may find a better one.")
    if diverged:
        runs = f"{diverged} run{'s' if diverged > 1 else ''}"
        found.append(f"{runs} diverged; a diverged run counts towards the budget and is never chosen.")
    if not arm.winner.confirmed:
        found.append(
            "each of the best settings had a run without a figure when it ran on more seeds, so the chosen setting was "
            "tried on fewer seeds than planned."
        )
    if in_finals:
        found.append(f"the best setting diverged on {in_finals} of {record.pairs} fresh seeds.")
    return found


def _is_inert(record: Record, arm: ArmResult) -> bool:
    """Return whether the search of an arm with decay chose a decay that has almost no effect."""
    tuned = record.searched[arm.arm.name] and arm.arm.decay != "none"
    return bool(tuned and arm.total_decay is not None and arm.total_decay < _INERT)


def _missed_window(record: Record, verdict: Verdict, over_none: Mapping[str, Difference]) -> list[str]:
    """Return a warning if the verdict is against an arm for which the search may have missed the best decay.

    This may be so if the decays of its grid were far apart, or if none of them clearly helped.
    """
    against = {"switch": "adam_l2", "keep": "adamw"}.get(verdict.kind)
    if against is None or against not in record.grids:
        return []
    step = record.grids[against].decay_step
    useless = against in over_none and relation(over_none[against], record.settings.margin) != "lower"
    if step < _WIDE and not (useless and step > _NARROW):
        return []
    return [
        f"Neighbouring weight decays of {ARMS[against].title}'s grid lie {step:.3g} times apart"
        + (", and none of them clearly helped" if useless else "")
        + ": if only a narrow range between two of them is good, the search may have missed it. A larger --budget or "
        "more --trials puts them closer together."
    ]


def _near_zero(record: Record, arms: dict[str, ArmResult]) -> bool:
    """Return whether the margin is relative and the figures of both arms are almost 0."""
    metric, margin = record.settings.workload.metric, record.settings.margin
    untrained = [outcome.untrained[metric] for outcome in record.outcomes.values() if outcome.untrained]
    means = [arms[name].test[metric].mean for name in JUDGED if arms[name].test]
    return (
        margin.relative and bool(untrained and means) and max(map(abs, means)) < _NEAR_ZERO * max(map(abs, untrained))
    )
