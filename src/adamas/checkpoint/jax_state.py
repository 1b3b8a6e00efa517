"""Optimizer state of JAX: the states of optax.adam, adamw and amsgrad, wrapped or not, and of adamas.jax."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

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
    packed_in,
    shape_in,
    step_from,
)
from adamas.checkpoint.encoding import decoded, fitted
from adamas.checkpoint.frameworks import needed
from adamas.formats.names import PARTS

CLASSES = (("optax", "ScaleByAdamState"), ("optax", "ScaleByAmsgradState"), ("adamas", "FusedState"))
COUNTED = ("hyperparams", "hyperparams_states", "acc_grads")  # the last is zero where no gradient waits
FIELDS = dict(zip((*WIDE, MAXIMUM), ("mu", "nu", "nu_max"), strict=True))
INJECTED = {"learning_rate": "lr", "eps": "eps", "weight_decay": "weight_decay"}


def describe(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Target:
    """Return names, shapes and hyper-parameters of a state, as `init` or `update` returned it."""
    adam = _adam_of(optimizer)
    shapes = {name: shape_in(arrays) for name, arrays in _stored(adam).items()}
    if params is not None:
        shapes |= {name: shape for name, shape in shapes_of(params).items() if name in shapes}
    _check_outside(optimizer, "not loaded, and left as they are in the state", lambda leaf: True)
    return Target([Group(list(shapes), _hyper(optimizer, adam, given))], shapes)


def read(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Checkpoint:
    """Return the state that `optimizer` holds; with params, their weights too."""
    adam = _adam_of(optimizer)
    _check_outside(optimizer, "not saved", _any_in)
    step, states = step_from(int(_leaf(adam.count)), "the state"), _stored(adam)
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
    known = injected.keys() - scheduled.keys()
    found = {own: float(_leaf(injected[key])) for key, own in INJECTED.items() if key in known}
    has_maximum = any(MAXIMUM in arrays for arrays in _stored(adam).values())
    kind = given.get("amsgrad")
    if has_maximum and kind is None:
        if hasattr(adam, "states"):
            raise CheckpointError(
                "the state has a running maximum, and does not tell of what: give the optimizer's own amsgrad, as "
                'hyper={"amsgrad": "raw"} or hyper={"amsgrad": "corrected"}'
            )
        kind = "corrected"  # optax's own
    return {**found, **given, "amsgrad": kind if has_maximum else None}


def _is_adam(node: Any) -> bool:
    """Return whether a node of a state tree is an Adam's own state, ours or optax's; others have the same fields."""
    return (type(node).__module__.split(".")[0], type(node).__name__) in CLASSES


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


def _check_outside(state: Any, what: str, matters: Callable[[Any], bool]) -> None:
    """Warn of arrays outside the Adam state, which no checkpoint holds.

    Raises:
        CheckpointError: gradients wait for a step in the state of optax.MultiSteps.
    """
    tree = needed("jax").tree_util
    for node in tree.tree_leaves(state, is_leaf=_is_multi_steps):
        waiting = int(_leaf(node.mini_step)) if _is_multi_steps(node) else 0
        if waiting:
            raise CheckpointError(
                f"mini_step={waiting}: gradients of optax.MultiSteps wait for a step and are no part of a checkpoint. "
                "Save or load right after a step, where mini_step is 0"
            )
    outside: list[str] = []
    for path, leaf in tree.tree_flatten_with_path(state, is_leaf=_is_adam)[0]:
        if _is_adam(leaf) or any(_part(key) in COUNTED for key in path) or not hasattr(leaf, "dtype"):
            continue
        if (leaf.ndim or leaf.dtype.kind not in "iub") and matters(leaf):
            outside.append(_name(path))
    if outside:
        warnings.warn(f"{what}: {listed(outside)}: a checkpoint holds the state of Adam only", stacklevel=4)


def _is_multi_steps(node: Any) -> bool:
    return hasattr(node, "mini_step") and hasattr(node, "acc_grads")


def _any_in(leaf: Any) -> bool:
    """Return whether an array holds anything but zeros; keys of random numbers do."""
    jax = needed("jax")
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended) or bool(np.asarray(leaf).any())


def _leaf(container: Any) -> Any:
    """Return the array in a container of flax, or the array itself."""
    return needed("jax").tree_util.tree_leaves(container)[0]


def _stored(adam: Any) -> dict[str, dict[str, Any]]:
    """Return the arrays of each parameter by their key, as the state holds them."""
    if hasattr(adam, "states"):
        named = _named(adam.states, _is_state)
        wrong = [name for name, each in named.items() if not isinstance(each, dict)]
        if wrong:
            raise CheckpointError(
                f"the fused state has arrays that are no state of a parameter: {listed(wrong)}. Give a state as init "
                "or step of adamas.jax returned it"
            )
        return {name: {key: value for key, value in each.items() if key in KEYS} for name, each in named.items()}
    trees = {key: _named(getattr(adam, field)) for key, field in FIELDS.items() if hasattr(adam, field)}
    if any(each.keys() != trees["exp_avg"].keys() for each in trees.values()):
        raise CheckpointError(
            "mu and nu do not hold the same parameters: give a state as init or update of the optimizer returned it"
        )
    return {name: {key: tree[name] for key, tree in trees.items()} for name in trees["exp_avg"]}


def _is_state(node: Any) -> bool:
    """Return whether a node of our fused states is the state of one parameter; parameters may be called as its keys."""
    return (
        isinstance(node, dict)
        and node.keys() <= set(KEYS)
        and all(hasattr(value, "dtype") for value in node.values())
        and node.keys() >= set(PARTS[packed_in(node) or "wide"])
    )


def _named(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """Return the leaves of a tree by name: the parts of the path with a slash between them.

    Raises:
        CheckpointError: two leaves have the same name.
    """
    found: dict[str, Any] = {}
    for path, leaf in needed("jax").tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]:
        if _name(path) in found:
            raise CheckpointError(
                f"two parameters are called {_name(path)!r}, because parts of a name are joined by slashes: rename one"
            )
        found[_name(path)] = leaf
    return found


def _name(path: Any) -> str:
    """Return the name of a leaf; a single array has no path, and is called as in adamas.numpy."""
    return "/".join(map(_part, path)) or "param"


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
    return {key: _like(found[key], value) for key, value in old.items()}


def _like(new: Any, old: Any) -> Any:
    """Return an array of JAX in the dtype of an old one, and where that one is, if it was put there."""
    jax = needed("jax")
    array = jax.numpy.asarray(new, dtype=old.dtype)
    placed = hasattr(old, "sharding") and getattr(old, "committed", True)
    return jax.device_put(array, old.sharding) if placed else array


def _counted(count: Any, step: int) -> Any:
    """Return a count of the same shape, dtype and container with another number."""
    return needed("jax").tree_util.tree_map(lambda old: _like(np.full(old.shape, step), old), count)


def _replaced(state: Any, adam: Any, step: int) -> Any:
    """Return a state with another Adam state in it, and with this step in the counts of schedules."""

    def known(node: Any) -> bool:
        alone = getattr(node, "_fields", None) == ("count",)
        return alone or _is_adam(node) or _is_multi_steps(node) or hasattr(node, "hyperparams")

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
        if _is_multi_steps(node):
            inside = _replaced(node.inner_opt_state, adam, step)
            return node._replace(gradient_step=_counted(node.gradient_step, step), inner_opt_state=inside)
        return node._replace(count=_counted(node.count, step)) if known(node) else node

    return needed("jax").tree_util.tree_map(replaced, state, is_leaf=known)


def write_weights(params: Any, checkpoint: Checkpoint) -> Any:
    """Return a tree of weights with the structure and dtypes of `params`."""
    jax = needed("jax")
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    new: list[Any] = []
    for path, old in leaves:
        entry = checkpoint.entries.get(_name(path))
        if entry is None:
            new.append(old)
            continue
        # A bfloat16 parameter takes the stored upper bits, and others the whole weight.
        whole = entry if old.dtype == jax.numpy.bfloat16 else decoded(entry)
        new.append(_like(whole.arrays[WEIGHT], old))
    return jax.tree_util.tree_unflatten(structure, new)


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a tree."""
    return {name: tuple(leaf.shape) for name, leaf in _named(params).items()}
