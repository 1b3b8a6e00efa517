"""Optimizer state of Keras 3 on any backend: keras.optimizers.Adam and AdamW, and ours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from adamas.checkpoint.contents import (
    AVERAGE,
    MAXIMUM,
    WEIGHT,
    WIDE,
    Array,
    Checkpoint,
    CheckpointError,
    Entry,
    Group,
    Target,
    listed,
    plain,
    step_from,
)
from adamas.checkpoint.encoding import decoded
from adamas.checkpoint.frameworks import class_of, needed
from adamas.decay import USES_BASE_LR

LISTS = {
    **dict(zip((*WIDE, MAXIMUM), ("_momentums", "_velocities", "_velocity_hats"), strict=True)),
    AVERAGE: "_model_variables_moving_average",
}


def describe(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Target:
    """Return names, shapes and hyper-parameters of a live optimizer."""
    shapes = {name: tuple(variable.shape) for name, (variable, _) in _named(optimizer, params).items()}
    return Target([Group(list(shapes), _hyper(optimizer))], dict(shapes))


def read(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Checkpoint:
    """Return the state and the weights of a live optimizer, under the paths of its variables."""
    entries: dict[str, Entry] = {}
    step = step_from(int(needed("keras").ops.convert_to_numpy(optimizer.iterations)), "the optimizer")
    for name, (variable, states) in _named(optimizer, params).items():
        arrays = {key: _numpy(state, f"{key} of {name}") for key, state in {WEIGHT: variable, **states}.items()}
        entries[name] = Entry(step, tuple(variable.shape), arrays)
    hyper = _hyper(optimizer)
    groups = [Group(list(entries), hyper)]
    # Those of adamas.keras follow torch, unless they were made with like="keras".
    eps_mode = "hat" if getattr(optimizer, "like", "keras") == "keras" else "alg1"
    return Checkpoint("keras", class_of(optimizer), eps_mode, hyper["amsgrad"], entries, groups)


def _numpy(variable: Any, what: str) -> Array:
    return plain(needed("keras").ops.convert_to_numpy(variable), what).copy()


def _named(optimizer: Any, params: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return each trained variable by its path, with the variables of its state.

    Args:
        optimizer: an Adam or AdamW.
        params: the model, which builds an optimizer that is not built yet; or None.
    """
    _check_class(optimizer)
    if params is not None and not optimizer.built:
        optimizer.build(getattr(params, "trainable_variables", params))
    if not optimizer.built or not hasattr(optimizer, "_velocities"):
        raise CheckpointError(
            f"a {type(optimizer).__name__} has no state of Adam: give an Adam or AdamW, and params=model or "
            "optimizer.build(model.trainable_variables) where it is not built yet"
        )
    if optimizer.gradient_accumulation_steps:
        raise CheckpointError(
            f"gradient_accumulation_steps={optimizer.gradient_accumulation_steps}: gradients that wait for a step are "
            "no part of a checkpoint. Use an optimizer without"
        )
    kept = {MAXIMUM: optimizer.amsgrad, AVERAGE: optimizer.use_ema}
    lists = {key: getattr(optimizer, name) for key, name in LISTS.items() if kept.get(key, True)}
    named: dict[str, tuple[Any, dict[str, Any]]] = {}
    for number, variable in enumerate(optimizer._trainable_variables):
        states = {key: each[number] for key, each in lists.items()}
        if states["exp_avg"] is None:
            continue  # a variable that its layer overwrites, such as a scale for float8
        if variable.path in named:
            raise CheckpointError(f"two variables have the path {variable.path!r}: give the layers different names")
        named[variable.path] = (variable, states)
    return named


def _check_class(optimizer: Any) -> None:
    """Raise CheckpointError unless an optimizer is an Adam: others keep similar variables with another meaning."""
    ours = any(base.__module__.startswith("adamas.keras") for base in type(optimizer).__mro__)
    if not ours and not isinstance(optimizer, needed("keras").optimizers.Adam):
        inner = "; give its inner_optimizer" if hasattr(optimizer, "inner_optimizer") else ""
        raise CheckpointError(
            f"a {type(optimizer).__name__} has no state of Adam: give an Adam or AdamW of keras.optimizers or "
            f"adamas.keras{inner}"
        )


def _hyper(optimizer: Any) -> dict[str, Any]:
    """Return the hyper-parameters of an optimizer; a learning rate that follows a schedule is left out."""
    decay = getattr(optimizer, "decay", "lr") if optimizer.weight_decay else "none"
    found: dict[str, Any] = {
        "betas": [float(optimizer.beta_1), float(optimizer.beta_2)],
        "eps": float(optimizer.epsilon),
        "weight_decay": float(optimizer.weight_decay or 0.0),
        "decay": decay,
        "amsgrad": "raw" if optimizer.amsgrad else None,
        "maximize": False,
    }
    if decay in USES_BASE_LR:
        found["base_lr"] = float(optimizer.base_lr)
    if hasattr(optimizer._learning_rate, "assign"):
        found["lr"] = float(_numpy(optimizer._learning_rate, "learning_rate"))
    return found


def write(optimizer: Any, params: Any, checkpoint: Checkpoint) -> Any:
    """Assign the moments and the count of steps of a live optimizer; hyper-parameters stay as they are.

    An average that the checkpoint lacks starts as a copy of the present weight. Keras itself would start it at the
    first step only, which is over.
    """
    begun: list[str] = []
    for name, (weight, states) in _named(optimizer, params).items():
        arrays = decoded(checkpoint.entries[name]).arrays
        for key, variable in states.items():
            variable.assign(weight if key == AVERAGE and key not in arrays else arrays[key])
        begun += [name] if AVERAGE in states and AVERAGE not in arrays else []
    if begun:
        warnings.warn(
            f"the checkpoint has no moving average of {listed(begun)}, which use_ema=True keeps: it starts as a copy "
            "of the present weight. Load the weights before the optimizer",
            stacklevel=3,
        )
    optimizer._iterations.assign(next(iter(checkpoint.entries.values())).step)
    return optimizer


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each trained variable of a model, by path."""
    return {variable.path: tuple(variable.shape) for variable in params.trainable_variables}


def write_weights(params: Any, checkpoint: Checkpoint) -> Any:
    """Assign the trained variables of a model."""
    for variable in params.trainable_variables:
        if variable.path in checkpoint.entries:
            variable.assign(decoded(checkpoint.entries[variable.path]).arrays[WEIGHT])
    return params
