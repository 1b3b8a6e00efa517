"""Random bits for rounding: a hash of (seed, step, element index), without a state.

The bits of an element depend on nothing else, so they are the same on every device, whatever the threads, the shards
and the order of the parameters; and a run that is resumed draws what the undisturbed one would have.

An element's index walks in steps of the golden ratio from a place that the step's key sets, and is then mixed: shift,
key, multiply, shift (constants of C. Wellons' "lowbias32", hash prospector, 2018). One multiplication is enough for
rounding: means, neighbours, sums over blocks and successive steps show correlations below .02, and elements 2**31 apart
of .24, where a single error of rounding counts for nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from adamas.formats.arrays import MASK, Array, cast, word

GOLDEN = 0x9E3779B9


class Key(NamedTuple):
    """What distinguishes one step's bits from another's: two numbers below 2**32 (or 0-d tensors)."""

    first: Any
    second: Any


def _mixed(x: Any) -> Any:
    """A number below 2**32 that depends on every bit of another."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & MASK
    return x ^ (x >> 16)


def step_key(seed: int, step: Any) -> Key:
    """The key of a step's bits.

    Args:
        seed: any integer; its lowest 64 bits count.
        step: the number of the step; a 0-d tensor where only the device knows it.
    """
    start = _mixed(_mixed(seed & MASK) ^ (seed >> 32 & MASK))
    whole = int(step) if isinstance(step, int | float) else cast(step, "int64")
    first = _mixed(start ^ (whole & MASK))
    return Key(first, _mixed((first + GOLDEN) & MASK))


def random_bits(key: Key, index: Array) -> Array:
    """32 random bits for each element, with which its moments are rounded: see `for_weights`.

    Args:
        key: of the step.
        index: the elements' positions in their parameter, counted through all its rows (int64; uint32 in JAX).

    Example:
        >>> import numpy as np
        >>> random_bits(step_key(seed=0, step=1), np.arange(3)).tolist()
        [3797005146, 316229146, 1568139468]
    """
    mask, golden = word(MASK, index), word(GOLDEN, index)
    low, high = index & mask, (index >> 16) >> 16
    x = (word(key.first, index) + (low * golden & mask)) & mask
    x = x ^ (x >> 15) ^ ((word(key.second, index) + (high * golden & mask)) & mask)
    x = (x * word(0x846CA68B, index)) & mask
    return x ^ (x >> 16)


def for_weights(random: Array) -> Array:
    """The bits with which the weights are rounded whose moments these bits round."""
    return (random * word(GOLDEN, random)) & word(MASK, random)
