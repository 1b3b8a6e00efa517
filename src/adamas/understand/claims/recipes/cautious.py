"""Claim 18: cautious decay is better than plain decay at equal weight decay.

Cautious decay skips every weight whose update already points towards 0. Six residual layers train on noisy digits with
AdamW, at one learning rate and a grid of weight decays, plain and cautious on the same seeds. What counts is the test
loss at the weight decay that is best for plain AdamW on the validation set.
"""

from __future__ import annotations

from dataclasses import dataclass

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, estimate, improvement
from adamas.understand.claims.study import MARGIN
from adamas.understand.claims.sweep import grid

_LR = 3e-3
_DECAYS = grid(-1, 1.5)


@dataclass(frozen=True)
class Cautious:
    """The change of the test loss by cautious decay at plain's best weight decay, and mean test losses at all."""

    figure: Estimate
    weight_decay: float
    losses: dict[str, list[float]]


def measure(seeds: int = 8, epochs: int = 30, swapped: bool = False) -> Cautious:
    """Train with both decays at every weight decay.

    Args:
        seeds: The number of seeds.
        epochs: The number of epochs.
        swapped: Whether plain decay takes the place of cautious decay, and cautious decay that of plain.
    """
    from functools import partial

    from adamas.understand.claims.jobs import deep_job
    from adamas.understand.claims.training import ADAMW, CAUTIOUS, Run, train

    plain, cautious = (CAUTIOUS, ADAMW) if swapped else (ADAMW, CAUTIOUS)
    runs = [Run(arm, _LR, decay, seed) for arm in (plain, cautious) for decay in _DECAYS for seed in range(seeds)]
    found = train(partial(deep_job, epochs=epochs), runs)

    def mean(decay: float) -> float:
        return sum(found[Run(plain, _LR, decay, seed)].validation for seed in range(seeds))

    best = min(_DECAYS, key=mean)
    tests = [[found[Run(arm, _LR, best, seed)].test for seed in range(seeds)] for arm in (plain, cautious)]
    scale = sum(tests[0]) / seeds
    losses = {
        name: [sum(found[Run(arm, _LR, decay, seed)].test for seed in range(seeds)) / seeds for decay in _DECAYS]
        for name, arm in (("plain", plain), ("cautious", cautious))
    }
    return Cautious(estimate([(b - a) / scale for a, b in zip(*tests, strict=True)]), best, losses)


def judge(found: Cautious) -> Verdict:
    """Return "holds" if cautious decay lowers the loss, "does_not_hold" if a gain of the margin is excluded."""
    return improvement(found.figure, MARGIN)


def tell(found: Cautious, say: Say) -> Told:
    """Say what cautious decay changes at equal weight decay."""
    names = {"plain": say("plain", "普通"), "cautious": say("cautious", "谨慎")}
    traces = [line(n, names[key], _DECAYS, losses, "wd") for n, (key, losses) in enumerate(found.losses.items())]
    best = {name: min(losses) for name, losses in found.losses.items()}
    return Told(
        say(
            f"At weight_decay={found.weight_decay:.3g}, the best for plain AdamW, cautious decay changes the test "
            f"loss by {found.figure.percent}. Each at its own best weight decay: plain {best['plain']:.4g}, cautious "
            f"{best['cautious']:.4g}.",
            f"在普通 AdamW 的最佳值 weight_decay={found.weight_decay:.3g} 处，谨慎衰减使测试损失变化 "
            f"{found.figure.percent}。各取最佳权重衰减时：普通 {best['plain']:.4g}，谨慎 {best['cautious']:.4g}。",
        ),
        say("Is cautious decay better at equal weight decay?", "相同权重衰减下，谨慎衰减更好吗？"),
        chart(traces, say("weight decay", "权重衰减"), say("test loss", "测试损失"), True),
        say("Lower is better; compare the lines at one weight decay.", "越低越好；在同一权重衰减处比较两条线。"),
    )


CLAIM = Claim(
    number=18,
    source="arXiv 2510.12402",
    article_zh="在相同的权重衰减下,谨慎衰减优于普通的解耦衰减。",
    article_en="At equal weight decay, cautious decay is better than plain decoupled decay.",
    figure_en="change of the test loss by cautious decay",
    figure_zh="谨慎衰减带来的测试损失变化",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the loss is at least 2 % lower and the interval is below 0; does not hold if a gain of 2 % is "
    "excluded; conditional otherwise.",
    rule_zh="损失至少低 2 % 且区间小于 0 则成立；排除了 2 % 的改进则不成立；否则有条件成立。",
)
