"""The arrays of one parameter's state, in NumPy and JAX <-> float32 moments and weights, through the codecs.

`adamas.formats.stored` does the same for torch's tensors, in place and for shards. The names, shapes and bytes of the
arrays are the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from adamas.extras import needs
from adamas.formats import master, rounding
from adamas.formats.arrays import Array, cast, namespace, view
from adamas.formats.moments import MOMENTS, Part
from adamas.formats.names import PARTS, WIDE, Storage, rows_and_columns
from adamas.formats.random_bits import for_weights


def parts(storage: Storage, shape: tuple[int, ...], dtype: str) -> dict[str, Part]:
    """Return the dtype and shape of moments and low bits, by name, for a parameter of this shape and dtype."""
    if storage.moments == "wide":
        found: dict[str, Part] = dict.fromkeys(WIDE, Part("float64" if dtype == "float64" else "float32", shape))
    else:
        found = dict(MOMENTS[storage.moments].parts(shape))
    if storage.master_bits:
        low = Part("int8", shape) if storage.master_bits == 24 else Part("uint8", (*shape, 2))
        found["param_low"] = low
    return found


def _patterns(x: Array) -> Array:
    """Return the integer patterns of a bfloat16 array, and any other array unchanged."""
    return cast(view(x, "uint16"), "int64") if str(x.dtype) == "bfloat16" else x


def dtype_of(name: str) -> Any:
    """Return the dtype of this name for NumPy and JAX; NumPy gets bfloat16 from ml_dtypes."""
    if name == "bfloat16":
        with needs("ml_dtypes", extra="numpy"):
            return import_module("ml_dtypes").bfloat16
    return name


def _as_stored(found: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    """Return an array of this dtype and shape from its values, or for bfloat16 from its integer patterns."""
    if dtype == "bfloat16" and not str(found.dtype).startswith("float"):
        return found.astype("uint16").view(dtype_of(dtype)).reshape(shape)
    return found.astype(dtype_of(dtype)).reshape(shape)


def moments(storage: Storage, state: Mapping[str, Array], param: Array) -> tuple[Array, Array]:
    """Return both moments in float32 or wider, shaped like the parameter."""
    if storage.moments == "wide":
        return state["exp_avg"], state["exp_avg_sq"]
    rows, columns = rows_and_columns(tuple(param.shape))
    found = {name: _patterns(state[name]) for name in PARTS[storage.moments]}
    if storage.moments in ("bfloat16", "float16"):
        found = {name: x.reshape(rows, columns) for name, x in found.items()}
    elif storage.moments == "packed16":
        found[storage.moments] = found[storage.moments].reshape(rows, columns, 2)
    m, v = MOMENTS[storage.moments].decode(found, columns)
    return m.reshape(param.shape), v.reshape(param.shape)


def encoded_moments(storage: Storage, m: Array, v: Array, random: Array | None) -> dict[str, Array]:
    """Return the stored arrays, by name, of two moments; only wide and float16 moments need no random bits."""
    if storage.moments == "wide":
        return {"exp_avg": m, "exp_avg_sq": v}
    shape = tuple(m.shape)
    rows, columns = rows_and_columns(shape)
    first, second = m.astype("float32").reshape(rows, columns), v.astype("float32").reshape(rows, columns)
    bits = first if random is None else random.reshape(rows, columns)
    encoded = MOMENTS[storage.moments].encode(first, second, bits)
    made = MOMENTS[storage.moments].parts(shape)
    return {name: _as_stored(encoded[name], *part) for name, part in made.items()}


def weight(storage: Storage, state: Mapping[str, Array], param: Array, dtype: str) -> Array:
    """Return the weight for the rule in this dtype, with its low bits if it has them."""
    if not storage.master_bits:
        return param.astype(dtype)
    low = state["param_low"]
    return master.join(_patterns(param), low if storage.master_bits == 24 else _low(low), storage.master_bits)


def _low(low: Array) -> Array:
    """Join the two bytes of each low part, the low one first, to signed integers of 16 bits."""
    both = cast(low, "int64")
    joined = (both[..., 0] | (both[..., 1] << 8)).astype("uint16")
    return joined.view("int16")


def encoded_weight(
    storage: Storage, value: Array, change: Array, param: Array, random: Array | None
) -> dict[str, Array]:
    """Return the parameter, and the low bits of a master weight, after `change` is subtracted from `value`."""
    random = for_weights(random) if storage.stochastic and random is not None else None
    if storage.master_bits:
        if random is not None:
            value = rounding.stepped(value, change, random, 8)
        else:
            value = value - change if storage.master_bits == 32 else master.nearest24(value - change)
        high, low = master.split(value, storage.master_bits)
        stored = _as_stored(high, "bfloat16", param.shape)
        return {"param": stored, "param_low": low if storage.master_bits == 24 else _two_bytes(low)}
    if random is None:
        return {"param": (value - change).astype(param.dtype)}
    if str(param.dtype) == "bfloat16":
        return {"param": rounding.stepped(value, change, random, 16).astype(param.dtype)}
    return {"param": rounding.float16_value(value, change, random).astype(param.dtype)}


def _two_bytes(low: Array) -> Array:
    """Split signed integers of 16 bits into bytes, the low one first, as a last dimension."""
    bits: Any = low.view("uint16")
    return namespace(low).stack((bits & 0xFF, bits >> 8), -1).astype("uint8")
