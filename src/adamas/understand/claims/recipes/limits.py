"""Claim 1: Adam joins AdaGrad and RMSProp. Both must come out of Adam's rule as limits, step by step.

Without momentum and bias correction Adam is RMSProp. With beta2 towards 1 the corrected second moment becomes the mean
of all squared gradients, and with a learning rate of lr / sqrt(t) the step is AdaGrad's (arXiv 1412.6980, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.page.lines import chart, line
from adamas.reference import Array, init, step
from adamas.scalars import Hyper
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both, exact

_LR = 0.01
_SAME = 1e-4  # relative; the limit beta2 = 1 - 2^-27 itself is off by steps * 2^-28, 4e-6
_NEARLY_ONE = 1 - 2.0**-27


@dataclass(frozen=True)
class Limits:
    """The largest distance from each method, as a share of the largest move, and one weight's way under each."""

    rmsprop: float
    adagrad: float
    ways: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The larger of both distances."""
        return exact(max(self.rmsprop, self.adagrad))


def measure(steps: int = 1000, beta1: float = 0.0) -> Limits:
    """Walk with Adam and with torch's two methods through the same gradients of very different sizes.

    Args:
        steps: The number of steps.
        beta1: Adam's momentum; the limits are without.
    """
    import torch

    random = np.random.default_rng(1)
    gradients = random.standard_normal((steps, 64)) * 10 ** random.uniform(-2, 2, 64)
    rmsprop = _walk_torch(lambda params: torch.optim.RMSprop(params, lr=_LR, alpha=0.99, eps=1e-8), gradients)
    as_rmsprop = _walk(gradients, lambda t: Hyper(lr=_LR, beta1=beta1, beta2=0.99, eps=1e-8, bias_correction=False))
    adagrad = _walk_torch(lambda params: torch.optim.Adagrad(params, lr=_LR, eps=1e-10), gradients)
    as_adagrad = _walk(gradients, lambda t: Hyper(lr=_LR / math.sqrt(t), beta1=beta1, beta2=_NEARLY_ONE, eps=0.0))
    ways = {"RMSProp": rmsprop, "Adam → RMSProp": as_rmsprop, "AdaGrad": adagrad, "Adam → AdaGrad": as_adagrad}
    every = max(1, steps // 50)
    return Limits(
        _distance(as_rmsprop, rmsprop),
        _distance(as_adagrad, adagrad),
        {name: way[::every, 0].tolist() for name, way in ways.items()},
    )


def _walk(gradients: Array, hyper: Callable[[int], Hyper]) -> Array:
    """Return the weights after each step of our reference."""
    theta = np.zeros(gradients.shape[1])
    state, way = init(theta), []
    for t, g in enumerate(gradients, start=1):
        theta, state = step(theta, g, state, hyper(t))
        way.append(theta)
    return np.array(way)


def _walk_torch(make: Callable[[list[Any]], Any], gradients: Array) -> Array:
    """Return the weights after each step of an optimizer of torch, in float64."""
    import torch

    param = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    optimizer, way = make([param]), []
    for g in gradients:
        param.grad = torch.from_numpy(g)
        optimizer.step()
        way.append(param.detach().numpy().copy())
    return np.array(way)


def _distance(way: Array, other: Array) -> float:
    """Return the largest distance of two ways, as a share of the largest move."""
    return float(np.abs(way - other).max() / np.abs(other).max())


def judge(found: Limits) -> Verdict:
    """Return "holds" if both limits are met, and "conditional" if one is."""
    return both(found.rmsprop < _SAME, found.adagrad < _SAME)


def tell(found: Limits, say: Say) -> Told:
    """Say how near Adam comes to both methods."""
    steps = [float(place) for place in range(len(found.ways["RMSProp"]))]
    traces = [line(n, name, steps, way, "") for n, (name, way) in enumerate(found.ways.items())]
    return Told(
        say(
            f"Without momentum and bias correction Adam follows RMSProp to {found.rmsprop:.1g} of the way. With "
            f"beta2 near 1 and a learning rate that falls as 1/sqrt(t) it follows AdaGrad to {found.adagrad:.1g}.",
            f"去掉动量和偏差修正后，Adam 与 RMSProp 的轨迹相差不超过 {found.rmsprop:.1g}(相对位移);beta2 趋近 1、学习"
            f"率按 1/sqrt(t) 下降时，与 AdaGrad 相差不超过 {found.adagrad:.1g}。",
        ),
        say("Does Adam walk as RMSProp and AdaGrad do?", "Adam 走的路与 RMSProp、AdaGrad 一样吗？"),
        chart(traces, say("step, in fiftieths of the run", "步数(全程的五十分之一)"), say("weight", "权重")),
        say("Two lines that lie on each other are the same method.", "重合的两条线就是同一种方法。"),
    )


CLAIM = Claim(
    number=1,
    source="the article; arXiv 1412.6980, section 5",
    article_zh="Adam 是一种将 AdaGrad 和 RMSProp 优点结合起来的优化算法。",
    article_en="Adam is an optimization algorithm that combines the advantages of AdaGrad and RMSProp.",
    figure_en="largest distance from both methods, share of the way",
    figure_zh="与两种方法的最大距离(占位移的比例)",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if both methods are limits of Adam's rule, to 1e-4 of the way; conditional if one is.",
    rule_zh="两种方法都是 Adam 规则的极限(误差不超过位移的 1e-4)则成立；只有一种是则有条件成立。",
)
