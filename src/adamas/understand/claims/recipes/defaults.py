"""Claim 6: Adam needs little tuning, so it is often recommended as the default.

A small network trains on noisy digits with Adam and with SGD with momentum, over five decades of learning rates. What
counts: over how many decades the validation loss stays within 5 % of the optimizer's own best, and how far the loss at
torch's default learning rate (0.001 for both) is from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both, estimate
from adamas.understand.claims.sweep import grid

_PER_DECADE, _GOOD, _DEFAULT = 3, 1.05, 1e-3
_GRIDS = {"l2": grid(-4, 0, _PER_DECADE), "sgd": grid(-4, 0, _PER_DECADE)}


@dataclass(frozen=True)
class Defaults:
    """How many decades wider Adam's range is, the losses at the default rate by the best, and mean losses."""

    wider: Estimate
    adam: Estimate
    sgd: Estimate
    widths: tuple[float, float]
    losses: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """Adam's range minus that of SGD, in decades."""
        return self.wider


def measure(seeds: int = 6, epochs: int = 30, arms: tuple[str, str] = ("l2", "sgd")) -> Defaults:
    """Train over all learning rates with both optimizers.

    Args:
        seeds: The number of seeds.
        epochs: The number of epochs.
        arms: The kinds of the optimizer that the claim is about and of the other one.
    """
    from adamas.understand.claims.jobs import digits_job
    from adamas.understand.claims.training import NONE, SGD, Run, train

    kinds = {"l2": NONE, "sgd": SGD}
    widths, regrets, losses = [], [], {}
    for name in arms:
        rates = _GRIDS[name]
        found = train(
            partial(digits_job, epochs=epochs),
            [Run(kinds[name], lr, 0.0, seed) for seed in range(seeds) for lr in rates],
        )
        rows = [[found[Run(kinds[name], lr, 0.0, seed)].validation for lr in rates] for seed in range(seeds)]
        widths.append([_width(row) for row in rows])
        regrets.append([row[rates.index(min(rates, key=lambda lr: abs(lr - _DEFAULT)))] / min(row) for row in rows])
        losses[name] = [sum(column) / seeds for column in zip(*rows, strict=True)]
    wider = estimate([a - b for a, b in zip(*widths, strict=True)])
    means = tuple(sum(each) / seeds for each in widths)
    adam, sgd = (estimate(each) for each in regrets)
    return Defaults(wider, adam, sgd, (means[0], means[1]), losses)


def _width(row: Sequence[float]) -> float:
    """Return over how many decades of the learning rate a loss is near its best."""
    return sum(loss <= _GOOD * min(row) for loss in row) / _PER_DECADE


def judge(found: Defaults) -> Verdict:
    """Return "holds" if Adam's range is wider and its default rate nearer to the best, "conditional" if one of both."""
    return both(found.wider.low > 0, found.adam.high < found.sgd.low)


def tell(found: Defaults, say: Say) -> Told:
    """Say how wide both ranges are, and what the default costs."""
    names = {"l2": "Adam", "sgd": say("SGD with momentum", "带动量的 SGD")}
    traces = [line(n, names[key], _GRIDS[key], losses, "lr") for n, (key, losses) in enumerate(found.losses.items())]
    adam, sgd = found.widths
    return Told(
        say(
            f"Adam is within 5 % of its best loss over {adam:.2g} decades of the learning rate, SGD with momentum "
            f"over {sgd:.2g}: a difference of {found.wider} decades. At torch's default of 0.001 Adam's loss is "
            f"{found.adam} times its best, that of SGD {found.sgd} times.",
            f"学习率跨 {adam:.2g} 个数量级时 Adam 的损失都在其最佳值的 5 % 以内，带动量的 SGD 为 {sgd:.2g} 个：相差 "
            f"{found.wider} 个数量级。在 torch 默认的 0.001 处，Adam 的损失是其最佳值的 {found.adam} 倍，SGD 为 "
            f"{found.sgd} 倍。",
        ),
        say("How much does the learning rate matter?", "学习率有多重要？"),
        chart(traces, say("learning rate", "学习率"), say("validation loss", "验证损失"), True, within=_view(found)),
        say("A wide valley needs little tuning.", "谷越宽，越不需要调参。"),
    )


def _view(found: Defaults) -> tuple[float, float]:
    """Return the part of the vertical axis where losses are near the best."""
    lowest = min(min(losses) for losses in found.losses.values())
    return lowest, 2.0 * lowest


CLAIM = Claim(
    number=6,
    source="the article",
    article_zh="由于其出色的性能和较少的超参数调整需求,Adam 经常被推荐为深度学习模型的默认优化器。",
    article_en="Because of its excellent performance and little need for tuning, Adam is often recommended as the "
    "default optimizer for deep learning models.",
    figure_en="decades of good learning rates, Adam minus SGD",
    figure_zh="好学习率的数量级数，Adam 减 SGD",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if Adam's range of good learning rates is wider than that of SGD and its default is nearer to "
    "the best; conditional if one of both.",
    rule_zh="Adam 的好学习率范围比 SGD 宽、且默认值离最佳更近则成立；只满足一项则有条件成立。",
)
