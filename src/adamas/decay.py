"""Rules about weight decay: modes, conventions, total decay, timescale, equilibrium. Pure functions of numbers.

Two conventions are in use. torch, optax, Keras, MLX and Paddle shrink a weight by `lr * weight_decay` a step ("lr").
The AdamW paper and Adamas' `decay="independent"` shrink it by `weight_decay` times the schedule's factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

DecayMode = Literal["none", "l2", "lr", "independent", "corrected"]
DECAY_MODES: tuple[DecayMode, ...] = get_args(DecayMode)
USES_BASE_LR: tuple[DecayMode, ...] = ("independent", "corrected")


def share_per_step(decay: DecayMode, weight_decay: Any, lr: Any, base_lr: float) -> Any:
    """The share of a weight that decoupled decay subtracts in one step; 0 for "none" and "l2".

    - "lr": `lr * weight_decay` (torch).
    - "independent": `weight_decay * lr / base_lr` (arXiv 1711.05101, Algorithm 2).
    - "corrected": `weight_decay * lr**2 / base_lr` (AdamC, arXiv 2506.02285; also arXiv 2512.08217). The norm of a
      weight then settles at a value that does not depend on a schedule's lr. At the base lr it equals "lr".

    Args:
        decay: the mode.
        weight_decay: lambda, a number or a 0-d tensor.
        lr: the learning rate of this step, a number or a 0-d tensor.
        base_lr: the learning rate that a schedule starts from; > 0 for the modes in `USES_BASE_LR`.

    Example:
        >>> share_per_step("corrected", weight_decay=0.5, lr=0.25, base_lr=1.0)
        0.03125
    """
    if decay == "independent":
        return weight_decay * (lr / base_lr)
    if decay == "corrected":
        return lr * weight_decay * (lr / base_lr)
    return lr * weight_decay if decay == "lr" else 0.0


def to_independent(weight_decay: float, lr: float) -> float:
    """The paper's lambda that decays as torch's `weight_decay` does at the base learning rate `lr`.

    Example:
        >>> to_independent(0.1, lr=0.01)
        0.001
    """
    return lr * weight_decay


def from_independent(weight_decay: float, lr: float) -> float:
    """Torch's `weight_decay` that decays as the paper's lambda does at the base learning rate `lr` (> 0).

    Example:
        >>> from_independent(0.001, lr=0.01)
        0.1
    """
    if not lr > 0:
        raise ValueError(f"lr={lr} must be > 0 to convert a decay that does not depend on it")
    return weight_decay / lr


def timescale_epochs(weight_decay: float, lr: float, steps_per_epoch: float) -> float:
    """The number of epochs over which AdamW's weights average their updates: 1 / (lr * weight_decay * steps_per_epoch).

    AdamW's weights are an exponential moving average of their updates with this timescale (arXiv 2405.13698), which is
    infinite without decay.

    Example:
        >>> timescale_epochs(0.1, lr=0.01, steps_per_epoch=100)
        10.0
    """
    per_epoch = lr * weight_decay * steps_per_epoch
    return math.inf if per_epoch == 0 else 1.0 / per_epoch


def weight_decay_from_timescale(tau_epochs: float, lr: float, steps_per_epoch: float) -> float:
    """Torch's `weight_decay` with the timescale `tau_epochs`: the inverse of `timescale_epochs`.

    Example:
        >>> weight_decay_from_timescale(10.0, lr=0.01, steps_per_epoch=100)
        0.1
    """
    if not (tau_epochs > 0 and lr > 0 and steps_per_epoch > 0):
        raise ValueError(f"tau_epochs={tau_epochs}, lr={lr}, steps_per_epoch={steps_per_epoch} must all be > 0")
    return 1.0 / (lr * steps_per_epoch * tau_epochs)


def total_decay(lrs: Iterable[float], weight_decay: float) -> float:
    """The total decay D of a run: the sum of lr_t * weight_decay over its steps.

    A weight without gradient ends at about exp(-D) of its start. With D far below 1 the run is too short for decay.

    Example:
        >>> total_decay([0.1, 0.1], 0.5)
        0.1
    """
    return math.fsum(lrs) * weight_decay


def adamw_equilibrium_rms(lr: float, weight_decay: float) -> float:
    """The RMS of a weight under AdamW with pure-noise gradients: sqrt(lr / (2 * weight_decay)), at any noise scale.

    It holds for lr * weight_decay << 1 - beta1. Momentum correlates the updates. Their sum over the steps removes this
    effect, except for the decay between steps: with beta1 = 0.9 and lr * weight_decay = 0.003 the RMS is 1.4 % lower.

    Example:
        >>> round(adamw_equilibrium_rms(lr=0.02, weight_decay=1.0), 12)
        0.1
    """
    return math.sqrt(lr / (2.0 * weight_decay))


def adam_l2_equilibrium_rms(lr: float, weight_decay: float, sigma: float) -> float:
    """The RMS of a weight under Adam with L2 and noise gradients of standard deviation `sigma`.

    It is sqrt(lr * sigma / (2 * weight_decay)). Unlike AdamW's RMS, it depends on the scale of the gradient. It settles
    slowly, over more than 3 * sigma / (lr * weight_decay) steps.

    Example:
        >>> round(adam_l2_equilibrium_rms(lr=0.02, weight_decay=1.0, sigma=4.0), 12)
        0.2
    """
    return math.sqrt(lr * sigma / (2.0 * weight_decay))


def equilibrium_rotation(lr: float, weight_decay: float, beta1: float) -> float:
    """The angle in radians by which a layer's weights turn in a step, once their norm has settled under AdamW.

    It is sqrt(2 * lr * weight_decay * (1 - beta1) / (1 + beta1)) (arXiv 2305.17212, table 1), for gradients that are
    noise.

    Example:
        >>> round(equilibrium_rotation(lr=0.01, weight_decay=0.19, beta1=0.9), 13)
        0.0141421356237
    """
    return math.sqrt(2.0 * lr * weight_decay * (1.0 - beta1) / (1.0 + beta1))


def timescale_window(
    epochs: float, steps_per_epoch: float, lr: float, factors: Iterable[float] = (3.0, 1.0, 1.0 / 3.0)
) -> list[float]:
    """The paper's weight decays, ascending, with which AdamW averages over these multiples of a run's length.

    Example:
        >>> [round(each, 6) for each in timescale_window(epochs=10, steps_per_epoch=100, lr=0.01)]
        [0.000333, 0.001, 0.003]
    """
    return sorted(
        to_independent(weight_decay_from_timescale(factor * epochs, lr, steps_per_epoch), lr) for factor in factors
    )


def l2_window(decoupled: tuple[float, float], low_root: float, high_root: float) -> tuple[float, float]:
    """The ends of L2's weight decays that act as decoupled ones do: L2 divides its decay by sqrt(v_hat).

    Args:
        decoupled: the ends of the decoupled weight decays.
        low_root: a low percentile of sqrt(v_hat) over the weights.
        high_root: a high percentile of sqrt(v_hat) over the weights.

    Example:
        >>> l2_window((0.5, 2.0), low_root=0.125, high_root=0.25)
        (0.0625, 0.5)
    """
    return decoupled[0] * low_root, decoupled[1] * high_root


def linear_schedule(start: float, end: float, step: int, total_steps: int) -> float:
    """The value after `step` steps on a line from `start` to `end`; from `total_steps` on it is `end`.

    Example:
        >>> linear_schedule(0.25, 0.75, step=1, total_steps=2)
        0.5
    """
    return end if step >= total_steps else start + (end - start) * (step / total_steps)


def cosine_schedule(start: float, end: float, step: int, total_steps: int) -> float:
    """The value after `step` steps on half a cosine wave from `start` to `end`; from `total_steps` on it is `end`.

    Example:
        >>> cosine_schedule(0.25, 0.75, step=1, total_steps=2)
        0.5
    """
    if step >= total_steps:
        return end
    return start + (end - start) * 0.5 * (1.0 - math.cos(math.pi * step / total_steps))


def constant_product(weight_decay: float, base_lr: float, lr: float) -> float:
    """The weight decay that keeps the product with the learning rate at weight_decay * base_lr; infinite at lr = 0.

    Example:
        >>> constant_product(0.25, base_lr=0.5, lr=0.125)
        1.0
    """
    return math.inf if lr == 0.0 else weight_decay * base_lr / lr


def scaled_weight_decay(weight_decay: float, factor: float) -> float:
    """The weight decay multiplied by a schedule's factor for one step.

    Example:
        >>> scaled_weight_decay(0.25, factor=0.5)
        0.125
    """
    return weight_decay * factor


def layer_lr(lr: float, layer_decay: float, layers_above: int) -> float:
    """The learning rate of a layer under layer-wise decay: lr * layer_decay**layers_above (arXiv 2003.10555).

    Example:
        >>> layer_lr(0.1, 0.5, layers_above=2)
        0.025
    """
    return lr * layer_decay**layers_above
