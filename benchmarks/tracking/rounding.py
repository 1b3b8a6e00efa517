"""Rounding to a grid, and to bfloat16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.tracking.store import Moments, Store


def generator(seed: int, step: int) -> np.random.Generator:
    """Random bits of one step, whatever was drawn before."""
    return np.random.Generator(np.random.SFC64([seed, step]))


def nearest(x: Moments, grid: Moments) -> NDArray[np.intp]:
    """Indices of the nearest values of an ascending grid."""
    return np.searchsorted((grid[1:] + grid[:-1]) / 2, x)


def between(x: Moments, below: Moments, above: Moments, threshold: Moments | float) -> Moments:
    """One of a value's two neighbours on a grid.

    A threshold of .5 rounds to nearest. One drawn from [0, 1) chooses the upper neighbour as often as the value is
    near to it, so that the mean over draws is the value itself: unbiased.
    """
    gap = above - below
    return np.where((x - below) > threshold * gap, above, below)


def bfloat16_nearest(x: Moments) -> Moments:
    """Rounded to nearest, ties to even; finite values only."""
    bits = x.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)).view(np.float32)


def bfloat16_unbiased(x: Moments, random: np.random.Generator) -> Moments:
    """Rounded away from zero as often as the bits that are lost say."""
    low = random.integers(0, 1 << 16, x.shape, dtype=np.uint32)
    return ((x.view(np.uint32) + low) & np.uint32(0xFFFF0000)).view(np.float32)


def store_bfloat16_nearest(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
    """torch's fused Adam on bfloat16 parameters: computed in float32, rounded once."""
    return bfloat16_nearest(m), bfloat16_nearest(v)


def bfloat16(seed: int = 0) -> Store:
    """Both moments in bfloat16, rounded without bias."""

    def store(m: Moments, v: Moments, step: int) -> tuple[Moments, Moments]:
        random = generator(seed, step)
        return bfloat16_unbiased(m, random), bfloat16_unbiased(v, random)

    return store
