"""Array operations that the codecs need in addition to operators, for NumPy, torch and jax.numpy.

Integers are wide enough that a 32-bit pattern is never negative: int64 in NumPy and torch, uint32 in JAX without 64-bit
types. Masks keep all integer arithmetic below 2**32, so that both give the same numbers.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any  # np.ndarray, torch.Tensor or jax.Array
MASK = 0xFFFFFFFF
INFINITY = 0x7F800000  # the pattern of float32's infinity; larger patterns, without the sign, are NaN


def namespace(x: Array) -> Any:
    """Return the module whose functions take this array: numpy, torch or jax.numpy."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    if type(x).__module__.startswith("torch") or hasattr(x, "_is_view"):
        return sys.modules["torch"]
    return sys.modules["jax.numpy"]


def cast(x: Array, dtype: str) -> Array:
    """Convert the values of an array to the dtype of this name; integers that are too large wrap."""
    xp = namespace(x)
    if hasattr(x, "astype"):
        return x.astype(dtype if xp is np or dtype != "int64" else "uint32")
    return x.to(getattr(xp, dtype))


def view(x: Array, dtype: str) -> Array:
    """Read the bits of an array as the dtype of this name."""
    return x.view(getattr(namespace(x), dtype))


def word(value: Any, like: Array) -> Any:
    """Return a number below 2**32 for arithmetic with `like`: JAX would take a Python integer for an int32."""
    is_jax = not isinstance(like, int | np.ndarray | np.generic) and not hasattr(like, "_is_view")
    return np.uint32(value) if is_jax and isinstance(value, int) else value


def bits_of(x: Array) -> Array:
    """Return the bit patterns of float32 numbers as integers >= 0."""
    bits = cast(view(x, "int32"), "int64")
    return bits & word(MASK, bits)


def float_of(bits: Array) -> Array:
    """Return the float32 numbers that have these bit patterns."""
    return view(cast(bits, "int32"), "float32")


def magnitude(bits: Array) -> Array:
    """Return bit patterns of float32 without the sign."""
    return bits & 0x7FFFFFFF


def uniform(bits: Array, count: int) -> Array:
    """Return float32 numbers in (0, 1): the middles of 2**count equal parts, chosen by the lowest `count` bits."""
    return (cast(bits & ((1 << count) - 1), "float32") + 0.5) * 2.0**-count
