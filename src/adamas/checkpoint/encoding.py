"""Decode and encode moments in packed formats, in NumPy, through the codecs of `adamas.formats`."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from adamas.checkpoint.contents import LOW_BITS, WEIGHT, Array, CheckpointError, Entry, packed_in
from adamas.formats.arrays import bits_of
from adamas.formats.names import GRIDS, PACKED, WIDE, rows_and_columns


def decoded(entry: Entry) -> Entry:
    """Return an entry with float32 moments, and with a weight that includes its low bits."""
    arrays, packed = dict(entry.arrays), packed_in(entry.arrays)
    if packed is not None:
        from adamas.formats.moments import MOMENTS

        rows, columns = rows_and_columns(entry.shape)
        if packed == "packed16":
            arrays[packed] = arrays[packed].reshape(rows, columns, 2)
        moments = MOMENTS[packed].decode(arrays, columns)
        for key in (*PACKED, *GRIDS):
            arrays.pop(key, None)
        arrays |= {key: moment.reshape(entry.shape) for key, moment in zip(WIDE, moments, strict=True)}
    if LOW_BITS in arrays:
        low = arrays.pop(LOW_BITS)
        if WEIGHT in arrays:
            arrays[WEIGHT] = _joined(arrays[WEIGHT], low)
    return entry._replace(arrays=arrays)


def _joined(weight: Array, low: Array) -> Array:
    """Return the float32 weights of bfloat16 values (held as float32) and their low bits."""
    from adamas.formats import master

    width = 24 if low.dtype == np.int8 else 32
    signed = low if width == 24 else low.view(np.int16)[..., 0]
    return master.join(bits_of(np.asarray(weight, np.float32)) >> 16, signed, width)


def encoded(entry: Entry, packed: str) -> Entry:
    """Return an entry with moments in a packed format; the random bits of rounding are those of the entry's step."""
    if packed_in(entry.arrays) == packed:
        return entry
    from adamas.formats.moments import MOMENTS
    from adamas.formats.random_bits import random_bits, step_key

    arrays = dict(decoded(entry).arrays)
    shape = rows_and_columns(entry.shape)
    m, v = (np.asarray(arrays.pop(key), np.float32).reshape(shape) for key in WIDE)
    index = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    codec, random = MOMENTS[packed], random_bits(step_key(0, entry.step), index)
    parts, found = codec.parts(entry.shape), codec.encode(m, v, random)
    arrays |= {key: found[key].reshape(part.shape).astype(part.dtype) for key, part in parts.items()}
    return entry._replace(arrays=arrays)


def fitted(entry: Entry, old: Mapping[str, Any], name: str) -> dict[str, Array]:
    """Return the arrays that replace those of a JAX or NumPy state, with the same keys, format and shapes.

    Low bits of a master weight that the entry lacks become zero: the parameter alone is the weight then.

    Raises:
        CheckpointError: an array is missing, or has another shape.
    """
    packed, found = packed_in(old), dict[str, Array]()
    arrays = dict((decoded(entry) if packed is None else encoded(entry, packed)).arrays)
    if LOW_BITS in entry.arrays:
        arrays[LOW_BITS] = entry.arrays[LOW_BITS]  # decoding adds them to the weight
    for key, value in old.items():
        if key not in arrays and key != LOW_BITS:
            raise CheckpointError(f"the checkpoint has no {key} of {name}, which the state needs: make a state without")
        found[key] = arrays[key] if key in arrays else np.zeros(value.shape, value.dtype)
        if found[key].shape != tuple(value.shape):
            raise CheckpointError(
                f"{key} of {name} has shape {found[key].shape} in the checkpoint and {tuple(value.shape)} in the state"
            )
    return found
