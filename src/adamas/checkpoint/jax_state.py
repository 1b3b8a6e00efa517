"""Optimizer state of JAX: the states of optax.adam, adamw and amsgrad, wrapped or not, and of adamas.jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adamas.checkpoint.contents import (
    KEYS,
    MAXIMUM,
    WEIGHT,
    WIDE,
    Checkpoint,
    CheckpointError,
    Entry,
    Group,
    Target,
    entry_from,
    listed,
    shape_in,
    step_from,
)
from adamas.checkpoint.encoding import decoded, fitted
from adamas.checkpoint.frameworks import needed

FIELDS = dict(zip((*WIDE, MAXIMUM), ("mu", "nu", "nu_max"), strict=True))
INJECTED = {"learning_rate": "lr", "eps": "eps", "weight_decay": "weight_decay"}


def describe(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Target:
    """Return names, shapes and hyper-parameters of a state, as `init` or `update` returned it."""
    adam = _adam_of(optimizer)
    shapes = {name: shape_in(arrays) for name, arrays in _stored(adam).items()}
    if params is not None:
        shapes |= {name: shape for name, shape in shapes_of(params).items() if name in shapes}
    return Target([Group(list(shapes), _hyper(optimizer, adam, given))], shapes)


def read(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Checkpoint:
    """Return the state that `optimizer` holds; with params, their weights too."""
    adam = _adam_of(optimizer)
    step, states = step_from(int(adam.count), "the state"), _stored(adam)
    weights = dict.fromkeys(states) if params is None else _named(params)
    lacking = [name for name in states if name not in weights]
    if lacking:
        raise CheckpointError(f"params has no {listed(lacking)}, which the state has: give the params of this state")
    entries = {name: entry_from(step, arrays, weights[name], name) for name, arrays in states.items()}
    hyper = _hyper(optimizer, adam, given)
    source = f"{type(adam).__module__.split('.')[0]}.{type(adam).__name__}"
    return Checkpoint("jax", source, "alg1", hyper["amsgrad"], entries, [Group(list(entries), hyper)])


def _hyper(state: Any, adam: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters that are given, and those that `optax.inject_hyperparams` keeps in the state."""
    injected, scheduled = getattr(state, "hyperparams", {}), getattr(state, "hyperparams_states", {})
    found = {own: float(injected[key]) for key, own in INJECTED.items() if key in injected.keys() - scheduled.keys()}
    has_maximum = any(MAXIMUM in arrays for arrays in _stored(adam).values())
    # optax takes the maximum of corrected moments, and our fused states of raw ones.
    kind = "raw" if hasattr(adam, "states") else "corrected"
    return {**found, **given, "amsgrad": (given.get("amsgrad") or kind) if has_maximum else None}


def _is_adam(node: Any) -> bool:
    """Return whether a node of a state tree is an Adam's own state, ours or optax's."""
    return hasattr(node, "count") and ((hasattr(node, "mu") and hasattr(node, "nu")) or hasattr(node, "states"))


def _adam_of(state: Any) -> Any:
    """Return the one Adam state inside of a state.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    tree = needed("jax").tree_util
    found = [node for node in tree.tree_leaves(state, is_leaf=_is_adam) if _is_adam(node)]
    if len(found) != 1:
        raise CheckpointError(
            f"a {type(state).__name__} holds {len(found)} Adam states and must hold one: give the state of optax.adam, "
            "adamw, amsgrad or adamas.jax; with several, as in optax.multi_transform, one at a time"
        )
    return found[0]


def _stored(adam: Any) -> dict[str, dict[str, Any]]:
    """Return the arrays of each parameter by their key, as the state holds them."""
    if hasattr(adam, "states"):
        named = _named(adam.states, _is_state)
        return {name: {key: value for key, value in each.items() if key in KEYS} for name, each in named.items()}
    trees = {key: _named(getattr(adam, field)) for key, field in FIELDS.items() if hasattr(adam, field)}
    return {name: {key: tree[name] for key, tree in trees.items()} for name in trees["exp_avg"]}


def _is_state(node: Any) -> bool:
    """Return whether a node of our fused states is the state of one parameter."""
    return isinstance(node, dict) and any(key in node for key in ("exp_avg", "packed16", "packed12"))


def _named(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """Return the leaves of a tree by name: the parts of the path with a slash between them."""
    leaves = needed("jax").tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    return {"/".join(map(_part, path)): leaf for path, leaf in leaves}


def _part(key: Any) -> str:
    """Return one part of a path: the key of a dict, the index in a list, or the name of an attribute."""
    return str(next(getattr(key, field) for field in ("key", "idx", "name") if hasattr(key, field)))


def write(optimizer: Any, params: Any, checkpoint: Checkpoint) -> Any:
    """Return a new state with the checkpoint's moments and steps; the counts of schedules follow."""
    tree, adam = needed("jax").tree_util, _adam_of(optimizer)
    filled = {name: _filled(name, old, checkpoint.entries[name]) for name, old in _stored(adam).items()}
    if hasattr(adam, "states"):
        structure = tree.tree_structure(adam.states, is_leaf=_is_state)
        fields = {"states": tree.tree_unflatten(structure, list(filled.values()))}
    else:
        fields = {
            field: tree.tree_unflatten(
                tree.tree_structure(getattr(adam, field)), [each[key] for each in filled.values()]
            )
            for key, field in FIELDS.items()
            if hasattr(adam, field)
        }
    step = next(iter(checkpoint.entries.values())).step
    return _replaced(optimizer, adam._replace(count=_counted(adam.count, step), **fields), step)


def _filled(name: str, old: Mapping[str, Any], entry: Entry) -> dict[str, Any]:
    """Return the arrays of a parameter in the dtypes and the format of the old ones."""
    found = fitted(entry, old, name)
    return {key: needed("jax").numpy.asarray(found[key], dtype=value.dtype) for key, value in old.items()}


def _counted(count: Any, step: int) -> Any:
    """Return a count of the same shape and dtype with another number."""
    return needed("jax").numpy.full_like(count, step)


def _replaced(state: Any, adam: Any, step: int) -> Any:
    """Return a state with another Adam state in it, and with this step in the counts of schedules."""

    def known(node: Any) -> bool:
        return _is_adam(node) or getattr(node, "_fields", None) == ("count",) or hasattr(node, "hyperparams")

    def replaced(node: Any) -> Any:
        if _is_adam(node):
            return adam
        if hasattr(node, "hyperparams"):
            inside = {
                key: _replaced(getattr(node, key), adam, step)
                for key in node._fields
                if key.endswith(("_states", "_state"))
            }
            return node._replace(count=_counted(node.count, step), **inside)
        return node._replace(count=_counted(node.count, step)) if known(node) else node

    return needed("jax").tree_util.tree_map(replaced, state, is_leaf=known)


def write_weights(params: Any, checkpoint: Checkpoint) -> Any:
    """Return a tree of weights with the structure and dtypes of `params`."""
    jax = needed("jax")
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    new: list[Any] = []
    for path, old in leaves:
        entry = checkpoint.entries.get("/".join(map(_part, path)))
        if entry is None:
            new.append(old)
            continue
        # A bfloat16 parameter takes the stored upper bits, and others the whole weight.
        whole = entry if old.dtype == jax.numpy.bfloat16 else decoded(entry)
        new.append(jax.numpy.asarray(whole.arrays[WEIGHT], dtype=old.dtype))
    return jax.tree_util.tree_unflatten(structure, new)


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a tree."""
    return {name: tuple(leaf.shape) for name, leaf in _named(params).items()}
