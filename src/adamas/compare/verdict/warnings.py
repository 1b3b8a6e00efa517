"""Warnings: sentences that a reader must know about a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adamas.compare.search.record import Record
from adamas.compare.search.selection import STRONGEST, WEAKEST
from adamas.compare.study.arms import ARMS, JUDGED
from adamas.compare.study.direction import looks_reversed
from adamas.compare.verdict.decision import Verdict, relation
from adamas.compare.verdict.statistics import Difference
from adamas.compare.verdict.wording import ENGLISH, counted, title
from adamas.language import Texts

if TYPE_CHECKING:
    from adamas.compare.verdict.result import ArmResult

_NEAR_ZERO = 1e-3  # of the untrained weights' figure
_NARROW = 1.5  # if neighbouring decays of a grid differ by this ratio or less, no window lies between them
_WIDE = 20  # if they differ by this ratio or more, a whole window may; those of AdamW differ by 10 or less
_INERT = 0.1  # D below which a weight without gradient keeps over 90% of its size


def warnings_of(
    record: Record,
    arms: dict[str, ArmResult],
    verdict: Verdict,
    over_none: Mapping[str, Difference],
    say: Texts = ENGLISH,
) -> list[str]:
    """Return the warnings about a verdict: first those about the study, then those about each arm."""
    found: list[str] = []
    metric = record.settings.workload.metric
    if verdict.kind in ("switch", "keep") and all(_is_inert(record, arms[name]) for name in JUDGED):
        found.append(say("warning.both_inert"))
    if record.pilot and record.pilot.memorises:
        found.append(say("warning.memorises"))
    found += [say("warning.left_out", why=why) for why in record.left_out.values()]
    if _near_zero(record, arms):
        found.append(say("warning.near_zero"))
    if looks_reversed([outcome for run, outcome in record.outcomes.items() if run.stage == "pilot"], metric):
        found.append(reversed_warning(metric, say))
    found += _missed_window(record, verdict, over_none, say)
    return found + [
        say("warning.of_arm", arm=title(arm.arm, say), text=text)
        for arm in arms.values()
        for text in _arm_warnings(record, arm, say)
    ]


def reversed_warning(metric: str, say: Texts = ENGLISH) -> str:
    """Return the warning about a metric that looks reversed."""
    name = metric.removeprefix("-")
    key = "warning.reversed" if name == metric else "warning.reversed_negated"
    return say(key, metric=metric, name=name)


def _arm_warnings(record: Record, arm: ArmResult, say: Texts) -> list[str]:
    """Return the warnings about an arm: inert decay, edges of the grid, runs without a figure."""
    found: list[str] = []
    in_finals = sum(not outcome.ok for outcome in record.finals(arm.arm.name))
    diverged = arm.without_figures - arm.pruned - in_finals
    needless: tuple[str, ...] = ()  # edges beyond which no search would find more
    if _is_inert(record, arm) and arm.total_decay is not None:
        # D of a diverged run is too small, because it ended early; this is the D it would have had.
        per_step = arm.total_decay / arm.weight_decay_paper
        strongest = per_step * max(run.weight_decay_paper for run in record.searched[arm.arm.name])
        needless = (WEAKEST, STRONGEST) if strongest >= 1 else (WEAKEST,)
        key = "warning.inert" if strongest >= 1 else "warning.inert_short"
        found.append(say(key, total=f"{arm.total_decay:.2g}"))
    edge = arm.winner.at_edge
    if edge and edge not in needless:
        found.append(say("warning.edge", edge=say(f"warning.{edge.replace(' ', '_')}")))
    if diverged:
        found.append(say("warning.diverged", runs=counted("run", diverged, say)))
    if not arm.winner.confirmed:
        found.append(say("warning.unconfirmed"))
    if in_finals:
        found.append(say("warning.final_diverged", diverged=in_finals, pairs=record.pairs))
    return found


def _is_inert(record: Record, arm: ArmResult) -> bool:
    """Return whether the search of an arm with decay chose a decay that has almost no effect."""
    tuned = record.searched[arm.arm.name] and arm.arm.decay != "none"
    return bool(tuned and arm.total_decay is not None and arm.total_decay < _INERT)


def _missed_window(record: Record, verdict: Verdict, over_none: Mapping[str, Difference], say: Texts) -> list[str]:
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
    key = "warning.missed_window_useless" if useless else "warning.missed_window"
    return [say(key, arm=title(ARMS[against], say), step=f"{step:.3g}")]


def _near_zero(record: Record, arms: dict[str, ArmResult]) -> bool:
    """Return whether the margin is relative and the figures of both arms are almost 0."""
    metric, margin = record.settings.workload.metric, record.settings.margin
    untrained = [outcome.untrained[metric] for outcome in record.outcomes.values() if outcome.untrained]
    means = [arms[name].test[metric].mean for name in JUDGED if arms[name].test]
    return (
        margin.relative and bool(untrained and means) and max(map(abs, means)) < _NEAR_ZERO * max(map(abs, untrained))
    )
