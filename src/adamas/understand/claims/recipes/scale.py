"""Claim 14: the loss times ten moves the best L2 tenfold, and leaves AdamW's best weight decay where it is.

Six residual layers without normalisation train on noisy digits, with the loss itself and with ten times the loss. Each
arm sweeps its weight decay over the same grid both times; every seed has its own best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from adamas.page.lines import chart, line
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both, estimate
from adamas.understand.claims.sweep import best, grid, losses

_LR = 3e-3
_FACTORS = (1.0, 10.0)
_GRIDS = {"l2": grid(-3, 1), "adamw": grid(-1.5, 1.5)}
_NEAR = 0.3  # decades: a factor of two


@dataclass(frozen=True)
class Scale:
    """How many decades the best weight decay moves in each arm, and mean losses at both factors."""

    l2: Estimate
    adamw: Estimate
    decays: dict[str, list[float]]
    curves: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """The shift of L2, in decades."""
        return self.l2


def measure(
    seeds: int = 4, epochs: int = 30, arms: tuple[str, str] = ("l2", "adamw"), decays: Sequence[float] = ()
) -> Scale:
    """Find the best weight decay of both arms at both factors of the loss.

    Args:
        seeds: The number of seeds.
        epochs: The number of epochs.
        arms: The kinds of the first arm and of the second.
        decays: Weight decays of both arms; empty takes a grid for each.
    """
    from adamas.understand.claims.jobs import deep_job
    from adamas.understand.claims.training import Arm

    shifts: list[Estimate] = []
    grids, curves = {}, {}
    for kind in arms:
        grids[kind] = list(decays) or _GRIDS[kind]
        bests: list[list[float]] = []
        for factor in _FACTORS:
            job = partial(deep_job, epochs=epochs, factor=factor)
            found = losses(job, Arm(kind, kind), _LR, grids[kind], range(seeds))
            bests.append([best(grids[kind], values) for values in found.values()])
            curves[f"{kind}, {factor:g}"] = [sum(column) / seeds for column in zip(*found.values(), strict=True)]
        shifts.append(estimate([after - before for before, after in zip(*bests, strict=True)]))
    l2, adamw = shifts
    return Scale(l2, adamw, grids, curves)


def judge(found: Scale) -> Verdict:
    """Return "holds" if L2 moves a decade and AdamW stays, "conditional" if one of both, within a factor of two."""
    moves = abs(found.l2.value - 1) < _NEAR and found.l2.low > 0
    stays = abs(found.adamw.value) < _NEAR and found.adamw.high < 1
    return both(moves, stays)


def tell(found: Scale, say: Say) -> Told:
    """Say how far the best weight decay moves in each arm."""
    titles = {"l2": say("Adam with L2", "Adam + L2"), "adamw": "AdamW"}
    traces = []
    for number, (key, values) in enumerate(found.curves.items()):
        kind, factor = key.split(", ")
        name = say(f"{titles[kind]}, loss x {factor}", f"{titles[kind]}，损失 x {factor}")
        traces.append(line(number, name, found.decays[kind], values, "wd"))
    ratios = [Estimate(*(10**end for end in (each.value, each.low, each.high))) for each in (found.l2, found.adamw)]
    return Told(
        say(
            f"With the loss times 10 the best weight decay of Adam with L2 grows {ratios[0]} times, that of AdamW "
            f"{ratios[1]} times.",
            f"损失乘以 10 后，Adam + L2 的最佳权重衰减变为 {ratios[0]} 倍，AdamW 的变为 {ratios[1]} 倍。",
        ),
        say("Where is the best weight decay when the loss is ten times larger?", "损失变为十倍，最佳权重衰减在哪里？"),
        chart(traces, say("weight decay", "权重衰减"), say("validation loss", "验证损失"), True),
        say("The lowest point of each line is its best weight decay.", "每条线的最低点是最佳权重衰减。"),
    )


CLAIM = Claim(
    number=14,
    source="arXiv 2202.00089",
    article_zh="损失乘以十,L2 的最佳系数变为十倍,而 AdamW 的最佳权重衰减不变。",
    article_en="The loss times ten moves the best L2 tenfold and leaves AdamW's best weight decay.",
    figure_en="decades that the best L2 moves",
    figure_zh="L2 最佳系数移动的数量级数",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if the best L2 moves by a factor of 5 to 20 and AdamW's by less than 2; conditional if one of both.",
    rule_zh="L2 的最佳值变为 5 到 20 倍、而 AdamW 变化不到 2 倍则成立；只满足一项则有条件成立。",
)
