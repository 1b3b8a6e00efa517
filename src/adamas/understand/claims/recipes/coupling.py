"""Claim 7: classic decay is coupled to the gradient. Then a loss times ten must change what the same lambda does.

Gradients are noise; the loss is multiplied by 1, 10 and 100. The decay of each weight is measured by `twins`. Theory
for Adam with L2: lr * lambda / sqrt(v), so a tenth of the decay; for AdamW: lr * weight_decay, always.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both, estimate
from adamas.understand.claims.twins import decay_rates, noise, with_decay

_FACTORS = np.array([1.0, 10.0, 100.0])
_CHANGED, _SAME = 1.5, 1.05  # a factor of the decay that counts as changed, and one that counts as the same


@dataclass(frozen=True)
class Coupling:
    """The decay at the loss itself by the decay at ten times the loss, and the decays at every factor."""

    l2: Estimate
    adamw: Estimate
    rates: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The factor of Adam with L2."""
        return self.l2


def measure(steps: int = 1000, seeds: int = 6, arms: tuple[str, str] = ("l2", "lr")) -> Coupling:
    """Measure the decay of Adam with L2 and of AdamW at each factor of the loss.

    Args:
        steps: The number of steps.
        seeds: The number of seeds.
        arms: The decay of the first arm and of the second.
    """
    gradients = noise(_FACTORS, seeds, copies=32)
    rates = [decay_rates(with_decay(arm), gradients, steps).mean(axis=2) for arm in arms]  # (seeds, factors)
    l2, adamw = (estimate((rate[:, 0] / rate[:, 1]).tolist()) for rate in rates)
    return Coupling(l2, adamw, dict(zip(("l2", "adamw"), (rate.mean(axis=0).tolist() for rate in rates), strict=True)))


def judge(found: Coupling) -> Verdict:
    """Return "holds" if a larger loss weakens L2 and leaves AdamW, and "conditional" if it changes both."""
    if found.l2.low <= _CHANGED:
        return "does_not_hold"
    return both(True, found.adamw.low > 1 / _SAME and found.adamw.high < _SAME)


def tell(found: Coupling, say: Say) -> Told:
    """Say what a larger loss does to each decay."""
    names = {"l2": say("Adam with L2", "Adam + L2"), "adamw": "AdamW"}
    factor = say("loss times", "损失倍数")
    traces = [line(n, names[arm], _FACTORS.tolist(), rate, factor) for n, (arm, rate) in enumerate(found.rates.items())]
    return Told(
        say(
            f"With the loss times 10, the same lambda decays a weight {found.l2} times less under Adam with L2 "
            f"(theory: 10), and {found.adamw} times less under AdamW (theory: 1).",
            f"损失乘以 10 后，同一个 λ 的衰减在 Adam + L2 下减弱 {found.l2} 倍(理论值 10)，在 AdamW 下减弱 "
            f"{found.adamw} 倍(理论值 1，即不变)。",
        ),
        say("What does a larger loss do to the decay?", "损失变大，衰减怎样变？"),
        chart(
            traces,
            say("factor of the loss", "损失的倍数"),
            say("decay of a step / (lr x wd)", "每步衰减 / (lr x wd)"),
            True,
        ),
        say("A flat line is a decay that does not depend on the loss.", "水平线表示衰减与损失大小无关。"),
    )


CLAIM = Claim(
    number=7,
    source="the article; arXiv 1711.05101, section 2",
    article_zh="这意味着,权重衰减的影响被耦合到了梯度更新中,并且会受到 Adam 自身自适应学习率的影响。",
    article_en="This means that the effect of weight decay is coupled into the gradient update, and depends on "
    "Adam's own adaptive learning rate.",
    figure_en="decay of L2 at the loss by that at ten times the loss",
    figure_zh="L2 在原损失与十倍损失下的衰减之比",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if ten times the loss weakens the decay of L2 by more than 1.5 and leaves AdamW's within 5 %; "
    "conditional if it changes both.",
    rule_zh="损失乘以 10 使 L2 的衰减减弱 1.5 倍以上、而 AdamW 变化不超过 5 % 则成立；两者都变则有条件成立。",
)
