"""From intervals to a verdict: a pure table, and the sentences that state the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adamas.compare.study.arms import ARMS, JUDGED
from adamas.compare.study.margin import Margin
from adamas.compare.verdict.sequential import level, looks
from adamas.compare.verdict.statistics import Difference, t_quantile
from adamas.compare.verdict.wording import show, words

Kind = Literal["switch", "keep", "no_difference", "undecided", "no_decay"]
Relation = Literal["lower", "higher", "same", "unclear"]
_MOST_PAIRS = 60  # more pairs than these are not worth suggesting
_LIKELY = 0.5  # further seeds are suggested if they decide with this probability or more
_NOISY = 15  # margins: a wider interval is noise
_DRAWS = 2000  # of the means that further seeds may give


@dataclass(frozen=True)
class Plan:
    """What was planned before the finals.

    Attributes:
        pairs: The number of paired seeds.
        tuned: Whether each arm had a search, and not settings from theory.
    """

    pairs: int
    tuned: bool = True


@dataclass(frozen=True)
class Verdict:
    """The advice to the user, and the reason for it.

    Attributes:
        kind: The row of the table.
        advice: The advice in a few words.
        evidence: The figures that support the advice, as a sentence.
        more_seeds: The number of further seeds that would decide more likely than not; None for a decided verdict, and
            where more than 60 seeds would be needed.
        chance: The probability that these further seeds decide.
        note: A sentence about the comparison with no weight decay; empty where the verdict says the same.
        failed: The judged arm whose search failed: it lost to Adam without decay, which it could have equalled.
    """

    kind: Kind
    advice: str
    evidence: str
    more_seeds: int | None = None
    chance: float = 0.0
    note: str = ""
    failed: str = ""

    @property
    def settled(self) -> bool:
        """Whether further seeds would change nothing."""
        return self.kind != "undecided" or bool(self.failed)

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


def decide(adamw: Difference, over_none: Mapping[str, Difference], metric: str, margin: Margin, plan: Plan) -> Verdict:
    """Return the verdict of a study.

    Args:
        adamw: The difference AdamW minus Adam with L2.
        over_none: The difference of each arm with decay minus Adam without; only the two judged arms count.
        metric: The name of the primary metric.
        margin: The smallest difference that matters.
        plan: How the finals go on if this look decides nothing.
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
    note = _note_on_decay(over_none, against_none, margin)
    lead = f"AdamW's test {words(metric)} is {against(adamw)} that of Adam with L2 ({_interval(adamw)})"
    found = relation(adamw, margin)
    loser = {"lower": "adam_l2", "higher": "adamw"}.get(found, "")
    if plan.tuned and against_none.get(loser) == "higher":
        return _failed_search(loser, over_none[loser], lead)
    match found:
        case "lower":
            return Verdict("switch", "Switch to AdamW", f"{lead}.", note=note)
        case "higher":
            return Verdict("keep", "Keep Adam with L2", f"{lead}.", note=note)
        case "same" if adamw.identical:
            same = f"AdamW and Adam with L2 gave identical figures on every one of {len(adamw.values)} seeds."
            return Verdict("no_difference", "No difference", same, note=note)
        case "same":
            band = f"±{margin}".removesuffix("abs")  # an amount in the unit of the metric
            inside = f"the whole interval lies inside the margin of {band}"
            return Verdict("no_difference", "No difference that matters", f"{lead}; {inside}.", note=note)
        case _:
            return _undecided(adamw, lead, margin, note, plan)


def _failed_search(arm: str, gap: Difference, lead: str) -> Verdict:
    """Return the verdict where an arm lost to Adam without decay: a tuned arm cannot, as its decay may go to zero."""
    title = ARMS[arm].title
    return Verdict(
        "undecided",
        f"Undecided, the search of {title} failed",
        f"{lead}, but {title} is also {show(gap.mean, gap.relative, sign=True)} against Adam without decay "
        f"({_interval(gap)}), which a tuned arm would equal with almost no decay. A larger --budget searches longer.",
        failed=arm,
    )


def _undecided(adamw: Difference, lead: str, margin: Margin, note: str, plan: Plan) -> Verdict:
    """Return the verdict for an interval that decides nothing, with the number of seeds that would decide."""
    if adamw.high - adamw.low > _NOISY * margin.value or (adamw.low <= -margin.value and adamw.high >= margin.value):
        leaning = "too noisy to tell"
    elif abs(adamw.mean) < margin.value:
        leaning = "leaning towards no difference"
    else:
        leaning = f"leaning towards {'AdamW' if adamw.mean < 0 else 'Adam with L2'}"
    more, chance = further_seeds(adamw, margin, plan)
    if more is None:
        remedy = (
            "more seeds are not likely to settle this; use a wider margin if a difference this small does not matter "
            "to you"
        )
    else:
        remedy = f"{more} more seed{'s' if more > 1 else ''} would decide with a probability of about {chance:.0%}"
    return Verdict("undecided", f"Undecided, {leaning}", f"{lead}; {remedy}.", more, chance, note)


def further_seeds(difference: Difference, margin: Margin, plan: Plan) -> tuple[int | None, float]:
    """Return how many more seeds decide more likely than not, and the probability that they do; None beyond 60 pairs.

    The true difference is drawn from what the pairs so far say of it, then the mean of the further pairs.
    """
    pairs, rng = len(difference.values), np.random.default_rng(0)
    truth = difference.mean + difference.sd / math.sqrt(pairs) * rng.standard_t(pairs - 1, _DRAWS)
    chance = rng.standard_normal(_DRAWS)
    for now in looks(_MOST_PAIRS, plan.pairs):
        if now <= pairs:
            continue
        new = now - pairs
        mean = (pairs * difference.mean + new * truth + math.sqrt(new) * difference.sd * chance) / now
        error = math.hypot(difference.sd / math.sqrt(now), difference.search)
        half = float(t_quantile(now, level(now, plan.pairs))) * error
        size = np.abs(mean)
        decided = float(np.mean(((size > half) & (size >= margin.value)) | (size + half < margin.value)))
        if decided >= _LIKELY:
            return new, decided
    return None, 0.0


def _note_on_decay(over_none: Mapping[str, Difference], against_none: Mapping[str, Relation], margin: Margin) -> str:
    """Return a sentence on whether weight decay helps the job, in either arm."""
    if better := [ARMS[arm].title for arm, found in against_none.items() if found == "lower"]:
        verb = "beats" if len(better) == 1 else "beat"
        return f"Weight decay helps this job: {' and '.join(better)} {verb} Adam without it."
    if not against_none:
        return ""
    if all(difference.identical for difference in over_none.values()):
        return "Weight decay touches nothing here: the figures are identical to those without it on every seed."
    if all(difference.low > 0 for difference in over_none.values()):
        return "Weight decay does not help this job: neither arm beats Adam without it."
    if "unclear" not in against_none.values():
        return f"Weight decay changes the figure by less than your margin of {margin}."
    return "It is unclear whether weight decay helps this job: neither arm clearly beats Adam without it."


def against(difference: Difference) -> str:
    """Return a difference in words, as "1.00% below", to be followed by the name of the second arm."""
    if difference.mean == 0:
        return "equal to"
    return f"{show(abs(difference.mean), difference.relative)} {'below' if difference.mean < 0 else 'above'}"


def _interval(difference: Difference) -> str:
    """Return the interval in words, with the number of pairs."""
    low, high = (show(end, difference.relative, sign=True) for end in (difference.low, difference.high))
    return f"95% interval {low} to {high}, {len(difference.values)} paired seeds"
