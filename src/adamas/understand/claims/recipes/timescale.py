"""Claim 17: AdamW's weights are a moving average of their updates over the last 1 / (lr wd) steps.

A network trains on digits, in float64, and the update of every step is read from the optimizer's moments. From these
the last weights are built again, as a moving average with the claimed timescale and with others. The timescale itself
is measured by a regression of each step on the weights before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both

_SETTINGS = ((3e-3, 3.0), (1e-2, 1.0), (1e-2, 0.3))  # lr and weight decay: averages over 111, 100 and 333 steps
_SAME, _NEAR = 1e-9, 0.01  # relative: of the weights built again, and of the timescale
_FACTORS = np.append(10 ** np.linspace(-1, 1, 20), 1.0)


@dataclass(frozen=True)
class Timescale:
    """The measured timescale times lr wd in each run, and the error of an average with other timescales."""

    products: list[float]
    error: float
    errors: dict[float, float]

    @property
    def figure(self) -> Estimate:
        """The mean product, between the least and the largest."""
        return Estimate(sum(self.products) / len(self.products), min(self.products), max(self.products))


def measure(steps: int = 300, rule: str = "adamw") -> Timescale:
    """Train with each setting, and find the timescale of the average.

    Args:
        steps: The number of steps.
        rule: "adamw", or "l2" for Adam with L2.
    """
    products, errors = [], []
    for lr, weight_decay in _SETTINGS:
        weights, updates = _record(lr, weight_decay, steps, rule)
        # Of a step: weights[t + 1] + lr update = (1 - share) weights[t]. The share is found by least squares.
        before, after = weights[:-1], weights[1:] + lr * updates
        share = float(((before - after) * before).sum() / (before * before).sum())
        products.append(lr * weight_decay / share if share else float("inf"))
        errors.append([_error(weights, updates, lr, lr * weight_decay / factor) for factor in _FACTORS])
    worst = np.max(errors, axis=0)
    order = np.argsort(_FACTORS)
    return Timescale(products, float(worst[-1]), {float(_FACTORS[n]): float(worst[n]) for n in order})


def _record(lr: float, weight_decay: float, steps: int, rule: str) -> tuple[Any, Any]:
    """Return the weights before each step and after the last one, and Adam's update of each step."""
    from torch.nn.functional import cross_entropy

    from adamas.torch import Adam, AdamW
    from adamas.understand.claims.jobs import digits_job

    job = digits_job(seed=17, epochs=steps // 10)
    model = job.model.double()
    params = list(model.parameters())
    kinds: dict[str, Any] = {"adamw": AdamW, "l2": Adam}
    optimizer = kinds[rule](params, lr=lr, weight_decay=weight_decay)
    weights, updates = [_flat(params)], []
    for epoch in range(job.epochs):
        for images, labels in job.batches(epoch):
            optimizer.zero_grad()
            cross_entropy(model(images.double()), labels).backward()
            optimizer.step()
            t = len(updates) + 1
            m, v = (_flat(each) for each in zip(*(optimizer.moments(param) for param in params), strict=True))
            updates.append(m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
            weights.append(_flat(params))
    return np.array(weights), np.array(updates)


def _flat(tensors: Any) -> Any:
    """Return the elements of all tensors in one array."""
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


def _error(weights: Any, updates: Any, lr: float, share: float) -> float:
    """Return how far the last weights are from the average of the updates with this share of a step."""
    left = (1 - share) ** np.arange(len(updates))[::-1]
    built = left[0] * (1 - share) * weights[0] - lr * (left[:, None] * updates).sum(axis=0)
    return float(np.linalg.norm(built - weights[-1]) / np.linalg.norm(weights[-1]))


def judge(found: Timescale) -> Verdict:
    """Return "holds" if the average gives the weights and has the claimed timescale, "conditional" if one of both."""
    return both(found.error < _SAME, all(abs(product - 1) < _NEAR for product in found.products))


def tell(found: Timescale, say: Say) -> Told:
    """Say how exactly the weights are the average."""
    others = [error for factor, error in found.errors.items() if not 0.8 < factor < 1.25]
    name = say("error of the average", "平均的误差")
    trace = line(0, name, list(found.errors), [max(error, 1e-17) for error in found.errors.values()], "x")
    return Told(
        say(
            f"The weights of three networks are the average of their updates to {found.error:.1g}; the measured "
            f"timescale times lr x wd is {found.figure} (theory: 1). Averages over a shorter or longer time are off "
            f"by {min(others):.1g} or more. Updates older than 1 / (lr x wd) steps make up 37 % of the average.",
            f"三个网络的权重与其更新的移动平均相差 {found.error:.1g}；测得的时间尺度乘以 lr x wd 为 {found.figure}(理"
            f"论值 1)。时间尺度更短或更长的平均至少相差 {min(others):.1g}。早于 1 / (lr x wd) 步的更新占平均的 37 %。",
        ),
        say("Over how many steps do AdamW's weights average?", "AdamW 的权重对多少步的更新取平均？"),
        chart([trace], say("timescale x lr x wd", "时间尺度 x lr x wd"), say("relative error", "相对误差"), True),
        say("The error vanishes at the claimed timescale.", "误差在所述的时间尺度处消失。"),
    )


CLAIM = Claim(
    number=17,
    source="arXiv 2405.13698",
    article_zh="AdamW 的权重是其更新在最近 1 / (lr · wd) 步上的指数移动平均。",
    article_en="AdamW's weights are an exponential moving average of their updates over 1 / (lr wd) steps.",
    figure_en="measured timescale times lr wd",
    figure_zh="测得的时间尺度乘以 lr wd",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the average gives the weights to 1e-9 and the measured timescale is within 1 %; conditional "
    "if one.",
    rule_zh="由平均重建的权重误差小于 1e-9 且测得的时间尺度偏差不超过 1 % 则成立；只满足一项则有条件成立。",
)
