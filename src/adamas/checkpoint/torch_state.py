"""Optimizer state of torch: torch.optim.Adam and AdamW, ours, and state dicts in .pt files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from adamas.checkpoint.contents import (
    AVERAGE,
    KEYS,
    MAXIMUM,
    WEIGHT,
    WIDE,
    Array,
    Checkpoint,
    CheckpointError,
    Entry,
    Group,
    Target,
    plain,
    step_from,
)
from adamas.checkpoint.encoding import decoded
from adamas.checkpoint.frameworks import class_of, needed
from adamas.decay import USES_BASE_LR
from adamas.options import BASE_LR

# Where scripts and trainers put an optimizer's state dict, and the model's, into a .pt file.
OPTIMIZERS, MODELS = (
    ("optimizer", "optimizer_state_dict", "optimizer_states"),
    ("model", "model_state_dict", "state_dict"),
)


def describe(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Target:
    """Return names, shapes and hyper-parameters of a live optimizer."""
    groups, homes = _named(optimizer, params)
    shapes = {name: tuple(param.shape) for name, param in homes.items()}
    return Target([Group(names, hyper(group)) for group, names in groups], dict(shapes))


def read(optimizer: Any, params: Any, given: Mapping[str, Any]) -> Checkpoint:
    """Return the state of a live optimizer; parameters without a step have step 0 and zero moments."""
    groups, homes = _named(optimizer, params)
    saved = {name: optimizer.state.get(param) or {} for name, param in homes.items()}
    return _checkpoint(saved, groups, homes, class_of(optimizer))


def unpickled(path: str | os.PathLike[str]) -> Any:
    """Return what a file of torch.save holds. Only tensors and plain values are unpickled (`weights_only=True`).

    Raises:
        CheckpointError: the file needs more than that, or is damaged.
    """
    torch = needed("torch")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make any error
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the file cannot be opened; without a name, its contents are damaged
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read as tensors and plain values (torch.load with weights_only=True): {why} Objects "
            "are never unpickled, because that runs code. Save only the state dict, or use adamas.checkpoint.save"
        ) from error


def read_file(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the state in a .pt file that holds a state dict, alone or under a usual key.

    Only tensors and plain values are unpickled (`weights_only=True`).

    Raises:
        CheckpointError: the file needs more than that, or holds no state dict of an Adam.
    """
    found = unpickled(path)
    model: Mapping[str, Any] = {}
    if isinstance(found, dict):
        model = next((found[key] for key in MODELS if isinstance(found.get(key), dict)), {})
        found = next((found[key] for key in OPTIMIZERS if key in found), found)
    found = found[0] if isinstance(found, list) and len(found) == 1 else found
    if not isinstance(found, dict) or not {"state", "param_groups"} <= found.keys():
        raise CheckpointError(
            f"{path} has no optimizer's state dict, alone or as one of {', '.join(OPTIMIZERS)}: save one with "
            "torch.save(optimizer.state_dict(), path)"
        )
    try:
        return _from_state_dict(found, model, path)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} holds no state dict of an Adam ({error!r}): it is damaged") from error


def _from_state_dict(found: Mapping[str, Any], model: Mapping[str, Any], path: str | os.PathLike[str]) -> Checkpoint:
    """Return the checkpoint of a state dict, with the weights of a model's state dict where the names agree."""
    names = {key: name for group in found["param_groups"] for key, name in _names_of(group)}
    saved = {name: found["state"].get(key) or {} for key, name in names.items()}
    unshaped = [name for name, state in saved.items() if not state]
    if unshaped:
        raise CheckpointError(
            f"{path} has no state for {', '.join(unshaped[:5])}, and does not tell their shapes: take a step first, or "
            "use adamas.checkpoint.save"
        )
    groups = [(group, [name for _, name in _names_of(group)]) for group in found["param_groups"]]
    homes = {name: model[name] for name in saved} if saved.keys() <= model.keys() else {}
    return _checkpoint(saved, groups, homes, "torch.optim.Optimizer")


def _names_of(group: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """Return the key and the name of each parameter in a saved group; its number where the group has no names."""
    return [
        (key, str(name)) for key, name in zip(group["params"], group.get("param_names", group["params"]), strict=True)
    ]


def _named(optimizer: Any, params: Any) -> tuple[list[tuple[dict[str, Any], list[str]]], dict[str, Any]]:
    """Return each group with the names of its parameters, and the parameters by name.

    Args:
        optimizer: a torch optimizer.
        params: a module, named parameters, or None where the optimizer was made from named parameters.
    """
    _check_class(optimizer)
    given: Iterable[Any] = () if params is None else getattr(params, "named_parameters", lambda: params)()
    given = list(given.items() if isinstance(given, Mapping) else given)
    names = {id(param): name for name, param in given}
    groups: list[tuple[dict[str, Any], list[str]]] = []
    homes: dict[str, Any] = {}
    for group in optimizer.param_groups:
        own = group.get("param_names", [None] * len(group["params"]))
        found = [names.get(id(param), name) for param, name in zip(group["params"], own, strict=True)]
        if None in found:
            raise CheckpointError(
                f"parameter {found.index(None)} of a group has no name, and names match state: give params=model, "
                "or make the optimizer from model.named_parameters()"
            )
        for name, param in zip(found, group["params"], strict=True):
            if name in homes:
                raise CheckpointError(f"two parameters are called {name!r}: give params with a name for each")
            homes[name] = param
        groups.append((group, found))
    return groups, homes


def _check_class(optimizer: Any) -> None:
    """Raise CheckpointError unless an optimizer is an Adam: RAdam and others keep moments of the same names."""
    optim = needed("torch").optim
    ours = any(base.__module__.startswith("adamas.") for base in type(optimizer).__mro__)
    if not ours and not isinstance(optimizer, optim.Adam | optim.AdamW):
        raise CheckpointError(
            f"the state of a {type(optimizer).__name__} and its parameter groups are not those of an Adam or AdamW: "
            "give one of torch.optim or adamas.torch, because only these are read"
        )


def _checkpoint(
    saved: Mapping[str, Mapping[str, Any]],
    groups: list[tuple[dict[str, Any], list[str]]],
    homes: Mapping[str, Any],
    source: str,
) -> Checkpoint:
    """Return the checkpoint of states by name, with the weights in `homes`, where it has them."""
    found = [Group(names, hyper(group)) for group, names in groups]
    amsgrad = {name for group in found for name in group.names if group.hyper["amsgrad"]}
    entries: dict[str, Entry] = {}
    for name, state in saved.items():
        param = homes.get(name)
        arrays = {key: _array(state[key], f"{key} of {name}") for key in KEYS if state.get(key) is not None}
        shape = _shape(arrays, name) if param is None else tuple(param.shape)
        weight = {} if param is None else {WEIGHT: _array(param, name)}
        if not arrays:
            dtype = np.float64 if weight and weight[WEIGHT].dtype == np.float64 else np.float32
            arrays = {key: np.zeros(shape, dtype) for key in (*WIDE, MAXIMUM)}
        if name not in amsgrad:
            arrays.pop(MAXIMUM, None)  # left over from an earlier setting
        entries[name] = Entry(_step(state, name), shape, {**weight, **arrays})
    return Checkpoint("torch", source, "alg1", "raw" if amsgrad else None, entries, found)


def _step(state: Mapping[str, Any], name: str) -> int:
    step = state.get("step", 0)
    return step_from(step.item() if hasattr(step, "item") and step.numel() == 1 else step, name)


def _shape(arrays: Mapping[str, Array], name: str) -> tuple[int, ...]:
    """Return the shape of a parameter from its state, for a file without the parameter."""
    if "exp_avg" in arrays:
        return arrays["exp_avg"].shape
    if "packed16" in arrays:
        return arrays["packed16"].shape[:-1]
    raise CheckpointError(
        f"the state of {name} is in a format that does not tell the parameter's shape (packed12), or is no Adam's: "
        "save it with adamas.checkpoint.save"
    )


def _array(tensor: Any, what: str) -> Array:
    """Return a tensor as a NumPy array; 16-bit floats become float32, which holds them exactly."""
    if hasattr(tensor, "to_local"):
        raise CheckpointError(f"{what} is sharded (DTensor): gather the whole tensor first, with full_tensor()")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return plain(tensor.resolve_neg().resolve_conj().numpy(), what).copy()


def hyper(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a parameter group as plain values."""
    if not {"lr", "betas", "eps", "weight_decay", "amsgrad"} <= group.keys():
        raise CheckpointError(
            f"a parameter group has the keys {', '.join(group)}, and not those of an Adam or AdamW: only these are read"
        )
    found = {"lr": float(group["lr"]), "betas": [float(beta) for beta in group["betas"]], "eps": float(group["eps"])}
    found |= {"weight_decay": float(group["weight_decay"]), "maximize": bool(group.get("maximize", False))}
    found |= {"amsgrad": "raw" if group.get("amsgrad") else None}
    if not group["weight_decay"]:
        return {**found, "decay": "none"}
    if "decoupled_weight_decay" not in group:  # torch before 2.7 does not say whether it is Adam or AdamW
        return found
    decay = group.get("decay", "lr") if group["decoupled_weight_decay"] else "l2"
    return {**found, "decay": decay, **({"base_lr": float(group[BASE_LR])} if decay in USES_BASE_LR else {})}


def write(optimizer: Any, params: Any, checkpoint: Checkpoint) -> Any:
    """Replace the state of a live optimizer through its `load_state_dict`; hyper-parameters stay as they are."""
    torch = needed("torch")
    groups, _ = _named(optimizer, params)
    ours = type(optimizer).__module__.startswith("adamas.")
    state: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(name for _, names in groups for name in names):
        entry = checkpoint.entries[name] if ours else decoded(checkpoint.entries[name])
        if entry.step:
            foreign = (WEIGHT,) if ours else (WEIGHT, AVERAGE)
            state[number] = {k: torch.from_numpy(a.copy()) for k, a in entry.arrays.items() if k not in foreign}
            state[number]["step"] = torch.tensor(float(entry.step))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return optimizer


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a module."""
    return {name: tuple(param.shape) for name, param in params.named_parameters()}


def write_weights(params: Any, checkpoint: Checkpoint) -> Any:
    """Copy weights into the parameters of a module."""
    torch = needed("torch")
    with torch.no_grad():
        for name, param in params.named_parameters():
            entry = checkpoint.entries.get(name)
            if entry is None:
                continue
            # A bfloat16 parameter takes the stored upper bits, and others the whole weight.
            whole = entry if param.dtype == torch.bfloat16 else decoded(entry)
            param.copy_(torch.from_numpy(whole.arrays[WEIGHT].copy()))
    return params
