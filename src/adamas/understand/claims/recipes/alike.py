"""Claim 10: AdamW decays every weight alike, whatever its adaptive learning rate is.

A thousand weights have gradients of sizes from 0.001 to 1000 times noise. The decay of each weight is measured by
`twins`, and the strongest is compared with the weakest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, exact
from adamas.understand.claims.twins import decay_rates, noise, with_decay

_SIZES = 10 ** np.linspace(-3, 3, 13)
_ALIKE, _NEARLY = 1.001, 2.0  # strongest by weakest decay


@dataclass(frozen=True)
class Alike:
    """The strongest decay by the weakest, and the mean decay at each size of the gradient."""

    adamw: float
    l2: float
    rates: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The ratio of AdamW's decays."""
        return exact(self.adamw)


def measure(steps: int = 600, arms: tuple[str, str] = ("lr", "l2")) -> Alike:
    """Measure the decay of every weight under AdamW and under Adam with L2.

    Args:
        steps: The number of steps.
        arms: The decay of the arm that the claim is about, and of the other one.
    """
    gradients = noise(_SIZES, seeds=1, copies=80)
    # The term of L2 stays far below the smallest gradient: lambda * theta is 1e-4 * 1e-2.
    rates = [decay_rates(with_decay(arm, weight_decay=1e-4), gradients, steps)[0] for arm in arms]
    adamw, l2 = (float(rate.max() / rate.min()) for rate in rates)
    means = (rate.mean(axis=1).tolist() for rate in rates)
    return Alike(adamw, l2, dict(zip(("adamw", "l2"), means, strict=True)))


def judge(found: Alike) -> Verdict:
    """Return "holds" if the decays are equal to 0.1 %, and "conditional" within a factor of two."""
    return "holds" if found.adamw < _ALIKE else "conditional" if found.adamw < _NEARLY else "does_not_hold"


def tell(found: Alike, say: Say) -> Told:
    """Say how much the decays of weights differ."""
    names = {"adamw": "AdamW", "l2": say("Adam with L2", "Adam + L2")}
    size = say("size", "大小")
    traces = [line(n, names[arm], _SIZES.tolist(), rate, size) for n, (arm, rate) in enumerate(found.rates.items())]
    return Told(
        say(
            f"Over gradients that differ by a factor of a million, AdamW's strongest decay is {found.adamw:.6f} "
            f"times its weakest. Under Adam with L2 the ratio is {found.l2:.3g}.",
            f"梯度大小相差百万倍时，AdamW 最强的衰减是最弱的 {found.adamw:.6f} 倍；Adam + L2 则为 {found.l2:.3g} 倍。",
        ),
        say("Does the decay depend on the size of the gradient?", "衰减与梯度大小有关吗？"),
        chart(
            traces,
            say("size of the gradient", "梯度大小"),
            say("decay of a step / (lr x wd)", "每步衰减 / (lr x wd)"),
            True,
        ),
        say("A flat line: every weight decays alike.", "水平线：每个权重的衰减都一样。"),
    )


CLAIM = Claim(
    number=10,
    source="the article; arXiv 1711.05101, section 2",
    article_zh="AdamW 确保了权重衰减能够独立且一致地应用于每个权重, 无论其自适应学习率如何。",
    article_en="AdamW ensures that weight decay is applied independently and consistently to every weight, whatever "
    "its adaptive learning rate.",
    figure_en="AdamW's strongest decay by its weakest",
    figure_zh="AdamW 最强与最弱的衰减之比",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the strongest decay is at most 1.001 times the weakest; conditional up to twice.",
    rule_zh="最强的衰减不超过最弱的 1.001 倍则成立；不超过 2 倍则有条件成立。",
)
