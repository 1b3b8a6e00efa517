"""Random bits for rounding: a hash of (seed, step, stream, element index), without a state.

The bits of an element depend on nothing else, so they are the same on every device, whatever the threads, the shards
and the order of the parameters; and a run that is resumed draws what the undisturbed one would have.

The hash is two rounds of multiply and xor-shift (constants: C. Wellons, "lowbias32", hash prospector 2018) with a key
from outside before each round. It works on Python's integers, where a key is made, and on arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from adamas.formats.arrays import MASK, Array, cast

FOR_MOMENTS, FOR_WEIGHTS = 0, 1  # the streams: what is rounded with the bits


class Key(NamedTuple):
    """What distinguishes one step's bits of one stream from another's: two numbers below 2**32 (or 0-d tensors)."""

    first: Any
    second: Any


def mix(x: Any, second: Any = 0) -> Any:
    """A number below 2**32 that depends on every bit of `x`; `second` is added half-way."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & MASK
    x = x ^ (x >> 15)
    x = ((x + second) * 0x846CA68B) & MASK
    return x ^ (x >> 16)


def step_key(seed: int, step: Any, stream: int) -> Key:
    """The key of a step's bits.

    Args:
        seed: any integer; its lowest 64 bits count.
        step: the number of the step, an integer or a 0-d integer tensor where only the device knows it.
        stream: `FOR_MOMENTS` or `FOR_WEIGHTS`.
    """
    start = mix(mix(seed & MASK) ^ (seed >> 32 & MASK))
    first = mix((start ^ stream) ^ (step & MASK), start)
    return Key(first, mix(first ^ 0x9E3779B9, start))


def step_keys(seed: int, step: Any) -> tuple[Key, Key]:
    """The keys of a step for moments and for weights; `step` may be a floating 0-d tensor, too."""
    whole = int(step) if isinstance(step, int | float) else cast(step, "int64")
    return step_key(seed, whole, FOR_MOMENTS), step_key(seed, whole, FOR_WEIGHTS)


def random_bits(key: Key, index: Array) -> Array:
    """32 random bits for each element.

    Args:
        key: of the step and the stream.
        index: the elements' positions in their parameter, counted through all its rows (int64; uint32 in JAX).

    Example:
        >>> import numpy as np
        >>> random_bits(step_key(seed=0, step=1, stream=FOR_MOMENTS), np.arange(3)).tolist()
        [2581293817, 323129373, 199622903]
    """
    low, high = index & MASK, (index >> 16) >> 16
    return mix(low ^ key.first, (key.second + high * 0x9E3779B9) & MASK)
