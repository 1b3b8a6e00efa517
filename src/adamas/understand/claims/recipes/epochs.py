"""Claim 15: the best weight decay falls with the number of epochs.

A small network trains on 500 digits for 10 to 80 epochs, with AdamW at one learning rate and a cosine: once with a
fifth of the labels shuffled, where it learns wrong labels by heart, and once with clean labels. Every number of epochs
has a sweep over the weight decay; the slope of the best one is taken for each seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, direction, estimate
from adamas.understand.claims.sweep import best, grid, losses

_LR = 1e-2
_DECAYS = grid(-1.5, 1.5)


@dataclass(frozen=True)
class Trend:
    """The exponent of the best weight decay in what varies, over seeds, and its geometric mean at each value."""

    figure: Estimate
    values: list[float]
    bests: list[float]


def trend(values: Sequence[float], bests: Sequence[Sequence[float]]) -> Trend:
    """Return the trend of the best weight decay.

    Args:
        values: What varies, the number of epochs for example.
        bests: Its best weight decays as logarithms to base 10, one row a value and one column a seed.
    """
    x = np.log10(values)
    slopes = [float(np.polyfit(x, column, 1)[0]) for column in np.array(bests).T]
    return Trend(estimate(slopes), list(values), [10 ** (math.fsum(row) / len(row)) for row in bests])


@dataclass(frozen=True)
class Epochs:
    """The trends with noisy labels and with clean labels."""

    noisy: Trend
    clean: Trend

    @property
    def figure(self) -> Estimate:
        """The exponent with noisy labels, the job of the other claims."""
        return self.noisy.figure


def measure(epochs: Sequence[int] = (10, 20, 40, 80), seeds: int = 4) -> Epochs:
    """Find the best weight decay for each number of epochs, on both jobs.

    Args:
        epochs: The numbers of epochs.
        seeds: The number of seeds.
    """
    from adamas.understand.claims.jobs import digits_job
    from adamas.understand.claims.training import ADAMW

    trends: list[Trend] = []
    for clean in (False, True):
        bests: list[list[float]] = []
        for count in epochs:
            job = partial(digits_job, epochs=count, clean=clean)
            found = losses(job, ADAMW, _LR, _DECAYS, range(seeds))
            bests.append([best(_DECAYS, values) for values in found.values()])
        trends.append(trend([float(count) for count in epochs], bests))
    return Epochs(*trends)


def judge(found: Epochs) -> Verdict:
    """Return "holds" if the best weight decay falls on both jobs, and "does_not_hold" if it rises on both."""
    verdicts: set[Verdict] = {direction(each.figure, sign=-1) for each in (found.noisy, found.clean)}
    return verdicts.pop() if len(verdicts) == 1 else "conditional"


def tell(found: Epochs, say: Say) -> Told:
    """Say how the best weight decay changes with the number of epochs."""
    names = say("shuffled labels", "部分标签打乱"), say("clean labels", "干净标签")
    trends = found.noisy, found.clean
    traces = [
        line(n, name, each.values, each.bests, say("epochs", "轮数"))
        for n, (name, each) in enumerate(zip(names, trends, strict=True))
    ]
    first, last = found.noisy.values[0], found.noisy.values[-1]
    noisy, clean = (f"{each.bests[0]:.2g} → {each.bests[-1]:.2g}" for each in trends)
    return Told(
        say(
            f"From {first:g} to {last:g} epochs AdamW's best weight decay changes as epochs^{found.figure} where a "
            f"fifth of the labels are shuffled ({noisy}), and as epochs^{found.clean.figure} where they are clean "
            f"({clean}).",
            f"从 {first:g} 轮到 {last:g} 轮，五分之一标签打乱时 AdamW 的最佳权重衰减与轮数的 {found.figure} 次方成正比"
            f"({noisy})，标签干净时为 {found.clean.figure} 次方({clean})。",
        ),
        say("How does the best weight decay depend on the number of epochs?", "最佳权重衰减怎样随轮数变化？"),
        chart(traces, say("epochs", "轮数"), say("best weight decay", "最佳权重衰减"), True),
        say("Geometric means over seeds.", "各随机种子的几何平均。"),
    )


CLAIM = Claim(
    number=15,
    source="arXiv 2509.14786",
    article_zh="最佳权重衰减随训练轮数增加而减小。",
    article_en="The best weight decay falls with the number of epochs.",
    figure_en="exponent of the best weight decay in the epochs",
    figure_zh="最佳权重衰减随轮数变化的指数",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the exponent is below 0 on both jobs, does not hold if it is above 0 on both; conditional "
    "otherwise.",
    rule_zh="两个任务上指数都小于 0 则成立，都大于 0 则不成立，否则有条件成立。",
)
