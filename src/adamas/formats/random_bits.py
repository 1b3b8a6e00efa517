"""Random bits for rounding: a hash of (seed, step, element index), without a state.

The bits of an element depend on nothing else. So they are the same on every device, for any number of threads, any
sharding and any order of the parameters, and a resumed run draws the bits of an uninterrupted one.

The key of the step gives a start; an element's index adds multiples of the golden ratio to it; the sum is mixed by
shift, key, multiply, shift (constants of C. Wellons' "lowbias32", hash prospector, 2018). One multiplication is enough
for rounding: means, neighbours, sums over blocks and successive steps have correlations below .02. Elements 2**31 apart
have .24, which does not matter for single rounding errors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from adamas.formats.arrays import MASK, Array, cast, word

GOLDEN = 0x9E3779B9


class Key(NamedTuple):
    """The key of a step's random bits: two numbers below 2**32, or 0-d tensors."""

    first: Any
    second: Any


class Place(NamedTuple):
    """The place of a tensor, which is a shard or some rows, in its whole parameter.

    Element k of the tensor has the index first + k + k // run * skip in the parameter.

    Example:
        >>> Place(first=4, run=2, skip=6).after(2)  # columns 4 and 5 of 8, from the second row on
        Place(first=12, run=2, skip=6)
    """

    first: int = 0  # the index of the tensor's first element
    run: int = 1  # the number of elements that follow one another in the parameter too
    skip: int = 0  # the number of elements of other shards between two runs

    def after(self, count: int) -> Place:
        """Return the place of the tensor without its first `count` elements, which are whole runs."""
        return self._replace(first=self.first + count + count // self.run * self.skip)


def _mixed(x: Any) -> Any:
    """Return a number below 2**32 that depends on every bit of x."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & MASK
    return x ^ (x >> 16)


def step_key(seed: int, step: Any) -> Key:
    """Return the key of a step's random bits.

    Args:
        seed: any integer; only its lowest 64 bits are used.
        step: the number of the step; a 0-d tensor where only the device knows it.
    """
    start = _mixed(_mixed(seed & MASK) ^ (seed >> 32 & MASK))
    whole = int(step) if isinstance(step, int | float) else cast(step, "int64")
    first = _mixed(start ^ (whole & MASK))
    return Key(first, _mixed((first + GOLDEN) & MASK))


def random_bits(key: Key, index: Array) -> Array:
    """Return 32 random bits for each element, which round its moments; `for_weights` derives those of its weight.

    Args:
        key: the key of the step.
        index: the elements' positions in their parameter, row-major (int64; uint32 in JAX).

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
    """Return the bits that round the weights, derived from the bits that round their moments."""
    return (random * word(GOLDEN, random)) & word(MASK, random)
