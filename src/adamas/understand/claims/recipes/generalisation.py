"""Claim 11: AdamW is often better than Adam, for Transformers, language models and image classification.

Three jobs: a small network on handwritten digits, six residual layers on the same, and a small transformer that
predicts the next character. On each, Adam with L2 and AdamW are tuned alike, and their best settings run on fresh
paired seeds. What counts is the test loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, estimate, improvement
from adamas.understand.claims.plots import intervals
from adamas.understand.claims.study import ARMS, JOBS, MARGIN, SIZES, Study, factory, study


@dataclass(frozen=True)
class Generalisation:
    """AdamW's change of the test loss from Adam with L2 on each job, and the mean over the jobs."""

    figure: Estimate
    changes: dict[str, Estimate]
    settings: dict[str, tuple[float, float]]


def measure() -> Generalisation:
    """Run a study of each job."""
    return compare({name: study(factory(name), SIZES[name], ARMS) for name in JOBS})


def compare(studies: Mapping[str, Study], arm: str = "adamw", other: str = "l2") -> Generalisation:
    """Return how one arm changes the test loss of the other.

    Args:
        studies: The studies by job.
        arm: The arm that the claim is about.
        other: The arm that it is compared with.
    """
    pairs = [study.changes(arm, other) for study in studies.values()]
    seeds = min(map(len, pairs))
    means = [sum(each[seed] for each in pairs) / len(pairs) for seed in range(seeds)]
    return Generalisation(
        estimate(means),
        {name: study.change(arm, other) for name, study in studies.items()},
        {name: (study.chosen[arm].weight_decay, study.chosen[other].weight_decay) for name, study in studies.items()},
    )


def judge(found: Generalisation) -> Verdict:
    """Return "holds" if AdamW is better on every job, and "does_not_hold" if a gain is excluded on every job."""
    verdicts: set[Verdict] = {improvement(change, MARGIN) for change in found.changes.values()}
    return verdicts.pop() if len(verdicts) == 1 else "conditional"


def tell(found: Generalisation, say: Say) -> Told:
    """Say for each job how AdamW changes the loss."""
    titles = {
        "digits": say("digits", "手写数字"),
        "deep": say("digits, deep network", "手写数字(深网络)"),
        "transformer": say("transformer", "Transformer"),
    }
    listed = {titles.get(name, name): change for name, change in found.changes.items()}
    decays = [f"wd {adamw:.2g}, {l2:.2g}" for adamw, l2 in found.settings.values()]
    parts = [f"{title} {change.percent} ({wd})" for (title, change), wd in zip(listed.items(), decays, strict=True)]
    words = {
        "holds": say("AdamW is better on each of these small jobs.", "在这些小任务上 AdamW 都更好。"),
        "conditional": say("It depends on the job, or is within the noise.", "取决于任务，或在噪声之内。"),
        "does_not_hold": say("AdamW is better on none of these small jobs.", "在这些小任务上 AdamW 都没有更好。"),
    }
    plot: dict[str, Any] = intervals(listed, say("change of the test loss", "测试损失的变化"), MARGIN)
    return Told(
        say(
            "AdamW's test loss beside that of Adam with L2, both tuned alike (weight decay of each): "
            f"{'; '.join(parts)}. {words[judge(found)]}",
            f"同等调参后，AdamW 相对 Adam + L2 的测试损失变化(括号内为各自的权重衰减):{';'.join(parts)}。"
            f"{words[judge(found)]}",
        ),
        say("Does AdamW generalise better than Adam with L2?", "AdamW 的泛化比 Adam + L2 更好吗？"),
        plot,
        say(
            f"Left of 0 AdamW is better. The band is {MARGIN:.0%}, the smallest change that matters.",
            f"0 的左侧表示 AdamW 更好。色带为 {MARGIN:.0%}，即有意义的最小变化。",
        ),
    )


CLAIM = Claim(
    number=11,
    source="the article; arXiv 1711.05101, section 4",
    article_zh="这使得正则化效果更稳定,提高了模型的泛化能力,尤其是在大型模型和数据集上。在训练 Transformer 模型、大"
    "型语言模型(LLMs)以及图像分类等任务中,AdamW 常常表现出比标准 Adam 更好的性能。",
    article_en="This makes regularisation steadier and improves generalisation, especially for large models and "
    "data sets. In training Transformer models, large language models (LLMs), and in tasks like image "
    "classification, AdamW often performs better than standard Adam.",
    figure_en="change of the test loss by AdamW, from Adam with L2",
    figure_zh="AdamW 相对 Adam + L2 的测试损失变化",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if AdamW's loss is at least 2 % lower on every job, with intervals below 0; does not hold if a "
    "gain of 2 % is excluded on every job; conditional otherwise.",
    rule_zh="AdamW 在所有任务上损失至少低 2 % 且区间小于 0 则成立；在所有任务上都排除了 2 % 的改进则不成立；否则有条件"
    "成立。",
)
