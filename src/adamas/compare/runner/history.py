"""What is kept of a run while it trains: losses, decay, the size of gradients, looks on the way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch.optim import Optimizer

from adamas.compare.study.run import Moment, Run

PROBES = 20  # moments in a pilot run at which sqrt(v_hat) is looked at
PERCENTILES = (0.10, 0.50, 0.90)
PROBED_WEIGHTS = 50_000  # of a probe at most: more add nothing
WINDOW = 20  # of the run: losses are averaged over a twentieth of it
LOOKS = 20  # at a finalist on its way
SHORT = 400  # steps; of fewer a twentieth is too few to judge by, and half of them little to save
PRUNE_ABOVE = 0.98  # of the loss it began with: a run that fits no better than this half-way will not be chosen


class History:
    """One run's record.

    Args:
        cell: what is trained.
        optimizer: with the cell's learning rate in its groups, before any schedule.
        steps: of the whole run; None where the job's own loop decides.
    """

    def __init__(self, run: Run, optimizer: Optimizer, steps: int | None) -> None:
        self._cell = run
        self._optimizer = optimizer
        self._rate = optimizer.param_groups[0]["lr"]
        self._first_loss = math.nan
        self._start = math.nan  # the first loss, or the mean of the first twentieth where that is higher
        self._recent: deque[float] = deque(maxlen=max(1, (steps or 0) // WINDOW))
        self._since_look: list[float] = []
        self._probes: list[torch.Tensor] = []
        self._stride = max(1, (steps or 0) // PROBES)
        self._half = (steps or 0) // 2
        self._short = (steps or 0) < SHORT
        self._factors: list[float] = []
        self.fit: float | None = None
        self.curve: list[Moment] = []

    @property
    def steps(self) -> int:
        """Optimizer steps begun."""
        return len(self._factors)

    @property
    def total_decay(self) -> float:
        """D so far, from the learning rates as they were, not as they were planned."""
        return math.fsum(self._factors) * self._cell.lr * self._cell.weight_decay

    @property
    def training_loss(self) -> float | None:
        """Mean over the last twentieth of the run."""
        return math.fsum(self._recent) / len(self._recent) if self._recent else None

    @property
    def gradient_scale(self) -> tuple[float, float, float] | None:
        """10th, 50th and 90th percentile of sqrt(v_hat) over all probes together; None where there is no v."""
        together = torch.cat([torch.empty(0), *self._probes]).double()
        if together.numel() == 0:
            return None
        low, middle, high = np.quantile(together.numpy(), PERCENTILES)  # torch's sorts, which takes ten times as long
        return float(low), float(middle), float(high)

    @property
    def should_prune(self) -> bool:
        """Whether the run, half over and not a short one, fits its training data no better than untrained weights."""
        return not self._short and self.steps == self._half and self.fit is not None and self.fit > PRUNE_ABOVE

    def saw(self, loss: float) -> None:
        """Note the training loss of the step to come."""
        if math.isnan(self._first_loss):
            self._first_loss = loss
        self._recent.append(loss)
        self._since_look.append(loss)
        if self.steps < (self._recent.maxlen or 1):  # one batch may happen to be an easy one
            self._start = max(self._first_loss, math.fsum(self._recent) / len(self._recent))

    def before_step(self) -> None:
        """Note the learning rate of the step to come."""
        self._factors.append(self._optimizer.param_groups[0]["lr"] / self._rate)

    def after_step(self) -> None:
        """Look at the second moments in a pilot, at the fit half-way."""
        if self.steps == self._half and self._start > 0 and self.training_loss is not None:
            self.fit = self.training_loss / self._start
        if self._cell.stage == "pilot" and self.steps % self._stride == 0:
            self._probe()

    def look(self, validation: float) -> None:
        """Note a look at the run on its way."""
        losses = self._since_look
        self.curve.append(Moment(self.steps, math.fsum(losses) / len(losses), validation))
        self._since_look = []

    def _probe(self) -> None:
        """Add a probe; where the run is longer than was known, keep every second one from then on."""
        self._probes.append(root_second_moments(self._optimizer, self.steps))
        if len(self._probes) > 2 * PROBES:
            self._probes = self._probes[1::2]
            self._stride *= 2


def root_second_moments(optimizer: Optimizer, step: int) -> torch.Tensor:
    """sqrt(v_hat) of the weights after `step` steps, without exact zeros: a weight that never saw a gradient."""
    parts = [
        (optimizer.state[param]["exp_avg_sq"] / (1.0 - group["betas"][1] ** step)).sqrt().flatten()
        for group in optimizer.param_groups
        for param in group["params"]
        if "exp_avg_sq" in optimizer.state.get(param, {})
    ]
    if not parts:
        return torch.empty(0)
    values = torch.cat(parts).cpu().float()
    values = values[values > 0]
    return values[:: max(1, len(values) // PROBED_WEIGHTS)]


def look_steps(steps: int) -> Sequence[int]:
    """Steps after which a finalist is looked at: evenly, the last among them."""
    return sorted({max(1, round(steps * look / LOOKS)) for look in range(1, LOOKS + 1)})
