"""What to keep in mind about a verdict: sentences that a reader should have beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adamas.compare.search.record import Record
from adamas.compare.search.selection import WEAKEST
from adamas.compare.study.arms import ARMS, JUDGED
from adamas.compare.verdict.decision import Verdict, relation
from adamas.compare.verdict.statistics import Difference

if TYPE_CHECKING:
    from adamas.compare.verdict.result import ArmResult

NEAR_ZERO = 1e-3  # of the untrained weights' figure
NARROW = 1.5  # ratio of them up to which nothing to speak of lies between two
WIDE = 20  # ratio of a grid's neighbouring decays from which on a whole window may lie between two; AdamW's is up to 10
INERT = 0.1  # D below which a weight without gradient keeps over 90 % of itself: decay has hardly begun


def cautions(
    record: Record, arms: dict[str, ArmResult], verdict: Verdict, over_none: Mapping[str, Difference]
) -> list[str]:
    """Warnings a reader should have: of the study, then of each arm."""
    found: list[str] = []
    if verdict.kind in ("switch", "keep") and all(is_inert(record, arms[name]) for name in JUDGED):
        found.append(
            "Both arms do best with almost no decay, where they are one optimizer: what tells them apart is not decay "
            "but chance, such as the rounding of weights that have next to no gradient. More --seeds may show a tie."
        )
    if record.pilot and record.pilot.memorises:
        found.append(
            "Without decay validation gets no better than that of the untrained weights at any learning rate; the "
            "pilot chose its rate by the training loss."
        )
    found += [f"Left out: {why}." for why in record.lost.values()]
    if near_zero(record, arms):
        found.append(
            "Both arms' figures are below a thousandth of the untrained weights': a fraction of next to nothing may "
            "not matter. Give the margin in the metric's own unit, as in --margin 0.002abs."
        )
    found += missed_window(record, verdict, over_none)
    return found + [sentence for name, arm in arms.items() for sentence in cautions_of(record, name, arm)]


def cautions_of(record: Record, name: str, arm: ArmResult) -> list[str]:
    """Warnings about an arm: inert decay, edges of the grid, runs without a figure."""
    found: list[str] = []
    title = arm.arm.title
    lost = sum(not outcome.ok for outcome in record.finals(name))
    diverged = arm.without_figures - arm.pruned - lost
    inert = is_inert(record, arm)
    if inert and arm.pull is not None:
        per_step = arm.pull / arm.weight_decay_paper  # those that diverged did not come to all of theirs
        strongest = per_step * max(run.weight_decay_paper for run in record.searched[name])
        tried = (
            f"although values up to D = {strongest:.3g} were tried: of these it does best with almost no decay"
            if strongest >= 1
            else "and no value tried could: the run is too short for decay to act, and a tie says nothing"
        )
        found.append(f"Decay is inert in {title}'s best cell (D = {arm.pull:.2g}, far below 1), {tried}.")
    if arm.winner.at_edge and not (inert and arm.winner.at_edge == WEAKEST):  # beyond it is only less of nothing
        found.append(f"{title}'s best cell has {arm.winner.at_edge}: a wider search may find a better one.")
    if diverged:
        found.append(f"{diverged} of {title}'s runs diverged; they count as tried and were never chosen.")
    if not arm.winner.confirmed:
        found.append(f"Every setting of {title} that was to be confirmed lost a seed: the one chosen ran on fewer.")
    if lost:
        found.append(f"{title}'s best cell diverged on {lost} of {record.settings.seeds} fresh seeds.")
    return found


def is_inert(record: Record, arm: ArmResult) -> bool:
    """Whether a search chose a decay that hardly acts."""
    tuned = record.searched[arm.arm.name] and arm.arm.decay != "none"
    return bool(tuned and arm.pull is not None and arm.pull < INERT)


def missed_window(record: Record, verdict: Verdict, over_none: Mapping[str, Difference]) -> list[str]:
    """A warning where the verdict is against an arm whose best decay the search may have missed.

    That is one whose decays were laid out far apart, or that was not shown to gain anything by any of them.
    """
    against = {"switch": "adam_l2", "keep": "adamw"}.get(verdict.kind)
    if against is None or against not in record.grids:
        return []
    step = record.grids[against].decay_step
    useless = against in over_none and relation(over_none[against], record.settings.margin) != "lower"
    if step < WIDE and not (useless and step > NARROW):
        return []
    return [
        f"The decays of {ARMS[against].title}'s grid lie {step:.3g} times apart"
        + (", and it was not shown to gain by any" if useless else "")
        + ": if the job wants one in a narrow window between two of them, the search may have missed it. With a larger "
        "--budget or more --trials they lie closer."
    ]


def near_zero(record: Record, arms: dict[str, ArmResult]) -> bool:
    """Whether a relative margin is one of figures that have all but vanished."""
    metric, margin = record.settings.workload.metric, record.settings.margin
    untrained = [outcome.untrained[metric] for outcome in record.outcomes.values() if outcome.untrained]
    means = [arms[name].test[metric].mean for name in JUDGED if arms[name].test]
    return margin.relative and bool(untrained and means) and max(map(abs, means)) < NEAR_ZERO * max(map(abs, untrained))
