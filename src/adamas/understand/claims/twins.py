"""How fast does a weight forget its start? Two copies of a weight, the same gradients, and the distance between them.

Whatever the gradients do, they move both copies alike. Decay alone brings the copies together. With a small distance
this is the exact decay of a weight, in every rule: of the distance d, a step leaves d (1 - rate).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from adamas.reference import Array, init, step
from adamas.scalars import Hyper

_DISTANCE = 1e-3  # small enough for the L2 term to stay far below every gradient


def decay_rates(hyper: Hyper, gradients: Callable[[int], Array], steps: int) -> Array:
    """Return the share of each weight that decays in a step, as a multiple of lr * weight_decay.

    Args:
        hyper: The optimizer; `weight_decay` is torch's.
        gradients: A function of the step that returns the gradients of all weights.
        steps: The number of steps.
    """
    start = np.ones_like(gradients(0)) * _DISTANCE
    theta = np.stack([start / 2, -start / 2])
    state = init(theta)
    for t in range(steps):
        theta, state = step(theta, np.broadcast_to(gradients(t), theta.shape), state, hyper)
    left = np.abs(theta[0] - theta[1]) / _DISTANCE
    return -np.log(left) / steps / (hyper.lr * hyper.weight_decay)


def with_decay(decay: str, lr: float = 1e-3, weight_decay: float = 0.01) -> Hyper:
    """Return the hyperparameters of Adam with L2 ("l2") or of AdamW ("lr", "independent")."""
    return replace(Hyper(lr=lr, weight_decay=weight_decay, base_lr=lr), decay=decay)


def noise(scales: Array, seeds: int, copies: int) -> Callable[[int], Array]:
    """Return gradients of normal noise (seeds, scales, copies); the same step always has the same noise."""
    return lambda t: scales[:, None] * np.random.default_rng((17, t)).standard_normal((seeds, len(scales), copies))
