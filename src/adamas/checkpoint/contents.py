"""What a checkpoint holds, as plain data in NumPy arrays: one entry a parameter, hyper-parameters and conventions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from adamas.formats.names import GRIDS, PACKED, PARTS, WIDE

Array = np.ndarray[Any, Any]
Framework = Literal["torch", "jax", "keras", "numpy"]
FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)
MAXIMUM, LOW_BITS, AVERAGE, WEIGHT = "max_exp_avg_sq", "param_low", "ema", "param"
SHAPED = (WEIGHT, *WIDE, MAXIMUM, AVERAGE)  # arrays with the shape of the parameter
KEYS = (*SHAPED, *PACKED, *GRIDS, LOW_BITS)
# The hyper-parameters that a group may record. The key `amsgrad` tells a raw from a corrected maximum.
HYPER = ("lr", "betas", "eps", "weight_decay", "decay", "base_lr", "amsgrad", "maximize")
AMSGRAD = (None, "raw", "corrected")


class CheckpointError(ValueError):
    """A checkpoint cannot be read, converted or loaded; the message names the reason and the fix."""


class Entry(NamedTuple):
    """The state of one parameter."""

    step: int  # the number of steps that the parameter has taken
    shape: tuple[int, ...]  # the shape of the parameter
    arrays: dict[str, Array]  # the tensors of the state by their key in `KEYS`; moments are not bias-corrected


class Group(NamedTuple):
    """The names of parameters that share hyper-parameters."""

    names: list[str]
    hyper: dict[str, Any]  # keys of `HYPER`; an unknown value is left out


class Target(NamedTuple):
    """What an optimizer expects of a checkpoint."""

    groups: list[Group]
    shapes: dict[str, tuple[int, ...] | None]  # None where the state does not tell the shape of its parameter


@dataclass
class Checkpoint:
    """The state of an optimizer, independent of any framework."""

    layout: Framework  # the framework for which names and shapes are meant
    source: str  # the class of the optimizer that was saved
    eps_mode: Literal["alg1", "hat"]  # "alg1": eps is added to the corrected root; "hat": to the raw one
    amsgrad: Literal["raw", "corrected"] | None  # what the running maximum is taken of; None without a maximum
    entries: dict[str, Entry] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)


def packed_in(arrays: Mapping[str, Any]) -> str | None:
    """Return the name of the packed format of the moments, or None where they are not packed."""
    return next((name for name in PACKED if name in arrays), None)


def step_from(value: Any, name: str) -> int:
    """Return a step as an integer.

    Raises:
        CheckpointError: the value is no whole number >= 0.
    """
    number = float(value) if isinstance(value, Real) else float("nan")
    if not 0 <= number < 2**53 or number != int(number):
        raise CheckpointError(f"step={value} of {name} must be a whole number >= 0: the checkpoint is damaged")
    return int(number)


def plain(array: Any, what: str) -> Array:
    """Return an array as a row-major NumPy array of a dtype that a file can hold; 16-bit floats become float32."""
    found = np.asarray(array)
    if found.dtype.name in ("bfloat16", "float16"):
        found = found.astype(np.float32)
    if found.dtype.name not in ("float32", "float64", "uint8", "int8", "int64"):
        raise CheckpointError(
            f"{what} is {found.dtype.name}: a checkpoint holds float32 and float64. Convert it, or leave it out"
        )
    return np.asarray(found, order="C")


def shape_in(arrays: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the shape of a parameter from its tensors, or None where packed moments alone do not tell it."""
    return next((tuple(arrays[key].shape) for key in SHAPED if key in arrays), None)


def entry_from(step: int, arrays: Mapping[str, Any], weight: Any, name: str) -> Entry:
    """Return the entry of a parameter from arrays of JAX or NumPy and its weight, which may be None."""
    given = dict(arrays) if weight is None else {WEIGHT: weight, **arrays}
    found = {key: plain(value, f"{key} of {name}") for key, value in given.items() if key in KEYS}
    shape = shape_in(found)
    if shape is None:
        raise CheckpointError(f"the moments of {name} are packed: give params=..., which tells their shape")
    return Entry(step, shape, found)


def check(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError where a checkpoint is not whole: a tensor is missing, or has another shape or dtype."""
    if not checkpoint.entries:
        raise CheckpointError("the checkpoint holds no parameter: save an optimizer that has parameters")
    for name, entry in checkpoint.entries.items():
        step_from(entry.step, name)
        _check_arrays(name, entry)
        if (MAXIMUM in entry.arrays) != (checkpoint.amsgrad is not None):
            raise CheckpointError(
                f"amsgrad={checkpoint.amsgrad!r}, and {name} has the keys {', '.join(entry.arrays)}: either all "
                "parameters have a running maximum, or none. Save parameters with and without amsgrad apart"
            )
    grouped = [name for group in checkpoint.groups for name in group.names]
    if sorted(grouped) != sorted(checkpoint.entries):
        raise CheckpointError(
            f"the groups name {listed(sorted(grouped))}, and there is state for {listed(sorted(checkpoint.entries))}: "
            "each parameter must be in one group"
        )


def _check_arrays(name: str, entry: Entry) -> None:
    packed = packed_in(entry.arrays)
    lacking = [key for key in PARTS[packed or "wide"] if key not in entry.arrays]
    allowed = {WEIGHT, MAXIMUM, AVERAGE, LOW_BITS, *PARTS[packed or "wide"]}
    foreign = [key for key in entry.arrays if key not in allowed]
    if lacking or foreign:
        raise CheckpointError(
            f"{name} lacks {lacking or 'nothing'} and has {foreign or 'nothing'} beyond the keys of Adam's state: the "
            "checkpoint is damaged, or belongs to another optimizer"
        )
    expected: dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
    expected = dict.fromkeys(SHAPED, (("float32", "float64"), entry.shape))
    if packed is not None:
        from adamas.formats.moments import MOMENTS

        found = MOMENTS[packed].parts(entry.shape)
        expected |= {key: ((part.dtype,), part.shape) for key, part in found.items()}
    for key, array in entry.arrays.items():
        dtypes, shape = expected.get(key, (("int8", "uint8"), _low_shape(entry, array)))
        if array.dtype.name not in dtypes or array.shape != shape:
            raise CheckpointError(
                f"{key} of {name} is {array.dtype.name} of shape {array.shape}: it must be {' or '.join(dtypes)} of "
                f"shape {shape}"
            )


def _low_shape(entry: Entry, low: Array) -> tuple[int, ...]:
    """Return the shape of the low bits of a master weight: one int8, or two bytes, for each element."""
    return entry.shape if low.dtype == np.int8 else (*entry.shape, 2)


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names for a message, at most `most` of them."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more if found else "none"
