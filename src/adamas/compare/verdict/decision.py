"""From intervals to a verdict: a pure table, and the sentences that state it."""

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
FEW_SEEDS = 6  # of which a spread is known to a third at best
MOST_SEEDS = 2000  # a study that would need more is not worth suggesting


@dataclass(frozen=True)
class Verdict:
    """What to do.

    Attributes:
        kind: the row of the table.
        advice: what to do, in a few words.
        evidence: the figures it rests on, as a sentence.
        more_seeds: further seeds that would decide at the observed spread; None where decided or hopeless.
        note: what the comparison with no weight decay adds; empty where the verdict says it already.
    """

    kind: Kind
    advice: str
    evidence: str
    more_seeds: int | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """Advice and evidence in one sentence."""
        return f"{self.advice}: {self.evidence}"


def relation(difference: Difference, margin: Margin) -> Relation:
    """Where a difference lies, interval and size considered.

    Lower or higher needs both an interval that excludes 0 and a mean at least the margin away from it; the same needs
    an interval wholly inside the margin.
    """
    if difference.high < 0 and difference.mean <= -margin.value:
        return "lower"
    if difference.low > 0 and difference.mean >= margin.value:
        return "higher"
    if -margin.value < difference.low and difference.high < margin.value:
        return "same"
    return "unclear"


def decide(adamw: Difference, over_none: Mapping[str, Difference], metric: str, margin: Margin) -> Verdict:
    """Give the verdict.

    Args:
        adamw: AdamW minus Adam with L2.
        over_none: each arm with decay minus Adam without; of these the two count.
        metric: name of the primary metric.
        margin: of all differences.
    """
    over_none = {arm: difference for arm, difference in over_none.items() if arm in JUDGED}
    against_none: dict[str, Relation] = {arm: relation(difference, margin) for arm, difference in over_none.items()}
    if against_none and all(found == "higher" for found in against_none.values()):
        nearest = min(over_none, key=lambda arm: over_none[arm].mean)
        return Verdict(
            "no_decay",
            "Leave weight decay off",
            f"Adam without it beats both other arms; the nearer, {ARMS[nearest].title}, has a test {words(metric)} "
            f"{amount(over_none[nearest])} higher ({interval(over_none[nearest])}).",
        )
    note = note_on_decay(against_none)
    lead = f"AdamW's test {words(metric)} is {against(adamw)} Adam with L2's ({interval(adamw)})"
    match relation(adamw, margin):
        case "lower":
            return Verdict("switch", "Switch to AdamW", f"{lead}.", note=note)
        case "higher":
            return Verdict("keep", "Keep Adam with L2", f"{lead}.", note=note)
        case "same":
            inside = f"wholly inside the margin of ±{margin}"
            return Verdict("no_difference", "No difference that matters", f"{lead}, {inside}.", note=note)
        case "unclear":
            return undecided(adamw, lead, margin, note)


def undecided(adamw: Difference, lead: str, margin: Margin, note: str) -> Verdict:
    """The verdict where the interval settles nothing: which way it leans, and what would settle it."""
    favoured = "AdamW" if adamw.mean < 0 else "Adam with L2"
    leaning = "no difference" if abs(adamw.mean) < margin.value else favoured
    more = further_seeds(adamw, margin)
    if more is None:
        remedy = "at this spread no reasonable number of seeds would decide; widen the margin if so small a gap is moot"
    else:
        remedy = f"about {more} more seed{'s' if more > 1 else ''} would decide at this spread"
        if len(adamw.values) < FEW_SEEDS:
            remedy += f", which {len(adamw.values)} seeds hardly tell"
    return Verdict("undecided", f"Undecided, leaning towards {leaning}", f"{lead}; {remedy}.", more, note)


def further_seeds(difference: Difference, margin: Margin) -> int | None:
    """Seeds to add until the t interval at the observed mean and spread would settle the table; None beyond 2,000."""
    size = abs(difference.mean)
    room = size if size >= margin.value else margin.value - size
    pairs = len(difference.values) + np.arange(1, MOST_SEEDS + 1)
    decides = t_quantile(pairs) * difference.sd / np.sqrt(pairs) < room
    return int(np.argmax(decides)) + 1 if decides.any() else None


def note_on_decay(against_none: Mapping[str, Relation]) -> str:
    """What weight decay does for the job, whichever arm it is in."""
    better = [ARMS[arm].title for arm, found in against_none.items() if found == "lower"]
    if better:
        verb = "beats" if len(better) == 1 else "beat"
        return f"Weight decay helps this job: {' and '.join(better)} {verb} Adam without it."
    if not against_none:
        return ""
    if "unclear" not in against_none.values():
        return "Weight decay does not help this job: neither arm beats Adam without it."
    return "Neither arm was shown to beat Adam without weight decay."


def against(difference: Difference) -> str:
    """A difference in words, to be followed by what it is measured from."""
    if difference.mean == 0:
        return "equal to"
    return f"{amount(difference)} {'below' if difference.mean < 0 else 'above'}"


def amount(difference: Difference) -> str:
    """Size of a difference without its sign."""
    return show(abs(difference.mean), difference.relative)


def interval(difference: Difference) -> str:
    """The interval in words, with the number of pairs."""
    low, high = (show(end, difference.relative, sign=True) for end in (difference.low, difference.high))
    return f"95 % interval {low} to {high}, {len(difference.values)} paired seeds"
