"""Claim 12: when Adam generalises badly, switching to AdamW is worth a try.

The job is one where Adam without decay generalises badly: six residual layers at a learning rate of 0.01, which learn
noisy labels by heart. The learning rate stays. Two questions: does AdamW with a tuned weight decay help, and does it
help more than a tuned L2 in the same Adam would?
"""

from __future__ import annotations

from dataclasses import dataclass

from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, improvement
from adamas.understand.claims.plots import intervals
from adamas.understand.claims.study import ARMS, MARGIN, Size, Study, factory, study

_SIZE = Size(rates=(1e-2,), l2=(-3.0, 0.0), adamw=(-1.5, 1.5), seeds=8)


@dataclass(frozen=True)
class Switching:
    """The change of the test loss from Adam without decay and from Adam with L2, and Adam's gap."""

    from_none: Estimate
    from_l2: Estimate
    training: float
    test: float
    code: str

    @property
    def figure(self) -> Estimate:
        """The change from Adam without decay."""
        return self.from_none


def measure() -> Switching:
    """Run the study of the deep network at one learning rate."""
    return switch(study(factory("deep"), _SIZE, ARMS))


def switch(found: Study, to: str = "adamw", other: str = "l2") -> Switching:
    """Return what a switch from Adam without decay changes.

    Args:
        found: The study.
        to: The arm to switch to.
        other: The arm with the other kind of decay.
    """
    none, run = found.results["none"], found.chosen[to]
    return Switching(
        found.change(to, "none"),
        found.change(to, other),
        sum(result.training for result in none) / len(none),
        sum(result.test for result in none) / len(none),
        f"AdamW(lr={run.lr:.3g}, weight_decay={run.weight_decay:.3g})",
    )


def judge(found: Switching) -> Verdict:
    """Return "holds" if AdamW beats both, "conditional" if it beats Adam without decay alone."""
    over_none, over_l2 = improvement(found.from_none, MARGIN), improvement(found.from_l2, MARGIN)
    if over_none == "holds":
        return "holds" if over_l2 == "holds" else "conditional"
    return over_none


def tell(found: Switching, say: Say) -> Told:
    """Say what the switch changes, and beside what."""
    from_none = say("from Adam without decay", "从无衰减的 Adam 切换")
    from_l2 = say("from Adam with tuned L2", "从调好 L2 的 Adam 切换")
    listed = {from_none: found.from_none, from_l2: found.from_l2}
    return Told(
        say(
            f"Adam without decay learns this job by heart (training loss {found.training:.2g}, test loss "
            f"{found.test:.2g}). A switch to {found.code} changes the test loss by {found.from_none.percent}. Beside "
            f"Adam with a tuned L2 the change is {found.from_l2.percent}.",
            f"无衰减的 Adam 在这个任务上死记硬背(训练损失 {found.training:.2g}，测试损失 {found.test:.2g})。切换到 "
            f"{found.code} 后测试损失变化 {found.from_none.percent}；与调好 L2 的 Adam 相比变化 "
            f"{found.from_l2.percent}。",
        ),
        say("What does a switch to AdamW change?", "切换到 AdamW 会改变什么？"),
        intervals(listed, say("change of the test loss", "测试损失的变化"), MARGIN),
        say(
            "Left of 0 the switch helps. `adamas compare` answers the question for your own job.",
            "0 的左侧表示切换有帮助。`adamas compare` 可以为你自己的任务回答这个问题。",
        ),
    )


CLAIM = Claim(
    number=12,
    source="the article",
    article_zh="如果你发现 Adam 模型的泛化能力不如预期,或者在训练大型模型时遇到困难,那么切换到 AdamW 往往是一个很好"
    "的尝试。",
    article_en="If your Adam model generalises worse than expected, or training a large model is hard, switching to "
    "AdamW is often well worth a try.",
    figure_en="change of the test loss by AdamW, from Adam without decay",
    figure_zh="AdamW 相对无衰减 Adam 的测试损失变化",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if AdamW beats both Adam without decay and Adam with a tuned L2; conditional if it beats only "
    "the first.",
    rule_zh="AdamW 同时优于无衰减的 Adam 和调好 L2 的 Adam 则成立；只优于前者则有条件成立。",
)
