"""Claim 3: a feature that occurs rarely gets larger steps, a frequent one gets smaller steps.

Features differ in how often their gradient is not zero, and in nothing else. What counts is how far a weight has moved
for each time that its feature occurred. Theory: v is about the frequency times the squared gradient, so a step grows
as frequency^-1/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adamas.page.lines import chart, line
from adamas.reference import Array, init, step
from adamas.scalars import Hyper
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, direction, estimate

_FREQUENCIES = np.array([1.0, 0.3, 0.1, 0.03, 0.01])
_COPIES = 64  # weights of each frequency


@dataclass(frozen=True)
class Sparse:
    """The slope of log(step) in log(frequency), and the mean step of each frequency in units of lr."""

    figure: Estimate
    moved: list[float]


def measure(steps: int = 4000, seeds: int = 6, adaptive: bool = True) -> Sparse:
    """Let features occur at random, and divide each weight's way by the number of times its feature occurred.

    Args:
        steps: The number of steps.
        seeds: The number of seeds.
        adaptive: Whether Adam steps, or plain gradient descent.
    """
    shape = (seeds, len(_FREQUENCIES), _COPIES)
    theta, count = np.zeros(shape), np.zeros(shape)
    state, hyper = init(theta), Hyper(lr=1e-3)
    for t in range(steps):
        random = np.random.default_rng((3, t))
        occurs = random.random(shape) < _FREQUENCIES[:, None]
        g = np.where(occurs, 1.0 + 0.3 * random.standard_normal(shape), 0.0)
        count += occurs
        theta, state = step(theta, g, state, hyper) if adaptive else (theta - hyper.lr * g, state)
    moved: Array = (-theta.sum(axis=2) / count.sum(axis=2)) / hyper.lr  # (seeds, frequencies)
    slopes = [float(np.polyfit(np.log(_FREQUENCIES), np.log(row), 1)[0]) for row in moved]
    return Sparse(estimate(slopes), moved.mean(axis=0).tolist())


def judge(found: Sparse) -> Verdict:
    """Return "holds" if steps fall with the frequency."""
    return direction(found.figure, sign=-1)


def tell(found: Sparse, say: Say) -> Told:
    """Say how the step depends on the frequency."""
    frequencies = _FREQUENCIES.tolist()
    rule = [found.moved[0] * frequency**-0.5 for frequency in frequencies]
    traces = [
        line(0, say("measured", "实测"), frequencies, found.moved, say("frequency", "频率")),
        line(1, say("frequency^-1/2", "频率的 -1/2 次方"), frequencies, rule, say("frequency", "频率")),
    ]
    return Told(
        say(
            f"A feature that occurs in 1 % of the steps moves its weight {found.moved[-1] / found.moved[0]:.3g} "
            f"times as far for each occurrence as one that always occurs: the step grows as frequency^{found.figure} "
            "(theory: -0.5).",
            "在 1 % 的步中出现的特征，每出现一次带来的位移是每步都出现的特征的 "
            f"{found.moved[-1] / found.moved[0]:.3g} 倍：步长与频率的 {found.figure} 次方成正比(理论值 -0.5)。",
        ),
        say("How large is a step for a rare feature?", "稀疏特征的步长有多大？"),
        chart(traces, say("frequency", "出现频率"), say("way for each occurrence / lr", "每次出现的位移 / lr"), True),
        say("To the left are rare features.", "左侧是稀疏特征。"),
    )


CLAIM = Claim(
    number=3,
    source="the article; arXiv 1412.6980, section 1",
    article_zh="这些矩用于调整每个参数的学习率,使得对于稀疏梯度(不经常出现的特征),学习率更大;对于常见特征,学习率更小。",
    article_en="These moments adapt each parameter's learning rate: larger for sparse gradients (features that "
    "occur rarely), smaller for common features.",
    figure_en="exponent of the step in the frequency",
    figure_zh="步长随频率变化的指数",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the step falls with the frequency (interval of the exponent below 0).",
    rule_zh="步长随频率下降(指数的区间全部小于 0)则成立。",
)
