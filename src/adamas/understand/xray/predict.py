"""Predict from one run where the weight decays lie that are worth a try, for AdamW and for Adam with L2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adamas.decay import from_independent, l2_window, timescale_window
from adamas.understand.xray.sample import Array


@dataclass(frozen=True)
class Window:
    """A range of weight decays in torch's convention, and the one to try first.

    Attributes:
        low: The weakest decay that is worth a try.
        central: The decay to try first.
        high: The strongest decay that is worth a try.
    """

    low: float
    central: float
    high: float


@dataclass(frozen=True)
class Windows:
    """The windows of both optimizers for a run at one learning rate.

    Attributes:
        lr: The learning rate, with which both conventions convert: the paper's weight decay is lr times torch's.
        adamw: The window of AdamW: its weights average their updates over 3, 1 and 1/3 times the run.
        l2: The window of Adam with L2: AdamW's times the 10th, 50th and 90th percentile of sqrt(v_hat).
        roots: These three percentiles.
    """

    lr: float
    adamw: Window
    l2: Window
    roots: tuple[float, float, float]


def predict_windows(roots: Sequence[Array], lr: float, steps_per_epoch: float | None, epochs: float | None) -> Windows:
    """Return the windows of weight decay for a run, from the gradients of a pilot or of any finished run.

    `adamas compare` places its grids by the same two rules, over a wider range.

    Args:
        roots: values or percentiles of sqrt(v_hat) over all weights, one array for each sample of the run.
        lr: the learning rate of the run to predict for, > 0.
        steps_per_epoch: the number of optimizer steps in an epoch, > 0.
        epochs: the number of epochs, > 0.

    Raises:
        ValueError: a number is missing or not > 0, or no weight had a gradient.

    Source: arXiv 2405.13698 for AdamW's timescale.

    Example:
        >>> windows = predict_windows([np.full(101, 0.01)], lr=0.01, steps_per_epoch=100, epochs=10)
        >>> f"{windows.adamw.low:.4f} {windows.adamw.central:.4f} {windows.adamw.high:.4f} {windows.l2.central:.4f}"
        '0.0333 0.1000 0.3000 0.0010'
    """
    for name, value in (("lr", lr), ("steps_per_epoch", steps_per_epoch), ("epochs", epochs)):
        if value is None or not 0 < value < math.inf:
            raise ValueError(
                f"{name}={value} must be a number > 0 to predict weight decay: the timescale depends on it"
            )
    steps_per_epoch, epochs = steps_per_epoch or 0.0, epochs or 0.0
    low, middle, high = (float(x) for x in np.percentile(np.concatenate(list(roots)), (10, 50, 90)))
    if not high > 0:
        raise ValueError("sqrt(v_hat) is 0 for most weights: no gradient came yet. Predict from a later step")
    decays = [from_independent(decay, lr) for decay in timescale_window(epochs, steps_per_epoch, lr)]
    ends = l2_window((decays[0], decays[-1]), low, high)
    return Windows(lr, Window(*decays), Window(ends[0], decays[1] * middle, ends[1]), (low, middle, high))
