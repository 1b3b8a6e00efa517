"""A model of the packed formats in plain NumPy, against which the real ones are held, in any division of the bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.tracking.formats import Moments, Store


def generator(seed: int, step: int) -> np.random.Generator:
    """Return the random bits of one step, independent of all earlier draws."""
    return np.random.Generator(np.random.SFC64([seed, step]))


def between(x: Moments, below: Moments, above: Moments, threshold: Moments | float) -> Moments:
    """Return one of each value's two neighbours on a grid.

    A threshold of .5 rounds to nearest. A threshold drawn from [0, 1) takes the upper neighbour more often the nearer
    it is, so that the mean over draws is the value itself: unbiased.
    """
    gap = above - below
    return np.where((x - below) > threshold * gap, above, below)


def packed(v_bits: int, m_bits: int, block: int, unbiased: bool = True, seed: int = 0) -> Store:
    """Return a store of both moments in one word: v on a logarithmic grid, m in units of the stored sqrt(v)."""

    def store(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
        random = generator(seed, step)
        rows = v.reshape(-1, block)
        threshold = random.random(rows.shape, dtype=np.float32) if unbiased else 0.5
        kept = on_log_grid(rows, 2**v_bits, threshold)
        threshold = random.random(rows.shape, dtype=np.float32) if unbiased else 0.5
        m = on_linear_grid(m.reshape(-1, block), np.sqrt(kept), 2 ** (m_bits - 1) - 1, threshold)
        return m.ravel(), kept.ravel()

    return store


def on_log_grid(v: Moments, codes: int, threshold: Moments | float) -> Moments:
    """Return v rounded to a grid from each row's least to its greatest value, even in their float32 bit patterns.

    The bit pattern of a positive float, read as an integer, is its logarithm, linear between powers of two. One code
    is for exact zeros, which take no part in the grid.
    """

    def pattern(bits: NDArray[np.float64]) -> Moments:
        return np.rint(bits).astype(np.uint32).view(np.float32)

    bits = v.view(np.uint32).astype(np.float64)
    first = np.where(v > 0, bits, np.inf).min(axis=1, keepdims=True)
    first = np.where(np.isfinite(first), first, 0)
    step = np.maximum((bits.max(axis=1, keepdims=True) - first) / (codes - 2), 1)
    code = np.clip(np.floor((bits - first) / step), 0, codes - 3)
    return np.where(v > 0, between(v, pattern(first + code * step), pattern(first + (code + 1) * step), threshold), 0)


def on_linear_grid(m: Moments, root: Moments, codes: int, threshold: Moments | float) -> Moments:
    """Return m rounded in units of `root`, to a grid of `codes` steps each way to the row's largest value.

    An error is then bounded in units of the update, m / sqrt(v), and m is zero wherever sqrt(v) is.
    """
    unit = np.divide(m, root, out=np.zeros_like(m), where=root > 0)
    scale = np.abs(unit).max(axis=1, keepdims=True)
    scale[scale == 0] = 1
    place = unit / scale * codes
    below = np.floor(place)
    return np.clip(between(place, below, below + 1, threshold), -codes, codes) / codes * scale * root
