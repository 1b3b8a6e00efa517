"""Claim 4: momentum makes Adam faster and damps oscillation, on ill-conditioned quadratics.

Each seed is a quadratic with curvatures from 1 to 1000 in random directions. Adam with beta1 = 0.9 runs beside Adam
with beta1 = 0, each at its own best learning rate. What counts: the steps until the loss is a thousandth of its start,
and the way walked until then for each unit of net progress.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adamas.page.lines import chart, line
from adamas.reference import Array, init, step
from adamas.scalars import Hyper
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both, estimate

_DIMENSIONS, _CONDITION = 20, 1000.0
_RATES = tuple(10 ** (power / 4) for power in range(-12, 1))
_TARGET = 1e-3


@dataclass(frozen=True)
class Momentum:
    """Ratios with momentum to without, over seeds, and the steps needed at each learning rate."""

    steps: Estimate
    way: Estimate
    rates: list[float]
    needed: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The ratio of the steps."""
        return self.steps


def measure(
    seeds: int = 12,
    limit: int = 1500,
    betas: tuple[float, float] = (0.9, 0.0),
    rates: Sequence[float] = _RATES,
) -> Momentum:
    """Count steps and way to the target with the first beta1 and with the second.

    Args:
        seeds: The number of quadratics.
        limit: Steps after which a run counts as not arrived.
        betas: beta1 with momentum and without.
        rates: The learning rates to choose from.
    """
    random = np.random.default_rng(4)
    directions = np.linalg.qr(random.standard_normal((seeds, _DIMENSIONS, _DIMENSIONS)))[0]
    curvatures = _CONDITION ** np.linspace(0, 1, _DIMENSIONS)
    matrix = np.einsum("sij,j,skj->sik", directions, curvatures, directions)
    start = np.einsum("sij,sj->si", directions, random.standard_normal((seeds, _DIMENSIONS)))
    runs = [np.array([_run(matrix, start, lr, beta, limit) for lr in rates]) for beta in betas]  # (rates, 2, seeds)
    bests = []
    for run in runs:
        best = run[:, 0].argmin(axis=0)
        bests.append(run[best, :, np.arange(seeds)])  # (seeds, 2)
    ratios = np.log(bests[0] / bests[1])
    return Momentum(
        _exponential(estimate(ratios[:, 0].tolist())),
        _exponential(estimate(ratios[:, 1].tolist())),
        list(rates),
        {f"beta1={beta}": run[:, 0].mean(axis=1).tolist() for beta, run in zip(betas, runs, strict=True)},
    )


def _run(matrix: Array, start: Array, lr: float, beta1: float, limit: int) -> Array:
    """Return the steps to the target and the way by the net move, (2, seeds); the limit where it was not reached."""
    theta, state, hyper = start, init(start), Hyper(lr=lr, beta1=beta1)
    first = _loss(matrix, start)
    steps, ratio = np.full(len(start), float(limit)), np.ones(len(start))
    way, arrived = np.zeros(len(start)), np.zeros(len(start), bool)
    for t in range(1, limit + 1):
        moved, state = step(theta, np.einsum("sij,sj->si", matrix, theta), state, hyper)
        way += np.linalg.norm(moved - theta, axis=1)
        theta = moved
        new = ~arrived & (_loss(matrix, theta) <= _TARGET * first)
        steps[new] = t
        ratio[~arrived] = (way / np.linalg.norm(theta - start, axis=1))[~arrived]
        arrived |= new
        if arrived.all():
            break
    return np.stack([steps, ratio])


def _loss(matrix: Array, theta: Array) -> Array:
    """Return the quadratic of each seed."""
    return 0.5 * np.einsum("si,sij,sj->s", theta, matrix, theta)


def _exponential(logarithm: Estimate) -> Estimate:
    """Return the estimate of a ratio from that of its logarithm."""
    return Estimate(*(math.exp(value) for value in (logarithm.value, logarithm.low, logarithm.high)))


def judge(found: Momentum) -> Verdict:
    """Return "holds" if momentum needs fewer steps and a shorter way, and "conditional" if one of them."""
    return both(found.steps.high < 1, found.way.high < 1)


def tell(found: Momentum, say: Say) -> Told:
    """Say what momentum changes in steps and in way."""
    traces = [line(n, name, found.rates, needed, "lr") for n, (name, needed) in enumerate(found.needed.items())]
    return Told(
        say(
            f"With momentum Adam needs {found.steps} times the steps and walks {found.way} times the way for each "
            "unit of progress, both at the best learning rate. Below 1 is faster and steadier.",
            f"在各自最佳学习率下，带动量的 Adam 所需步数是不带动量的 {found.steps} 倍，单位净位移所走的路程是 "
            f"{found.way} 倍；小于 1 表示更快、更平稳。",
        ),
        say("How many steps to a thousandth of the loss?", "损失降到千分之一需要多少步？"),
        chart(traces, say("learning rate", "学习率"), say("steps", "步数"), True),
        say("The lowest point of each line is its best learning rate.", "每条线的最低点是其最佳学习率。"),
    )


CLAIM = Claim(
    number=4,
    source="the article",
    article_zh="动量: 结合了动量的思想,利用过去梯度的信息来加速收敛并减少震荡。",
    article_en="Momentum: it uses past gradients to converge faster and to oscillate less.",
    figure_en="steps with momentum by steps without",
    figure_zh="带动量与不带动量的步数之比",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if both the steps and the way are shorter with momentum (intervals below 1); conditional if one is.",
    rule_zh="带动量时步数和路程都更短(区间小于 1)则成立；只有一项更短则有条件成立。",
)
