"""Claim 20: weight norms settle at a predicted size, sqrt(lr / (2 wd)), with and without normalisation.

Twice with gradients of pure noise, for weights without normalisation and for rows with it: then the gradient is at a
right angle to the row and shrinks as the row grows. And twice in real training: six residual layers on digits, with
and without LayerNorm behind each layer. Weights start at a third of the predicted size and at three times of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adamas.decay import adamw_equilibrium_rms
from adamas.page.lines import chart, level, line
from adamas.reference import Array, init, step
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, estimate
from adamas.understand.claims.twins import with_decay

_LR, _WEIGHT_DECAY, _NOISE = 3e-3, 1.0, 3.0  # the noise is not 1, where L2 would have the same balance
_ROWS, _WIDTH = 8, 64
_TRAINED = 3  # seeds of the training
_NEAR = 0.1  # relative


@dataclass(frozen=True)
class Equilibrium:
    """RMS of the weights by the prediction, over seeds: noise without and with normalisation, and training likewise."""

    noise: Estimate
    noise_normalised: Estimate
    training: Estimate
    training_normalised: Estimate
    ways: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The ratio for rows with normalisation."""
        return self.noise_normalised


def measure(steps: int = 5000, seeds: int = 6, epochs: int = 150, decay: str = "lr") -> Equilibrium:
    """Let weights settle, and divide their RMS by the prediction.

    Args:
        steps: The number of steps under noise.
        seeds: The number of seeds under noise; training has three.
        epochs: The number of epochs of the training, ten steps each.
        decay: The decay of the optimizer.
    """
    noise, plain_ways = _settle(False, steps, seeds, decay)
    normalised, ways = _settle(True, steps, seeds, decay)
    return Equilibrium(
        estimate(noise),
        estimate(normalised),
        estimate(_train(False, epochs, decay)),
        estimate(_train(True, epochs, decay)),
        {"plain, small": plain_ways[0], "plain, large": plain_ways[1], "normalised, small": ways[0],
         "normalised, large": ways[1]},
    )  # fmt: skip


def _settle(normalised: bool, steps: int, seeds: int, decay: str) -> tuple[list[float], list[list[float]]]:
    """Return the late RMS of each seed by the prediction, and the ways of small and large starts."""
    hyper = with_decay(decay, lr=_LR, weight_decay=_WEIGHT_DECAY)
    predicted = adamw_equilibrium_rms(_LR, _WEIGHT_DECAY)
    starts = np.repeat([1 / 3, 3.0], _ROWS // 2)[:, None] * predicted
    theta = starts * np.random.default_rng(20).standard_normal((seeds, _ROWS, _WIDTH))
    state, late, looks = init(theta), [], []
    for t in range(steps):
        g = _NOISE * np.random.default_rng((20, t)).standard_normal(theta.shape)
        if normalised:
            norm = np.linalg.norm(theta, axis=2, keepdims=True)
            g = (g - (g * theta).sum(axis=2, keepdims=True) * theta / norm**2) / norm
        theta, state = step(theta, g, state, hyper)
        if t >= 0.8 * steps:
            late.append((theta**2).mean(axis=(1, 2)))
        if t % (steps // 40) == 0:
            looks.append([size / predicted for size in _rms(theta)])
    ways = np.array(looks).T
    return (np.sqrt(np.mean(late, axis=0)) / predicted).tolist(), ways.tolist()


def _rms(theta: Array) -> list[float]:
    """Return the RMS of the rows with a small start, and of those with a large start."""
    halves = theta[:, : _ROWS // 2], theta[:, _ROWS // 2 :]
    return [float(np.sqrt((half**2).mean())) for half in halves]


def _train(normalise: bool, epochs: int, decay: str) -> list[float]:
    """Return the RMS of the layers' weights by the prediction, for each seed, after training at a constant rate."""
    import torch

    from adamas.torch import Adam, AdamW
    from adamas.understand.claims.jobs import deep_job

    found: list[float] = []
    for seed in range(_TRAINED):
        with torch.random.fork_rng(devices=[]):
            job = deep_job(seed, epochs, normalise=normalise)
        kind = Adam if decay == "l2" else AdamW
        optimizer = kind(job.model.parameters(), lr=_LR, weight_decay=_WEIGHT_DECAY)
        for epoch in range(epochs):
            for batch in job.batches(epoch):
                optimizer.zero_grad()
                loss = job.loss(batch)
                assert isinstance(loss, torch.Tensor)
                loss.backward()
                optimizer.step()
        layers = [param.detach() for name, param in job.model.named_parameters() if "layer" in name]
        mean_square = sum(layer.square().mean().item() for layer in layers) / len(layers)
        found.append(math.sqrt(mean_square) / adamw_equilibrium_rms(_LR, _WEIGHT_DECAY))
    return found


def judge(found: Equilibrium) -> Verdict:
    """Return "holds" if all four are near the prediction, "conditional" if those of pure noise are."""
    noise = [_near(each) for each in (found.noise, found.noise_normalised)]
    training = [_near(each) for each in (found.training, found.training_normalised)]
    return "holds" if all(noise + training) else "conditional" if all(noise) else "does_not_hold"


def _near(ratio: Estimate) -> bool:
    """Return whether a whole interval is within a tenth of the prediction."""
    return ratio.low > 1 - _NEAR and ratio.high < 1 + _NEAR


def tell(found: Equilibrium, say: Say) -> Told:
    """Say how near the norms come to the prediction."""
    names = {
        "plain, small": say("plain, small start", "无归一化，从小开始"),
        "plain, large": say("plain, large start", "无归一化，从大开始"),
        "normalised, small": say("normalised, small start", "有归一化，从小开始"),
        "normalised, large": say("normalised, large start", "有归一化，从大开始"),
    }
    time = [n / 40 for n in range(len(next(iter(found.ways.values()))))]
    traces = [line(n, names[key], time, way, "") for n, (key, way) in enumerate(found.ways.items())]
    traces.append(level(say("prediction", "预测值"), (0.0, 1.0), 1.0))
    return Told(
        say(
            f"With gradients of pure noise the RMS of weights settles at {found.noise} times sqrt(lr / (2 wd)), and "
            f"at {found.noise_normalised} times with normalisation. In training on digits it is {found.training} "
            f"times, and {found.training_normalised} times with LayerNorm: there gradients are not pure noise.",
            f"纯噪声梯度下，权重的均方根稳定在 sqrt(lr / (2 wd)) 的 {found.noise} 倍，有归一化时为 "
            f"{found.noise_normalised} 倍。在手写数字上训练时为 {found.training} 倍，有 LayerNorm 时为 "
            f"{found.training_normalised} 倍：那里的梯度不是纯噪声。",
        ),
        say("Do weights settle at the predicted size?", "权重会稳定在预测的大小吗？"),
        chart(traces, say("share of the run", "训练进度"), say("RMS / prediction", "均方根 / 预测值")),
        say("All lines should end at 1, from both starts.", "无论从哪里开始，所有的线都应止于 1。"),
    )


CLAIM = Claim(
    number=20,
    source="arXiv 2305.17212",
    article_zh="无论有无归一化,权重范数都会稳定在可预测的平衡值 sqrt(lr / (2 wd))(均方根)。",
    article_en="Weight norms settle at a predicted equilibrium, an RMS of sqrt(lr / (2 wd)), with and without "
    "normalisation.",
    figure_en="RMS by the prediction, noise with normalisation",
    figure_zh="均方根与预测值之比(噪声，有归一化)",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if noise and training both settle within 10 % of the prediction; conditional if noise alone does.",
    rule_zh="噪声梯度和真实训练都稳定在预测值的 10 % 以内则成立；只有噪声梯度如此则有条件成立。",
)
