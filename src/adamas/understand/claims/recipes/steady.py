"""Claim 19: decay in proportion to lr^2 keeps the norms of weights steady while a schedule lowers the learning rate.

Gradients are noise, so every weight is at the balance of updates and decay. The learning rate falls by a cosine to a
tenth. Theory: under AdamW the balance is sqrt(lr / (2 wd)) and falls with lr; with decay="corrected" it stays at
sqrt(base_lr / (2 wd)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from adamas.decay import adamw_equilibrium_rms, cosine_schedule
from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, estimate

_LR, _WEIGHT_DECAY, _FLOOR = 0.02, 1.0, 0.1
_STEADY = 0.1  # relative change of the norm that counts as steady


@dataclass(frozen=True)
class Steady:
    """The norm at the end by the norm at the start, under both decays, and the norms between."""

    corrected: Estimate
    plain: Estimate
    norms: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The ratio with decay in proportion to lr^2."""
        return self.corrected


def measure(steps: int = 12_000, seeds: int = 6, arms: tuple[str, str] = ("corrected", "lr")) -> Steady:
    """Let weights follow noise under both decays and the same schedule.

    Args:
        steps: The number of steps of the schedule.
        seeds: The number of seeds.
        arms: The decay that the claim is about, and the usual one.
    """
    norms = [_norms(decay, steps, seeds) for decay in arms]  # each (looks, seeds)
    corrected, plain = (estimate([end / start for start, end in zip(each[0], each[-1], strict=True)]) for each in norms)
    means = ([sum(look) / seeds for look in each] for each in norms)
    return Steady(corrected, plain, dict(zip(("corrected", "plain"), means, strict=True)))


def _norms(decay: str, steps: int, seeds: int, weights: int = 2048) -> list[list[float]]:
    """Return the RMS of the weights of every seed, at 41 looks from the first step to the last."""
    import torch

    from adamas.torch import AdamW

    random = torch.Generator().manual_seed(19)
    size = adamw_equilibrium_rms(_LR, _WEIGHT_DECAY)
    param = torch.nn.Parameter(size * torch.randn(seeds, weights, generator=random))
    optimizer = AdamW([param], lr=_LR, weight_decay=_WEIGHT_DECAY, decay=decay)
    looks = [param.detach().square().mean(1).sqrt().tolist()]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = cosine_schedule(_LR, _FLOOR * _LR, step, steps)
        param.grad = torch.randn(seeds, weights, generator=random)
        optimizer.step()
        if (step + 1) % (steps // 40) == 0:
            looks.append(param.detach().square().mean(1).sqrt().tolist())
    return looks


def judge(found: Steady) -> Verdict:
    """Return "holds" if the norm is steady with lr^2 and not with lr, "conditional" if it is steadier with lr^2."""
    corrected, plain = (abs(math.log(each.value)) for each in (found.corrected, found.plain))
    if corrected >= plain:
        return "does_not_hold"
    steady = found.corrected.low > 1 - _STEADY and found.corrected.high < 1 + _STEADY
    return "holds" if steady and plain > _STEADY else "conditional"


def tell(found: Steady, say: Say) -> Told:
    """Say what becomes of the norms under both decays."""
    names = {
        "corrected": say("decay by lr^2", "衰减正比于 lr^2"),
        "plain": say("decay by lr (AdamW)", "衰减正比于 lr(AdamW)"),
    }
    time = [n / 40 for n in range(41)]
    traces = [line(n, names[key], time, norms, "") for n, (key, norms) in enumerate(found.norms.items())]
    return Told(
        say(
            f"While the learning rate falls to {_FLOOR:.0%}, the weights end at {found.corrected} times their first "
            f"norm with decay in proportion to lr^2, and at {found.plain} times under AdamW.",
            f"学习率降到 {_FLOOR:.0%} 的过程中，衰减正比于 lr^2 时权重范数最终是初始的 {found.corrected} 倍，AdamW 下则"
            f"为 {found.plain} 倍。",
        ),
        say("Do weight norms stay steady under a schedule?", "学习率调度下权重范数稳定吗？"),
        chart(traces, say("share of the schedule", "调度进度"), say("RMS of the weights", "权重的均方根")),
        say("A flat line is a steady norm.", "水平线表示范数稳定。"),
    )


CLAIM = Claim(
    number=19,
    source="arXiv 2506.02285; arXiv 2512.08217",
    article_zh="正比于学习率平方的衰减使权重范数在学习率调度下保持稳定。",
    article_en="Decay in proportion to the square of the learning rate keeps weight norms steady under a schedule.",
    figure_en="norm at the end by norm at the start, with lr^2",
    figure_zh="正比于 lr^2 时终末与初始范数之比",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the norm changes by less than 10 % with lr^2 and by more with lr; conditional if lr^2 is only "
    "steadier.",
    rule_zh="正比于 lr^2 时范数变化小于 10 %、而正比于 lr 时更大则成立；仅仅更稳定则有条件成立。",
)
