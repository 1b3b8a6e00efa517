"""From intervals to a verdict: a pure table, and the sentences that state the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adamas.compare.study.arms import ARMS, JUDGED
from adamas.compare.study.margin import Margin
from adamas.compare.verdict.statistics import Difference, t_quantile
from adamas.compare.verdict.wording import show, words

Kind = Literal["switch", "keep", "no_difference", "undecided", "no_decay"]
Relation = Literal["lower", "higher", "same", "unclear"]
_FEW_SEEDS = 6  # fewer seeds measure a spread with an error of a third or more
_MOST_SEEDS = 2000  # more further seeds than these are not worth suggesting


@dataclass(frozen=True)
class Verdict:
    """The advice to the user, and the reason for it.

    Attributes:
        kind: The row of the table.
        advice: The advice in a few words.
        evidence: The figures that support the advice, as a sentence.
        more_seeds: The number of further seeds that would decide at the observed spread; None for a decided verdict,
            and where more than 2,000 seeds would be needed.
        note: A sentence about the comparison with no weight decay; empty where the verdict says the same.
    """

    kind: Kind
    advice: str
    evidence: str
    more_seeds: int | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """The advice and the evidence in one sentence."""
        return f"{self.advice}: {self.evidence}"


def relation(difference: Difference, margin: Margin) -> Relation:
    """Return where a difference lies, by its interval and its size.

    It is lower or higher only if the interval excludes 0 and the mean is at least the margin away from 0. It is the
    same only if the whole interval lies inside the margin.
    """
    if difference.high < 0 and difference.mean <= -margin.value:
        return "lower"
    if difference.low > 0 and difference.mean >= margin.value:
        return "higher"
    if -margin.value < difference.low and difference.high < margin.value:
        return "same"
    return "unclear"


def decide(adamw: Difference, over_none: Mapping[str, Difference], metric: str, margin: Margin) -> Verdict:
    """Return the verdict of a study.

    Args:
        adamw: The difference AdamW minus Adam with L2.
        over_none: The difference of each arm with decay minus Adam without; only the two judged arms count.
        metric: The name of the primary metric.
        margin: The smallest difference that matters.
    """
    over_none = {arm: difference for arm, difference in over_none.items() if arm in JUDGED}
    against_none: dict[str, Relation] = {arm: relation(difference, margin) for arm, difference in over_none.items()}
    if against_none and all(found == "higher" for found in against_none.values()):
        nearest, gap = min(over_none.items(), key=lambda entry: entry[1].mean)
        return Verdict(
            "no_decay",
            "Leave weight decay off",
            f"Adam without weight decay beats both arms with it; the nearer of them, {ARMS[nearest].title}, has a test "
            f"{words(metric)} {show(gap.mean, gap.relative)} higher ({_interval(gap)}).",
        )
    note = _note_on_decay(against_none)
    lead = f"AdamW's test {words(metric)} is {against(adamw)} that of Adam with L2 ({_interval(adamw)})"
    match relation(adamw, margin):
        case "lower":
            return Verdict("switch", "Switch to AdamW", f"{lead}.", note=note)
        case "higher":
            return Verdict("keep", "Keep Adam with L2", f"{lead}.", note=note)
        case "same":
            band = f"±{margin}".removesuffix("abs")  # an amount in the unit of the metric
            inside = f"the whole interval lies inside the margin of {band}"
            return Verdict("no_difference", "No difference that matters", f"{lead}; {inside}.", note=note)
        case "unclear":
            return _undecided(adamw, lead, margin, note)


def _undecided(adamw: Difference, lead: str, margin: Margin, note: str) -> Verdict:
    """Return the verdict for an interval that decides nothing, with the number of seeds that would decide."""
    if adamw.low <= -margin.value and adamw.high >= margin.value:  # AdamW may be better, or worse, by the margin
        leaning = "too noisy to tell"
    elif abs(adamw.mean) < margin.value:
        leaning = "leaning towards no difference"
    else:
        leaning = f"leaning towards {'AdamW' if adamw.mean < 0 else 'Adam with L2'}"
    more = further_seeds(adamw, margin)
    if more is None:
        remedy = (
            f"even {_MOST_SEEDS:,} more seeds would not decide at this spread; widen the margin if a difference this "
            "small does not matter to you"
        )
    else:
        remedy = f"about {more} more seed{'s' if more > 1 else ''} would decide at this spread"
        if len(adamw.values) < _FEW_SEEDS:
            remedy += f", although {len(adamw.values)} seeds measure the spread only roughly"
    return Verdict("undecided", f"Undecided, {leaning}", f"{lead}; {remedy}.", more, note)


def further_seeds(difference: Difference, margin: Margin) -> int | None:
    """Return how many more seeds would decide, with a t interval at the observed mean and spread; None beyond 2,000."""
    size = abs(difference.mean)
    room = size if size >= margin.value else margin.value - size
    pairs = len(difference.values) + np.arange(1, _MOST_SEEDS + 1)
    decides = t_quantile(pairs) * difference.sd / np.sqrt(pairs) < room
    return int(np.argmax(decides)) + 1 if decides.any() else None


def _note_on_decay(against_none: Mapping[str, Relation]) -> str:
    """Return a sentence on whether weight decay helps the job, in either arm."""
    if better := [ARMS[arm].title for arm, found in against_none.items() if found == "lower"]:
        verb = "beats" if len(better) == 1 else "beat"
        return f"Weight decay helps this job: {' and '.join(better)} {verb} Adam without it."
    if not against_none:
        return ""
    if "unclear" not in against_none.values():
        return "Weight decay does not help this job: neither arm beats Adam without it."
    return "It is unclear whether weight decay helps this job: neither arm clearly beats Adam without it."


def against(difference: Difference) -> str:
    """Return a difference in words, as "1.00 % below", to be followed by the name of the second arm."""
    if difference.mean == 0:
        return "equal to"
    return f"{show(abs(difference.mean), difference.relative)} {'below' if difference.mean < 0 else 'above'}"


def _interval(difference: Difference) -> str:
    """Return the interval in words, with the number of pairs."""
    low, high = (show(end, difference.relative, sign=True) for end in (difference.low, difference.high))
    return f"95 % interval {low} to {high}, {len(difference.values)} paired seeds"
