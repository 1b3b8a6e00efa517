"""The few operations on arrays that the codecs need beside operators, for NumPy, torch and jax.numpy alike.

Integers are held wide enough that 32-bit patterns are never negative: int64 in NumPy and torch, uint32 in JAX without
64-bit types. All arithmetic on them is kept below 2**32 by masks, so both give the same numbers.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any  # np.ndarray, torch.Tensor or jax.Array
MASK = 0xFFFFFFFF
INFINITY = 0x7F800000  # float32's pattern; all above it, without the sign, are NaN


def namespace(x: Array) -> Any:
    """The module whose functions take this array: they agree in the few names and arguments that we use."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    if type(x).__module__.startswith("torch") or hasattr(x, "_is_view"):
        return sys.modules["torch"]
    return sys.modules["jax.numpy"]


def cast(x: Array, dtype: str) -> Array:
    """The array in another type, by name: values are converted, too large integers wrap."""
    xp = namespace(x)
    if hasattr(x, "astype"):
        wide = dtype if xp is np or dtype != "int64" else "uint32"
        return x.astype(wide)
    return x.to(getattr(xp, dtype))


def view(x: Array, dtype: str) -> Array:
    """The same bits read as another type."""
    return x.view(getattr(namespace(x), dtype))


def word(value: Any, like: Array) -> Any:
    """A number below 2**32 for arithmetic with such an array: JAX takes a Python integer for an int32."""
    is_jax = not isinstance(like, int | np.ndarray | np.generic) and not hasattr(like, "_is_view")
    return np.uint32(value) if is_jax and isinstance(value, int) else value


def bits_of(x: Array) -> Array:
    """The patterns of float32 numbers, as integers from 0."""
    bits = cast(view(x, "int32"), "int64")
    return bits & word(MASK, bits)


def float_of(bits: Array) -> Array:
    """The float32 numbers that have these patterns."""
    return view(cast(bits, "int32"), "float32")


def magnitude(bits: Array) -> Array:
    """Patterns without their sign."""
    return bits & 0x7FFFFFFF


def uniform(bits: Array, count: int) -> Array:
    """float32 numbers in (0, 1) from the lowest `count` of random bits: the middles of 2**count equal parts."""
    return (cast(bits & ((1 << count) - 1), "float32") + 0.5) * 2.0**-count
