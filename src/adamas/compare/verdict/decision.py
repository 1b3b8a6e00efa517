"""From intervals to a verdict: a pure table, and the sentences that state the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from adamas.compare.study.arms import ARMS, JUDGED
from adamas.compare.study.margin import Margin
from adamas.compare.verdict.sequential import level, looks
from adamas.compare.verdict.statistics import Difference, t_quantile
from adamas.compare.verdict.wording import ENGLISH, show, texts, title, words
from adamas.language import Language, Texts

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
        lang: The language of the sentences.
    """

    kind: Kind
    advice: str
    evidence: str
    more_seeds: int | None = None
    chance: float = 0.0
    note: str = ""
    failed: str = ""
    lang: Language = "en"

    @property
    def settled(self) -> bool:
        """Whether further seeds would change nothing."""
        return self.kind != "undecided" or bool(self.failed)

    @property
    def text(self) -> str:
        """The advice and the evidence in one sentence."""
        return texts(self.lang)("verdict.text", advice=self.advice, evidence=self.evidence)


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


def decide(
    adamw: Difference,
    over_none: Mapping[str, Difference],
    metric: str,
    margin: Margin,
    plan: Plan,
    say: Texts = ENGLISH,
) -> Verdict:
    """Return the verdict of a study.

    Args:
        adamw: The difference AdamW minus Adam with L2.
        over_none: The difference of each arm with decay minus Adam without; only the two judged arms count.
        metric: The name of the primary metric.
        margin: The smallest difference that matters.
        plan: How the finals go on if this look decides nothing.
        say: The texts of the verdict's language.
    """
    over_none = {arm: difference for arm, difference in over_none.items() if arm in JUDGED}
    against_none: dict[str, Relation] = {arm: relation(difference, margin) for arm, difference in over_none.items()}
    verdict = partial(_verdict, say)
    if against_none and all(found == "higher" for found in against_none.values()):
        nearest, gap = min(over_none.items(), key=lambda entry: entry[1].mean)
        size = show(gap.mean, gap.relative)
        named = {"arm": title(ARMS[nearest], say), "metric": words(metric, say), "size": size}
        return verdict("no_decay", "no_decay", "no_decay", interval=_interval(gap, say), **named)
    note = _note_on_decay(over_none, against_none, margin, say)
    lead = _lead(adamw, metric, say)
    found = relation(adamw, margin)
    loser = {"lower": "adam_l2", "higher": "adamw"}.get(found, "")
    if plan.tuned and against_none.get(loser) == "higher":
        # A tuned arm cannot lose to Adam without decay, as its decay may go to zero.
        gap, arm = over_none[loser], title(ARMS[loser], say)
        named = {"arm": arm, "size": show(gap.mean, gap.relative, sign=True), "interval": _interval(gap, say)}
        return replace(verdict("undecided", "failed_search", "failed", lead=lead, **named), failed=loser)
    match found:
        case "lower":
            found = verdict("switch", "switch", "", lead=lead)
        case "higher":
            found = verdict("keep", "keep", "", lead=lead)
        case "same" if adamw.identical:
            found = verdict("no_difference", "identical", "identical", pairs=len(adamw.values))
        case "same":
            found = verdict("no_difference", "same", "same", lead=lead, band=margin.band)
        case _:
            found = _undecided(adamw, lead, margin, plan, say)
    return replace(found, note=note)


def _verdict(say: Texts, kind: Kind, advice: str, evidence: str, **named: Any) -> Verdict:
    """Return a verdict with the texts of these keys."""
    key = f"verdict.evidence_{evidence}" if evidence else "verdict.evidence"
    return Verdict(kind, say(f"verdict.{advice}", **named), say(key, **named), lang=say.lang)


def _lead(adamw: Difference, metric: str, say: Texts) -> str:
    """Return the difference between the two arms in words, with its interval."""
    key = "equal" if adamw.mean == 0 else "below" if adamw.mean < 0 else "above"
    size = show(abs(adamw.mean), adamw.relative)
    return say(f"verdict.{key}", metric=words(metric, say), size=size, interval=_interval(adamw, say))


def _undecided(adamw: Difference, lead: str, margin: Margin, plan: Plan, say: Texts) -> Verdict:
    """Return the verdict for an interval that decides nothing, with the number of seeds that would decide."""
    arm = title(ARMS["adamw" if adamw.mean < 0 else "adam_l2"], say)
    if adamw.high - adamw.low > _NOISY * margin.value or (adamw.low <= -margin.value and adamw.high >= margin.value):
        leaning = "noisy"
    else:
        leaning = "leaning_same" if abs(adamw.mean) < margin.value else "leaning"
    more, chance = further_seeds(adamw, margin, plan)
    remedy = "hopeless" if more is None else "one_more" if more == 1 else "more"
    found = _verdict(say, "undecided", leaning, remedy, arm=arm, lead=lead, more=more, chance=f"{chance:.0%}")
    return replace(found, more_seeds=more, chance=chance)


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


def _note_on_decay(
    over_none: Mapping[str, Difference], against_none: Mapping[str, Relation], margin: Margin, say: Texts
) -> str:
    """Return a sentence on whether weight decay helps the job, in either arm."""
    if better := [title(ARMS[arm], say) for arm, found in against_none.items() if found == "lower"]:
        key = "note_helps_one" if len(better) == 1 else "note_helps"
        return say(f"verdict.{key}", arms=say("word.and").join(better))
    if not against_none:
        return ""
    if all(difference.identical for difference in over_none.values()):
        return say("verdict.note_identical")
    if all(difference.low > 0 for difference in over_none.values()):
        return say("verdict.note_useless")
    if "unclear" not in against_none.values():
        return say("verdict.note_small", margin=margin)
    return say("verdict.note_unclear")


def against(difference: Difference) -> str:
    """Return a difference in words, as "1.00% below", to be followed by the name of the second arm."""
    if difference.mean == 0:
        return "equal to"
    return f"{show(abs(difference.mean), difference.relative)} {'below' if difference.mean < 0 else 'above'}"


def _interval(difference: Difference, say: Texts) -> str:
    """Return the interval in words, with the number of pairs."""
    low, high = (show(end, difference.relative, sign=True) for end in (difference.low, difference.high))
    return say("verdict.interval", low=low, high=high, pairs=len(difference.values))
