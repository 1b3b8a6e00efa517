"""Optimizer state of adamas.numpy, through its `state_dict` and `load_state_dict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adamas.checkpoint.contents import (
    MAXIMUM,
    WEIGHT,
    Checkpoint,
    Group,
    Target,
    entry_from,
    shape_in,
    step_from,
)
from adamas.checkpoint.encoding import fitted
from adamas.checkpoint.frameworks import class_of


def describe(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Target:
    """Return names, shapes and hyper-parameters of a live optimizer."""
    states = _named(optimizer.state_dict()["state"])
    shapes = {name: shape_in(state) for name, state in states.items()}
    return Target([Group(list(shapes), _hyper(states, given))], shapes)


def read(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Checkpoint:
    """Return the state of a live optimizer; with params, the weights too."""
    saved = optimizer.state_dict()
    step, states = step_from(int(saved["step"]), "the optimizer"), _named(saved["state"])
    weights = dict.fromkeys(states) if params is None else _named(params)
    entries = {name: entry_from(step, state, weights[name], name) for name, state in states.items()}
    hyper = _hyper(states, given)
    return Checkpoint("numpy", class_of(optimizer), "alg1", hyper["amsgrad"], entries, [Group(list(entries), hyper)])


def _hyper(states: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters that are given, and the kind of running maximum."""
    maximum = "raw" if any(MAXIMUM in state for state in states.values()) else None
    return {**given, "amsgrad": maximum}


def _named(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by name: keys and places with a slash between them.

    A dict with the moments of a parameter counts as a leaf.
    """
    if _is_leaf(tree):
        return {path: tree}
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {name: leaf for key, part in items for name, leaf in _named(part, _join(path, key)).items()}


def _is_leaf(tree: Any) -> bool:
    if isinstance(tree, Mapping):
        return any(key in tree for key in ("exp_avg", "packed16", "packed12"))
    return not isinstance(tree, list | tuple)


def _join(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)


def write(optimizer: Any, params: Any, checkpoint: Checkpoint) -> Any:
    """Replace the state of a live optimizer through its `load_state_dict`."""

    def filled(tree: Any, path: str) -> Any:
        if _is_leaf(tree):
            return fitted(checkpoint.entries[path], tree, path)
        if isinstance(tree, Mapping):
            return {key: filled(part, _join(path, key)) for key, part in tree.items()}
        return type(tree)(filled(part, _join(path, place)) for place, part in enumerate(tree))

    saved = optimizer.state_dict()
    step = next(iter(checkpoint.entries.values())).step
    optimizer.load_state_dict({**saved, "step": step, "state": filled(saved["state"], "")})
    return optimizer


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array in nested dicts and lists."""
    return {name: tuple(array.shape) for name, array in _named(params).items()}


def write_weights(params: Any, checkpoint: Checkpoint) -> Any:
    """Write weights into the arrays of nested dicts and lists, in place."""
    for name, array in _named(params).items():
        if name in checkpoint.entries:
            array[...] = checkpoint.entries[name].arrays[WEIGHT]
    return params
