"""Groups of 32 with float16 scales, sqrt(v) linear and m companded by softsign, 8 bits each, to nearest: flashoptim.

Gonzalez Ortiz et al., FlashOptim (arXiv:2602.23349), algorithms 2 and 3; rounding, the scale's floor of 1e-12 and its
float16 as in version 0.1, which divides by the float32 scale and multiplies by the stored one.
"""

from __future__ import annotations

import numpy as np

from benchmarks.tracking.store import Moments

GROUP = 32
FLOOR = np.float32(1e-12)


def store(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
    """Both moments, each with a float16 scale a group."""
    unit, scale = scaled(m)
    bent = np.floor(127 * (2 * unit / (1 + np.abs(unit))) + np.float32(0.5)) / np.float32(127)
    root, largest = scaled(np.sqrt(v))
    root = np.floor(255 * root + np.float32(0.5)) / np.float32(255) * largest
    return (bent / (2 - np.abs(bent)) * scale).ravel(), np.square(root).ravel()


def scaled(x: Moments) -> tuple[Moments, Moments]:
    """Groups divided by their largest absolute value, and what is stored of that."""
    rows = x.reshape(-1, GROUP)
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), FLOOR)
    return rows / largest, largest.astype(np.float16).astype(np.float32)
