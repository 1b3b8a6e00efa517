"""Claim 9: a large m or a small v weakens decay in Adam. Both halves are measured, one moment at a time.

For v: gradients are noise of size 0.1 to 10 around 0. For m: the mean square of the gradients stays 1, and their mean
goes from 0 to 0.95. Theory, from the derivative of m / sqrt(v) with respect to the weight: the decay of a step is
lr * lambda / sqrt(v) * (1 - m^2 / v). So a large m weakens it, and a small v makes it stronger, not weaker.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adamas.page.lines import chart, line
from adamas.reference import Array
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, direction, estimate
from adamas.understand.claims.twins import decay_rates, noise, with_decay

_ROOTS = np.array([0.1, 0.3, 1.0, 3.0, 10.0])  # sqrt(v)
_MEANS = np.array([0.0, 0.3, 0.6, 0.8, 0.95])  # m, at v = 1


@dataclass(frozen=True)
class Moments:
    """Exponents of the decay in v, and in 1 - m^2 / v; and the decays themselves."""

    v: Estimate
    m: Estimate
    by_v: list[float]
    by_m: list[float]

    @property
    def figure(self) -> Estimate:
        """The exponent of v: below 0, a small v strengthens the decay."""
        return self.v


def measure(steps: int = 1500, seeds: int = 6, decay: str = "l2") -> Moments:
    """Measure the decay of Adam for each size of v and each size of m.

    Args:
        steps: The number of steps.
        seeds: The number of seeds.
        decay: The decay of the optimizer; AdamW's depends on neither moment.
    """
    copies = 32
    by_v = decay_rates(with_decay(decay), noise(_ROOTS, seeds, copies), steps).mean(axis=2)
    unit = noise(np.sqrt(1 - _MEANS**2), seeds, copies)
    by_m = decay_rates(with_decay(decay), lambda t: _MEANS[:, None] + unit(t), steps).mean(axis=2)
    return Moments(
        _exponent(_ROOTS**2, by_v),
        _exponent(1 - _MEANS**2, by_m),
        by_v.mean(axis=0).tolist(),
        by_m.mean(axis=0).tolist(),
    )


def _exponent(x: Array, rates: Array) -> Estimate:
    """Return the slope of log(rate) in log(x), over seeds."""
    return estimate([float(np.polyfit(np.log(x), np.log(row), 1)[0]) for row in rates])


def judge(found: Moments) -> Verdict:
    """Return "does_not_hold" if either half is the other way round, and "holds" if both are as claimed."""
    large_m = direction(found.m, sign=1)  # more noise beside the same m: more decay
    small_v = direction(found.v, sign=1)
    if "does_not_hold" in (large_m, small_v):
        return "does_not_hold"
    return "holds" if large_m == small_v == "holds" else "conditional"


def tell(found: Moments, say: Say) -> Told:
    """Say for each moment in which direction it acts."""
    means = _MEANS.tolist()[1:]  # the axis is logarithmic
    theory = [1 / root for root in _ROOTS.tolist()]
    traces = [
        line(0, say("by sqrt(v), m = 0", "随 sqrt(v),m = 0"), _ROOTS.tolist(), found.by_v, "sqrt(v)"),
        line(1, say("theory: 1 / sqrt(v)", "理论：1 / sqrt(v)"), _ROOTS.tolist(), theory, "sqrt(v)"),
        line(2, say("by m, v = 1", "随 m,v = 1"), means, found.by_m[1:], "m"),
        line(3, say("theory: 1 - m^2", "理论：1 - m^2"), means, [1 - mean**2 for mean in means], "m"),
    ]
    strongest, weakest, by_m = f"{found.by_v[0]:.3g}", f"{found.by_v[-1]:.3g}", f"{found.by_m[-1]:.2g}"
    large, expected = f"m = {_MEANS[-1]:g} sqrt(v)", f"{1 - _MEANS[-1] ** 2:.2g}"
    if found.v.high < 0:
        text = say(
            f"For v it is the other way round: the decay of Adam with L2 goes as v^{found.v}, so a large v weakens "
            f"it and a small v strengthens it ({strongest} times lr x lambda at sqrt(v) = 0.1, {weakest} at 10). A "
            f"large m does weaken it: to {by_m} at {large}, theory {expected}.",
            f"对 v 而言恰好相反：Adam + L2 的衰减与 v 的 {found.v} 次方成正比，v 大则衰减弱，v 小则衰减强(sqrt(v) = 0.1"
            f" 时为 lr x λ 的 {strongest} 倍，10 时为 {weakest} 倍)。m 大确实削弱衰减：{large} 时降到 {by_m}，理论值 "
            f"{expected}。",
        )
    else:
        text = say(
            f"The decay goes as v^{found.v}, and as (1 - m^2/v)^{found.m}.",
            f"衰减与 v 的 {found.v} 次方、(1 - m^2/v) 的 {found.m} 次方成正比。",
        )
    return Told(
        text,
        say("How strong is the decay of Adam with L2?", "Adam + L2 的衰减有多强？"),
        chart(traces, "sqrt(v), m", say("decay of a step / (lr x lambda)", "每步衰减 / (lr x λ)"), True),
        say("Falling lines: the larger the moment, the weaker the decay.", "下降的线：矩越大，衰减越弱。"),
    )


CLAIM = Claim(
    number=9,
    source="the article",
    article_zh="对于那些具有大梯度移动平均值(大 m)或小梯度平方移动平均值(小 v)的参数,自适应学习率可能会显著降低权重"
    "衰减的效果,或者导致权重衰减失效。",
    article_en="For parameters with a large moving average of the gradient (large m) or a small moving average of "
    "its square (small v), the adaptive learning rate may strongly reduce the effect of weight decay, or disable it.",
    figure_en="exponent of the decay of L2 in v",
    figure_zh="L2 的衰减随 v 变化的指数",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if a large m and a small v both weaken the decay; does not hold if either strengthens it.",
    rule_zh="大 m 和小 v 都削弱衰减则成立；任何一个反而增强衰减则不成立。",
)
