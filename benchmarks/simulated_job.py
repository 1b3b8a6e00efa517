"""Simulated studies with a known truth: what a run gives, when nothing is trained.

A figure has a bowl over the learning rate, a window of good weight decay, and chance. With weak decay every arm gives
what Adam without decay gives, as in training; with strong decay it gives more and more. Half of the variance of the
chance belongs to the seed, and is the same in every arm; so the standard deviation of a paired difference is that of
one arm's figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adamas.compare.api import go_through
from adamas.compare.search.protocol import Protocol
from adamas.compare.study.arms import ARMS
from adamas.compare.study.budgets import BUDGETS
from adamas.compare.study.run import Outcome, Requests, Run
from adamas.compare.study.settings import Settings
from adamas.compare.study.workload import Workload
from adamas.compare.verdict.result import Summary, summarise

WORKLOAD = Workload("simulated", "nowhere:job", "loss", "Drawn at random.")
STRONGEST = 0.1  # lr * weight_decay of AdamW at which decay acts a hundred times in a run, as in the last column


@dataclass(frozen=True)
class World:
    """The truth of a simulated study.

    Attributes:
        noise: The standard deviation of a figure over seeds, as a fraction of it.
        study: The number of the study, which seeds its chance.
        best: The figure of each judged arm at its best setting.
        none: The figure of Adam without decay at its best learning rate.
        best_lr: The best learning rate of every arm.
        best_decay: The best lr * weight_decay of each judged arm.
        steep: What a learning rate costs that is a decade off, as a fraction.
        window: The width of the window of good decay, in decades.
        scale: The 10th, 50th and 90th percentile of sqrt(v_hat).
        shared: The share of the variance of the chance that a seed has in all arms.
    """

    noise: float
    study: int = 0
    best: Mapping[str, float] = field(default_factory=lambda: {"adam_l2": 1.0, "adamw": 1.0})
    none: float = 1.1
    best_lr: float = 2e-3
    best_decay: Mapping[str, float] = field(default_factory=lambda: {"adam_l2": 1e-6, "adamw": 1e-3})
    steep: float = 0.2
    window: float = 0.6
    scale: tuple[float, float, float] = (1e-4, 1e-3, 1e-2)
    shared: float = 0.5

    def truth(self, run: Run) -> float:
        """Return the figure of a run without its chance."""
        rate = math.log10(run.lr / self.best_lr)
        level = self.none
        if run.arm in self.best and run.weight_decay:
            off = math.log10(run.weight_decay_paper / self.best_decay[run.arm])
            good = math.exp(-0.5 * (off / self.window) ** 2) if off < 0 else 1 - 0.1 * (off / self.window) ** 2
            level = self.none - (self.none - self.best[run.arm]) * max(good, -5.0)
            if off > 0:
                level += 0.05 * self.none * off**2
        return level * math.exp(self.steep * min(rate**2, 20.0))

    def lowest(self, arm: str) -> float:
        """Return the figure of an arm's best setting, which may be without decay."""
        return min(self.none, self.best.get(arm, self.none))

    def outcome(self, run: Run) -> Outcome:
        """Return the outcome of a run."""
        point = np.array([run.lr, run.weight_decay]).view("u4").tolist()
        words = [self.study, run.seed, list(ARMS).index(run.arm), *point]
        own, again = np.random.default_rng(words).standard_normal(2) * math.sqrt(1 - self.shared)
        common = np.random.default_rng([self.study, run.seed]).standard_normal() * math.sqrt(self.shared)
        truth, spread = self.truth(run), math.sqrt(math.log1p(self.noise**2))
        values = [truth * math.exp(spread * (common + chance) - spread**2 / 2) for chance in (own, again)]
        return Outcome(
            status="ok",
            validation={"loss": values[0]},
            test={"loss": values[1]} if run.stage == "final" else None,
            total_decay=1.0,
            steps=1000,
            epochs=10,
            gradient_scale=self.scale,
        )


def follow(searches: Sequence[Requests], outcome: Callable[[Run], Outcome]) -> None:
    """Go through searches one after the other; `outcome` gives the outcomes, and nothing is trained."""
    for search in searches:
        with suppress(StopIteration):
            request = next(search)
            while True:
                request = search.send({run: outcome(run) for run in request.runs})


def study(world: World, budget: str, seeds: int | None = None) -> Summary:
    """Return the study of a world, with the searches, the looks and the verdict of a real one."""
    settings = Settings(WORKLOAD, budget=BUDGETS[budget], seeds=seeds, out=Path("unused"))
    return summarise(go_through(Protocol(settings, {}, lambda searches: follow(searches, world.outcome))))


def drawn(number: int, noise: float, gap: float = 0.0, shared: float = 0.5) -> World:
    """Return a world whose shape is drawn at random; AdamW's best figure is `gap` below that of Adam with L2."""
    rng = np.random.default_rng([7, number])
    none = 1.0 + rng.choice([0.0, 0.05, 0.2, 0.5])
    return World(
        noise,
        number,
        {"adam_l2": 1.0, "adamw": 1.0 - gap},
        max(none, 1.0),
        best_lr=10 ** rng.uniform(-3.5, -2.2),
        best_decay={"adam_l2": 10 ** rng.uniform(-6.5, -4.5), "adamw": 10 ** rng.uniform(-3.5, -2.0)},
        steep=10 ** rng.uniform(-1.3, -0.3),
        window=10 ** rng.uniform(-0.35, 0.15),
        shared=shared,
    )
