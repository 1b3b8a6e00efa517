"""THE RULE of Adam and AdamW in NumPy float64, in the papers' symbols. Every kernel is tested against it.

    theta  parameter        g  gradient           t  step, from 1        alpha   learning rate
    m      first moment     v  second moment      u  update              lambda  weight decay

Kingma & Ba 2015 (arXiv 1412.6980), Algorithm 1; Loshchilov & Hutter 2019 (arXiv 1711.05101), Algorithm 2.

Decoupled decay subtracts `share * theta` in addition to the update, where `share` is
    "lr"           alpha * lambda                    PyTorch and every other framework
    "independent"  lambda * alpha / alpha_base       Loshchilov & Hutter: alpha / alpha_base is their schedule eta_t
    "corrected"    lambda * alpha^2 / alpha_base     AdamC, Defazio 2025 (arXiv 2506.02285): lambda_t = lambda * alpha /
                   alpha_max replaces lambda. Chou 2025 (arXiv 2512.08217) derives the same alpha^2 without AdamC's
                   assumption of normalisation layers: it keeps the norm of weights steady under a schedule.

Cautious weight decay, Chen et al. 2025 (arXiv 2510.12402), element by element:
    theta_t = theta_{t-1} - alpha (u_t + lambda I(u_t theta_{t-1} >= 0) theta_{t-1})
Decay is left out where u_t and theta_{t-1} have strictly opposite signs; it acts where either is 0. The code compares
signs, because the product of two small numbers may underflow to 0.

An infinite theta stays infinite under decoupled decay, as in PyTorch, which computes theta * (1 - share). The decay
term uses theta clamped to finite numbers, because inf - inf would be NaN. Coupled decay gives NaN, as in PyTorch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adamas.scalars import Hyper

Array = NDArray[np.float64]
LARGEST = np.finfo(np.float64).max


class State(NamedTuple):
    """The state of one parameter: raw (uncorrected) moving averages and the number of steps taken."""

    m: Array
    v: Array
    v_max: Array
    t: int = 0


def init(theta: Array) -> State:
    """A state of zeros, shaped like `theta`."""
    return State(np.zeros(np.shape(theta)), np.zeros(np.shape(theta)), np.zeros(np.shape(theta)))


def step(theta: Array, g: Array, state: State, hyper: Hyper) -> tuple[Array, State]:
    """Take one step: return the new parameter and the new state, without changing an argument.

    Args:
        theta: the parameter, any shape.
        g: the gradient of the loss at `theta`, of the same shape.
        state: the state that `init` or the last step returned.
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
        g = g + lam * theta  # Adam: decay goes into the gradient, and so into m and v
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
    state = State(m, v, v_max, t)
    if alpha == 0:
        return theta + 0.0, state
    share = 0.0  # of theta that decoupled decay takes away
    if hyper.decay == "lr":
        share = alpha * lam  # AdamW as every framework has it
    elif hyper.decay == "independent":
        share = alpha / hyper.base_lr * lam  # AdamW as published
    elif hyper.decay == "corrected":
        share = alpha**2 / hyper.base_lr * lam  # AdamC
    decayed = np.clip(theta, -LARGEST, LARGEST)
    if hyper.cautious_decay:
        decayed = np.where(np.sign(u) * np.sign(theta) < 0, 0.0, decayed)
    return theta - alpha * u - share * decayed, state


def clip(gs: list[Array], max_norm: float) -> list[Array]:
    """The gradients, scaled so that their norm as one long vector is at most `max_norm`, as torch clips."""
    norm = np.sqrt(sum(np.sum(g**2) for g in gs))
    return [g * np.minimum(1.0, max_norm / (norm + 1e-6)) for g in gs]


def average(theta_bar: Array, theta: Array, decay: float) -> Array:
    """The moving average of the weights after the step to `theta`; it starts as a copy of the first `theta`."""
    return decay * theta_bar + (1 - decay) * theta
