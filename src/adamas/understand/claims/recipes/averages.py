"""Claim 2: m and v are exponential moving averages of the gradient and of its square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both, exact

_SAME = 1e-12  # float64: a few thousand roundings of 1e-16
_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Averages:
    """The largest relative error of each moment, and how much each past gradient counts."""

    first: float
    second: float
    shares: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The larger of both errors."""
        return exact(max(self.first, self.second))


def measure(steps: int = 500, betas: tuple[float, float] = _BETAS) -> Averages:
    """Compare the moments of `adamas.torch.Adam` with the sums of weighted gradients that define the averages.

    Args:
        steps: The number of steps.
        betas: The betas of the optimizer; the sums have those of `_BETAS`.
    """
    import torch

    from adamas.torch import Adam

    gradients = np.random.default_rng(2).standard_normal((steps, 256)) + 0.5
    param = torch.nn.Parameter(torch.zeros(256, dtype=torch.float64))
    optimizer = Adam([param], betas=betas)
    for g in gradients:
        param.grad = torch.from_numpy(g)
        optimizer.step()
    age = np.arange(steps)[::-1, None]
    errors: list[float] = []
    for moment, beta, terms in zip(optimizer.moments(param), _BETAS, (gradients, gradients**2), strict=True):
        average = ((1 - beta) * beta**age * terms).sum(axis=0)
        errors.append(float((np.abs(moment.numpy() - average) / np.abs(average).max()).max()))
    ages = np.arange(0, 200, 4)
    first, second = errors
    return Averages(first, second, {f"beta={beta}": ((1 - beta) * beta**ages).tolist() for beta in _BETAS})


def judge(found: Averages) -> Verdict:
    """Return "holds" if both moments are the averages, and "conditional" if one is."""
    return both(found.first < _SAME, found.second < _SAME)


def tell(found: Averages, say: Say) -> Told:
    """Say how exactly the moments are the averages."""
    ages = [4.0 * n for n in range(50)]
    traces = [line(n, name, ages, shares, say("age", "距今")) for n, (name, shares) in enumerate(found.shares.items())]
    return Told(
        say(
            f"The optimizer's m and v equal the weighted sums that define the averages to {found.first:.1g} and "
            f"{found.second:.1g} (relative, float64).",
            f"优化器的 m 和 v 与指数移动平均的定义式相对误差分别为 {found.first:.1g} 和 {found.second:.1g}(float64)。",
        ),
        say("How much does a past gradient count?", "过去的梯度占多大权重？"),
        chart(traces, say("age of the gradient, steps", "梯度距今的步数"), say("its share of the average", "所占份额")),
        say("A gradient's share falls by the factor beta with every step.", "每过一步，梯度所占份额乘以 beta。"),
    )


CLAIM = Claim(
    number=2,
    source="the article; arXiv 1412.6980, Algorithm 1",
    article_zh="Adam 为每个参数维护两个指数移动平均值: 一阶矩(m): 梯度的指数移动平均值(类似于动量)。二阶矩(v): 梯度"
    "平方的指数移动平均值。",
    article_en="Adam keeps two exponential moving averages for every parameter. First moment (m): the average of "
    "the gradient (like momentum). Second moment (v): the average of its square.",
    figure_en="largest relative error of m and v",
    figure_zh="m 和 v 的最大相对误差",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if both moments equal the defining sums to 1e-12; conditional if one does.",
    rule_zh="两个矩都与定义式相符(误差小于 1e-12)则成立；只有一个相符则有条件成立。",
)
