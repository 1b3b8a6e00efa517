"""Optimizer state of adamas.numpy, through its `state_dict` and `load_state_dict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adamas.checkpoint.contents import (
    HYPER,
    MAXIMUM,
    WEIGHT,
    Array,
    Checkpoint,
    CheckpointError,
    Group,
    Target,
    entry_from,
    listed,
    step_from,
)
from adamas.checkpoint.encoding import decoded, fitted
from adamas.checkpoint.frameworks import class_of


def describe(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Target:
    """Return names, shapes and hyper-parameters of a live optimizer."""
    from adamas.numpy import named

    _check_params(optimizer, params)
    shapes: dict[str, tuple[int, ...] | None] = {name: x.shape for name, x in named(optimizer.params).items()}
    return Target([Group(list(shapes), _hyper(optimizer.state_dict(), given))], shapes)


def read(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Checkpoint:
    """Return the state of a live optimizer, and its parameters."""
    from adamas.numpy import named

    _check_params(optimizer, params)
    saved, weights = optimizer.state_dict(), named(optimizer.params)
    entries = {
        name: entry_from(step_from(saved["step"][name], name), state, weights[name], name)
        for name, state in saved["state"].items()
    }
    hyper = _hyper(saved, given)
    return Checkpoint("numpy", class_of(optimizer), "alg1", hyper["amsgrad"], entries, [Group(list(entries), hyper)])


def _check_params(optimizer: Any, params: Any) -> None:
    """Raise CheckpointError where params are other arrays than those that the optimizer steps."""
    from adamas.numpy import named

    if params is None:
        return
    own, given = named(optimizer.params), named(params)
    others = [name for name in {**own, **given} if own.get(name) is not given.get(name)]
    if others:
        raise CheckpointError(
            f"params has other arrays than the optimizer for {listed(others)}, which knows its own: leave params out, "
            "or give the tree that the optimizer was made with"
        )


def _hyper(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of an optimizer, and the kind of running maximum."""
    found = {key: value for key, value in saved["hyper"].items() if key in HYPER}
    numbers = ("lr", "eps", "weight_decay", "base_lr")
    found |= {key: float(found[key]) for key in numbers if found.get(key) is not None}  # NumPy's own are no JSON
    found |= {"betas": [float(beta) for beta in found["betas"]], "maximize": bool(found.get("maximize", False))}
    has_maximum = any(MAXIMUM in state for state in saved["state"].values())
    return {**found, **given, "amsgrad": "raw" if has_maximum else None}


def write(optimizer: Any, params: Any, checkpoint: Checkpoint) -> Any:
    """Replace the state and the steps of a live optimizer; its hyper-parameters stay."""
    saved = optimizer.state_dict()
    states: dict[str, dict[str, Array]] = {}
    for name, old in saved["state"].items():
        found = fitted(checkpoint.entries[name], old, name)
        states[name] = {key: found[key].astype(value.dtype, copy=False) for key, value in old.items()}
    steps = {name: checkpoint.entries[name].step for name in states}
    optimizer.load_state_dict({**saved, "step": steps, "state": states})
    return optimizer


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array in nested dicts, lists and tuples."""
    from adamas.numpy import named

    return {name: tuple(array.shape) for name, array in named(params).items()}


def write_weights(params: Any, checkpoint: Checkpoint) -> Any:
    """Write weights into the arrays of nested dicts, lists and tuples, in place."""
    from adamas.numpy import named

    fixed = [name for name, each in named(params).items() if name in checkpoint.entries and not each.flags.writeable]
    if fixed:
        raise CheckpointError(f"{listed(fixed)} cannot be written to: give writeable arrays, as copy() returns them")
    for name, array in named(params).items():
        if name in checkpoint.entries:
            # A bfloat16 parameter takes the stored upper bits, and others the whole weight.
            entry = checkpoint.entries[name]
            whole = entry if array.dtype.name == "bfloat16" else decoded(entry)
            array[...] = whole.arrays[WEIGHT]
    return params
