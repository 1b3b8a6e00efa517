"""A claim: a sentence, an experiment that measures it, a rule that judges the figures, and words for the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from adamas.language import Language

Verdict = Literal["holds", "conditional", "does_not_hold"]
_ROUNDING = 1e-9  # a fit through equal figures gives a slope of some 1e-16


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; an exact figure has an interval of no width."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the figure with its interval in brackets."""
        value, low, high = (f"{each:.3g}" for each in (self.value, self.low, self.high))
        return value if low == value == high else f"{value} [{low}, {high}]"

    @property
    def percent(self) -> str:
        """The figure and its interval as signed percentages."""
        return f"{self.value:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


def exact(value: float) -> Estimate:
    """Return the estimate of an experiment without noise."""
    return Estimate(value, value, value)


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of one value a seed, with the 95% interval of Student's t.

    Paired values are subtracted by the caller. Values that are all equal have an interval of no width.

    Example:
        >>> print(estimate([1.0, 2.0, 3.0]))
        2 [-0.484, 4.48]
    """
    from scipy.special import stdtrit

    count = len(values)
    mean = math.fsum(values) / count
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stdtrit(count - 1, 0.975)) * sd / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


class Say(Protocol):
    """Chooses one of two texts that say the same in English and in Chinese."""

    def __call__(self, en: str, zh: str) -> str:
        """Return the text in the reader's language."""
        ...


def say_in(lang: Language) -> Say:
    """Return the function that chooses the text of a language."""
    return (lambda en, zh: zh) if lang == "zh" else (lambda en, zh: en)


class Found(Protocol):
    """What an experiment measured; every experiment has a class of its own for it."""

    @property
    def figure(self) -> Estimate:
        """The one figure that is shown beside the verdict."""
        ...


@dataclass(frozen=True)
class Told:
    """A result in words and as a picture.

    Attributes:
        text: One or two sentences with the measured numbers.
        question: The question that the picture answers.
        plot: Plotly's "data" and "layout".
        how_to_read: What the marks of the picture mean.
    """

    text: str
    question: str
    plot: dict[str, Any]
    how_to_read: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim with its experiment.

    Attributes:
        number: 1 to 13 for the article's claims, 14 to 20 for those of papers.
        source: Where the claim stands.
        article_zh: The sentence in Chinese: the article's own, or ours for a paper.
        article_en: The same sentence in English.
        figure_en: What the figure beside the verdict is.
        figure_zh: The same in Chinese.
        measure: The experiment: it returns the figures.
        judge: The rule from figures to the verdict, which looks at nothing else.
        tell: Puts the figures into words and a picture.
        rule_en: The rule as a sentence.
        rule_zh: The rule as a sentence in Chinese.
    """

    number: int
    source: str
    article_zh: str
    article_en: str
    figure_en: str
    figure_zh: str
    measure: Callable[[], Any]
    judge: Callable[[Any], Verdict]
    tell: Callable[[Any, Say], Told]
    rule_en: str
    rule_zh: str


def both(first: bool, second: bool) -> Verdict:
    """Return "holds" if both parts of a claim hold, "conditional" if one does.

    Example:
        >>> both(True, False)
        'conditional'
    """
    return "holds" if first and second else "conditional" if first or second else "does_not_hold"


def improvement(change: Estimate, margin: float) -> Verdict:
    """Return whether a loss falls, by the rule of `adamas compare`.

    It holds if the interval is below 0 and the change is at least the margin. It does not hold if a gain of the margin
    is excluded. Otherwise the change is too noisy to tell, and the claim holds under a condition at most.

    Args:
        change: The relative change of the loss, below 0 where it falls.
        margin: The smallest relative change that matters.

    Example:
        >>> improvement(Estimate(-0.05, -0.08, -0.02), 0.02), improvement(Estimate(-0.01, -0.04, 0.02), 0.02)
        ('holds', 'conditional')
    """
    if change.high < 0 and change.value <= -margin:
        return "holds"
    return "does_not_hold" if change.low > -margin else "conditional"


def direction(slope: Estimate, sign: int) -> Verdict:
    """Return whether a slope has the claimed sign: an interval around 0 leaves it open, the other sign refutes it.

    Example:
        >>> direction(Estimate(0.5, 0.2, 0.8), sign=-1)
        'does_not_hold'
    """
    ends = sorted((sign * slope.low, sign * slope.high))
    return "holds" if ends[0] > _ROUNDING else "does_not_hold" if ends[1] <= _ROUNDING else "conditional"
