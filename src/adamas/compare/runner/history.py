"""Record what a run does while it trains: losses, weight decay, the size of its gradients, points of its curve."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch.optim import Optimizer

from adamas.compare.study.run import Moment, Run

SHORT = 400  # steps; a shorter run is not pruned: a twentieth of it is too few steps to judge by
_PROBES = 20  # steps of a pilot run at which sqrt(v_hat) is read
_PERCENTILES = (0.10, 0.50, 0.90)
_PROBED_WEIGHTS = 50_000  # weights of one probe at most; more do not change the percentiles
_WINDOW = 20  # the training loss is averaged over a twentieth of the run
_LOOKS = 20  # points on the curve of a finalist
_PRUNE_ABOVE = 0.98  # a run is pruned if half-way its training loss is above this fraction of the loss at its start


class History:
    """The record of one run.

    Args:
        run: The run that is trained.
        optimizer: The optimizer of the run, with the learning rate before any schedule.
        steps: The number of steps of the whole run; None where the job's own loop decides.
        others: Further optimizers of the run, whose sqrt(v_hat) is read too; the first one counts the steps.
        power: The power of the scheduled learning rate that a step's decay is proportional to.

    Attributes:
        fit: Mean training loss around the middle of the run, as a fraction of the loss at its start; None before the
            middle, or if the loss at the start was not above 0.
        curve: The points of the run's curve.
    """

    def __init__(
        self, run: Run, optimizer: Optimizer, steps: int | None, others: Sequence[Optimizer] = (), power: int = 1
    ) -> None:
        self._planned = steps or 0
        self._run = run
        self._optimizer = optimizer
        self._others = tuple(others)
        self._power = power
        self._rate = optimizer.param_groups[0]["lr"]
        self._first_loss = math.nan
        self._start = math.nan  # the first loss, or the mean of the first twentieth if that is higher
        self._recent: deque[float] = deque(maxlen=max(1, self._planned // _WINDOW))
        self._since_look: list[float] = []
        self._probes: list[torch.Tensor] = []
        self._stride = max(1, self._planned // _PROBES)
        self._factors: list[float] = []
        self.fit: float | None = None
        self.curve: list[Moment] = []

    @property
    def steps(self) -> int:
        """The number of optimizer steps that have begun."""
        return len(self._factors)

    @property
    def total_decay(self) -> float:
        """D so far: the sum over steps of what decay alone takes off a weight, lr_t * weight_decay for most arms."""
        return math.fsum(factor**self._power for factor in self._factors) * self._run.lr * self._run.weight_decay

    @property
    def training_loss(self) -> float | None:
        """The mean training loss over the latest twentieth of the run; None before the first step."""
        return math.fsum(self._recent) / len(self._recent) if self._recent else None

    @property
    def gradient_scale(self) -> tuple[float, float, float] | None:
        """The 10th, 50th and 90th percentile of sqrt(v_hat) over all probes; None where the optimizer has no v."""
        together = torch.cat([torch.empty(0), *self._probes]).double()
        if together.numel() == 0:
            return None
        # np.quantile selects; torch.quantile sorts, and takes ten times as long.
        low, middle, high = np.quantile(together.numpy(), _PERCENTILES)
        return float(low), float(middle), float(high)

    @property
    def should_prune(self) -> bool:
        """Whether the run is half-way, is not short, and fits its training data no better than untrained weights."""
        half_way = self._planned >= SHORT and self.steps == self._planned // 2
        return half_way and self.fit is not None and self.fit > _PRUNE_ABOVE

    def saw(self, loss: float) -> None:
        """Record the training loss of the next step."""
        if math.isnan(self._first_loss):
            self._first_loss = loss
        self._recent.append(loss)
        self._since_look.append(loss)
        if self.steps < (self._recent.maxlen or 1):  # the first batch alone may be an easy one
            self._start = max(self._first_loss, math.fsum(self._recent) / len(self._recent))

    def before_step(self) -> None:
        """Record the learning rate of the next step."""
        self._factors.append(self._optimizer.param_groups[0]["lr"] / self._rate)

    def after_step(self) -> None:
        """Record the fit if the run is half-way, and a probe if the run is a pilot run."""
        if self.steps == self._planned // 2 and self._start > 0 and self.training_loss is not None:
            self.fit = self.training_loss / self._start
        if self._run.stage == "pilot" and self.steps % self._stride == 0:
            self._probe()

    def look(self, validation: float) -> None:
        """Add a point to the curve of the run."""
        losses = self._since_look
        self.curve.append(Moment(self.steps, math.fsum(losses) / len(losses), validation))
        self._since_look = []

    def _probe(self) -> None:
        """Add a probe; if the run is longer than was known, drop every second probe and go on at half the rate."""
        self._probes.append(_root_second_moments((self._optimizer, *self._others), self.steps))
        if len(self._probes) > 2 * _PROBES:
            self._probes = self._probes[1::2]
            self._stride *= 2


def _root_second_moments(optimizers: Iterable[Optimizer], steps: int) -> torch.Tensor:
    """Return sqrt(v_hat) of the weights, without zeros: these weights never had a gradient.

    A weight without a gradient in some steps has taken fewer than `steps`; its state counts them.
    """
    parts: list[torch.Tensor] = []
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            states = [optimizer.state[param] for param in group["params"] if param in optimizer.state]
            for state in states:
                if "exp_avg_sq" in state:
                    taken = int(state.get("step", steps))
                    parts.append((state["exp_avg_sq"] / (1.0 - group["betas"][1] ** taken)).sqrt().flatten())
    if not parts:
        return torch.empty(0)
    values = torch.cat(parts).cpu().float()
    values = values[values > 0]
    return values[:: max(1, len(values) // _PROBED_WEIGHTS)]


def look_steps(steps: int) -> Sequence[int]:
    """Return the steps after which a finalist is validated: evenly spaced, and the last step is one of them."""
    return sorted({max(1, round(steps * look / _LOOKS)) for look in range(1, _LOOKS + 1)})
