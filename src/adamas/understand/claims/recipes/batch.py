"""Claim 16: the best weight decay grows with the batch.

A small network trains on 500 noisy digits for 30 epochs, in batches of 10 to 125 images, with AdamW at one learning
rate and a cosine. Every size has a sweep over the weight decay; the slope of the best one is taken for each seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Say, Told, Verdict, direction
from adamas.understand.claims.recipes.epochs import Trend, trend
from adamas.understand.claims.sweep import best, grid, losses

_LR = 1e-2
_DECAYS = grid(-1.5, 1.5)


def measure(sizes: Sequence[int] = (10, 25, 50, 125), seeds: int = 4, epochs: int = 30) -> Trend:
    """Find the best weight decay for each size of the batch.

    Args:
        sizes: The numbers of images in a batch.
        seeds: The number of seeds.
        epochs: The number of epochs.
    """
    from adamas.understand.claims.jobs import digits_job
    from adamas.understand.claims.training import ADAMW

    bests: list[list[float]] = []
    for size in sizes:
        found = losses(partial(digits_job, epochs=epochs, batch=size), ADAMW, _LR, _DECAYS, range(seeds))
        bests.append([best(_DECAYS, values) for values in found.values()])
    return trend([float(size) for size in sizes], bests)


def judge(found: Trend) -> Verdict:
    """Return "holds" if the best weight decay grows, and "does_not_hold" if it falls."""
    return direction(found.figure, sign=1)


def tell(found: Trend, say: Say) -> Told:
    """Say how the best weight decay changes with the batch."""
    trace = line(0, say("best weight decay", "最佳权重衰减"), found.values, found.bests, say("batch", "批大小"))
    first, last = found.values[0], found.values[-1]
    return Told(
        say(
            f"From batches of {first:g} to {last:g} images AdamW's best weight decay goes from {found.bests[0]:.2g} "
            f"to {found.bests[-1]:.2g}: it changes as batch^{found.figure}.",
            f"批大小从 {first:g} 增到 {last:g},AdamW 的最佳权重衰减从 {found.bests[0]:.2g} 变为 "
            f"{found.bests[-1]:.2g}：与批大小的 {found.figure} 次方成正比。",
        ),
        say("How does the best weight decay depend on the batch?", "最佳权重衰减怎样随批大小变化？"),
        chart([trace], say("images in a batch", "批大小"), say("best weight decay", "最佳权重衰减"), True),
        say("Geometric means over seeds.", "各随机种子的几何平均。"),
    )


CLAIM = Claim(
    number=16,
    source="arXiv 2505.13738",
    article_zh="最佳权重衰减随批大小增加而增大。",
    article_en="The best weight decay grows with the batch.",
    figure_en="exponent of the best weight decay in the batch",
    figure_zh="最佳权重衰减随批大小变化的指数",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the exponent's interval is above 0, does not hold if it is below 0; conditional otherwise.",
    rule_zh="指数的区间全部大于 0 则成立，小于 0 则不成立，否则有条件成立。",
)
