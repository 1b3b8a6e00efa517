"""Claim 8: AdamW subtracts weight_decay * theta, whatever the gradient is. The article's formula against two AdamWs.

Both optimizers take the same steps from the same weights with a schedule of the learning rate. What they subtract
beyond the adaptive update is compared with weight_decay * theta: for `adamas` with decay="independent", which is the
paper's, and for torch.optim.AdamW.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.page.lines import chart, line
from adamas.reference import Array
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both

_LR, _WEIGHT_DECAY, _WEIGHTS = 1e-3, 0.01, 32
_SAME = 1e-6  # relative; the subtraction of two nearly equal weights costs 10 of float64's 16 digits
_LOUDER = 1000.0  # the second half of the steps has gradients so many times larger


@dataclass(frozen=True)
class Formula:
    """What each AdamW subtracts as a multiple of the article's weight_decay * theta: least and most over all steps."""

    paper: tuple[float, float]
    torch: tuple[float, float]
    multiples: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The multiple of torch's AdamW."""
        return Estimate(sum(self.torch) / 2, *self.torch)

    @property
    def error(self) -> float:
        """How far the paper's AdamW is from the formula."""
        return max(abs(end - 1) for end in self.paper)


def measure(steps: int = 200, decay: str = "independent") -> Formula:
    """Compare what two optimizers subtract with the article's formula.

    Args:
        steps: The number of steps.
        decay: The decay of our AdamW; "l2" takes our Adam, which has no such term.
    """
    import torch

    from adamas.torch import Adam, AdamW

    def ours(params: list[Any], weight_decay: float) -> Any:
        if decay == "l2":
            return Adam(params, lr=_LR, weight_decay=weight_decay)
        return AdamW(params, lr=_LR, weight_decay=weight_decay, decay=decay)

    def torchs(params: list[Any], weight_decay: float) -> Any:
        return torch.optim.AdamW(params, lr=_LR, weight_decay=weight_decay)

    found = {"paper": _multiples(ours, steps), "torch": _multiples(torchs, steps)}
    paper, torchs_own = ((float(each.min()), float(each.max())) for each in found.values())
    every = max(1, steps // 50)
    return Formula(paper, torchs_own, {name: each.mean(axis=1)[::every].tolist() for name, each in found.items()})


def _multiples(make: Any, steps: int) -> Array:
    """Return what each step subtracts beyond Adam's update, by weight_decay * theta, (steps, weights)."""
    import torch

    random = np.random.default_rng(8)
    start = torch.from_numpy(1 + random.random(_WEIGHTS))
    decayed, plain = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = make([decayed], _WEIGHT_DECAY), make([plain], 0.0)
    found = []
    for t in range(steps):
        g = torch.from_numpy(random.standard_normal(_WEIGHTS) * (_LOUDER if t >= steps // 2 else 1.0))
        before = decayed.detach().clone()
        plain.data.copy_(before)  # the same weight, moments and gradient: the steps differ by the decay alone
        for param, optimizer in zip((decayed, plain), optimizers, strict=True):
            param.grad = g.clone()
            optimizer.step()
        found.append(((plain - decayed) / (_WEIGHT_DECAY * before)).detach().numpy())
    return np.array(found)


def judge(found: Formula) -> Verdict:
    """Return "holds" if both AdamWs subtract the article's term, and "conditional" if one does."""
    same = [abs(low - 1) < _SAME and abs(high - 1) < _SAME for low, high in (found.paper, found.torch)]
    return both(*same)


def tell(found: Formula, say: Say) -> Told:
    """Say which AdamW subtracts what."""
    names = {"paper": say('decay="independent" (the paper)', 'decay="independent"(论文)'), "torch": "torch.optim.AdamW"}
    steps = [float(n) for n in range(len(found.multiples["torch"]))]
    traces = [line(n, names[key], steps, row, "") for n, (key, row) in enumerate(found.multiples.items())]
    return Told(
        say(
            f"The paper's AdamW subtracts weight_decay * theta to {found.error:.1g} (relative), also when gradients "
            f"become {_LOUDER:g} times larger. torch.optim.AdamW subtracts {found.figure.value:.3g} times that: it "
            f"multiplies by lr = {_LR:g}, as the other frameworks do.",
            f"论文中的 AdamW 恰好减去 weight_decay * theta(相对误差 {found.error:.1g})，梯度变大 {_LOUDER:g} 倍也不"
            f"变。torch.optim.AdamW 只减去 {found.figure.value:.3g} 倍：它与其他框架一样再乘以 lr = {_LR:g}。",
        ),
        say("What does AdamW subtract?", "AdamW 减去了多少？"),
        chart(traces, say("time", "时间"), say("subtracted / (wd x theta)", "减去的量 / (wd x theta)")),
        say(f"Half-way the gradients become {_LOUDER:g} times larger.", f"半程时梯度变大 {_LOUDER:g} 倍。"),
    )


CLAIM = Claim(
    number=8,
    source="the article; arXiv 1711.05101, Algorithm 2",
    article_zh="在应用上述更新之后,独立地将权重衰减项从权重中减去: $\\theta(t+1) = \\theta$ t – learning_rate · "
    "Adam_update_term – weight_decay · θ _t",
    article_en="After applying the update above, independently subtract the weight decay term from the weight: "
    "theta(t+1) = theta(t) - learning_rate * Adam_update_term - weight_decay * theta(t)",
    figure_en="what torch's AdamW subtracts by the article's term",
    figure_zh="torch 的 AdamW 减去的量与文中公式之比",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the paper's AdamW and torch's both subtract weight_decay * theta to 1e-6; conditional if one "
    "does.",
    rule_zh="论文的 AdamW 与 torch 的 AdamW 都恰好减去 weight_decay * theta(误差 1e-6)则成立；只有一个则有条件成立。",
)
