"""THE RULE of Adam and AdamW in NumPy float64, in the papers' symbols. All else is tested against it.

    theta  parameter        g  gradient           t  step, from 1        alpha   learning rate
    m      first moment     v  second moment      u  update              lambda  weight decay

Kingma & Ba 2015 (arXiv 1412.6980), Algorithm 1; Loshchilov & Hutter 2019 (arXiv 1711.05101), Algorithm 2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adamas.scalars import Hyper

Array = NDArray[np.float64]


class State(NamedTuple):
    """What Adam remembers of one parameter: raw (uncorrected) moving averages and the number of steps taken."""

    m: Array
    v: Array
    v_max: Array
    t: int = 0


def init(theta: Array) -> State:
    """A state of zeros, shaped like `theta`."""
    return State(np.zeros(np.shape(theta)), np.zeros(np.shape(theta)), np.zeros(np.shape(theta)))


def step(theta: Array, g: Array, state: State, hyper: Hyper) -> tuple[Array, State]:
    """One step, pure: returns the new parameter and the new state, and changes neither argument.

    Args:
        theta: the parameter, any shape.
        g: the gradient of the loss at `theta`, same shape.
        state: what `init` or the last step returned.
        hyper: the hyperparameters of this step.

    Example:
        >>> theta, state = step(np.array([1.0]), np.array([5.0]), init(np.array([1.0])), Hyper(lr=0.1, eps=0.0))
        >>> print(theta.round(12))  # the first step is lr * sign(g), whatever the size of g
        [0.9]
    """
    alpha, beta1, beta2, epsilon, lam = hyper.lr, hyper.beta1, hyper.beta2, hyper.eps, hyper.weight_decay
    t = state.t + 1
    g = -g if hyper.maximize else g
    if hyper.decay == "l2":
        g = g + lam * theta  # Adam: decay is coupled into the gradient, and so into m and v
    m = beta1 * state.m + (1 - beta1) * g
    v = beta2 * state.v + (1 - beta2) * g**2
    c1, c2 = (1 - beta1**t, 1 - beta2**t) if hyper.bias_correction else (1.0, 1.0)
    m_hat, v_hat, v_max = m / c1, v / c2, state.v_max
    if hyper.amsgrad == "raw":
        v_max = np.maximum(v_max, v)
        v_hat = v_max / c2
    elif hyper.amsgrad == "corrected":
        v_hat = v_max = np.maximum(v_max, v_hat)
    if hyper.eps_mode == "hat" and hyper.amsgrad != "corrected":
        epsilon = epsilon / np.sqrt(c2)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 where eps = 0 and every gradient was 0
        u = m_hat / (np.sqrt(v_hat + hyper.eps_root) + epsilon)
    if alpha == 0:
        return theta + 0.0, State(m, v, v_max, t)
    if hyper.decay == "lr":
        return theta - alpha * u - alpha * lam * theta, State(m, v, v_max, t)  # AdamW as every framework has it
    if hyper.decay == "independent":
        return theta - alpha * u - alpha / hyper.base_lr * lam * theta, State(m, v, v_max, t)  # AdamW as published
    return theta - alpha * u, State(m, v, v_max, t)


def clip(gs: list[Array], max_norm: float) -> list[Array]:
    """Gradients scaled so that their norm, taken as one long vector, is at most `max_norm`: as torch clips."""
    norm = np.sqrt(sum(np.sum(g**2) for g in gs))
    return [g * np.minimum(1.0, max_norm / (norm + 1e-6)) for g in gs]


def average(theta_bar: Array, theta: Array, decay: float) -> Array:
    """The moving average of the weights after `theta` has come in; it starts as a copy of the first."""
    return decay * theta_bar + (1 - decay) * theta
