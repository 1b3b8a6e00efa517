"""Loading optimizer state: ours, torch.optim's, old ones; matched by name where both sides have names.

torch's own `load_state_dict` casts moments to the parameter's dtype, matches by position although names exist, and lets
a checkpoint turn Adam into AdamW. This one does not, and it changes nothing unless everything fits.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor

from adamas.torch.groups import CONSTRUCTED_KEYS, Group, check
from adamas.torch.state import PARTS, TENSORS, WIDE, State, conform, has_moments, stored_as
from adamas.torch.storage import check_parameters, storage_of

if TYPE_CHECKING:
    from adamas.torch.optimizer import Adam


def load(optimizer: Adam, state_dict: dict[str, Any]) -> None:
    """Replace an optimizer's state and hyperparameters by those of `state_dict`, with its hooks; see the module.

    Raises:
        ValueError: groups, parameters or shapes do not fit; the optimizer is as it was.
    """
    state_dict = dict(state_dict)
    for hook in optimizer._optimizer_load_state_dict_pre_hooks.values():
        state_dict = hook(optimizer, state_dict) or state_dict
    saved_groups: list[Group] = state_dict["param_groups"]
    groups: list[Group] = optimizer.param_groups
    if len(groups) != len(saved_groups):
        raise ValueError(
            "loaded state dict has a different number of parameter groups: "
            f"{len(saved_groups)}, the optimizer {len(groups)}"
        )
    if all("param_names" in group for group in chain(groups, saved_groups)):
        params, saved_groups = _by_name(groups, saved_groups)
    else:
        params = _by_position(groups, saved_groups)
    merged = [_merged(group, saved) for group, saved in zip(groups, saved_groups, strict=True)]
    homes = {
        id(param): (group, group["param_names"][i] if "param_names" in group else f"parameter {i}")
        for group in merged
        for i, param in enumerate(group["params"])
    }
    state: defaultdict[Any, State] = defaultdict(dict)
    for key, saved in state_dict["state"].items():
        if key in params:
            group, name = homes[id(params[key])]
            state[params[key]] = _restored(saved, params[key], group, name)
        elif not isinstance(key, int):
            state[key] = deepcopy(saved)  # not a parameter's: kept, as torch does
    optimizer.__setstate__({"state": state, "param_groups": merged})
    for hook in optimizer._optimizer_load_state_dict_post_hooks.values():
        hook(optimizer)


def _merged(group: Group, saved: Group) -> Group:
    """The group with the saved hyperparameters; what construction decided stays."""
    taken = {key: deepcopy(value) for key, value in saved.items() if key not in (*CONSTRUCTED_KEYS, "params")}
    if saved.get("decay") != "independent":
        taken.pop("decay_base_lr", None)  # it was nobody's base: the one given at construction stays
    merged = {**group, **taken, "params": group["params"]}
    if "param_names" in group:
        merged["param_names"] = group["param_names"]
    check(merged)
    merged["betas"] = tuple(merged["betas"])
    return merged


def _by_position(groups: list[Group], saved_groups: list[Group]) -> dict[Any, Tensor]:
    """Which parameter each saved id belongs to, in order."""
    for i, (group, saved) in enumerate(zip(groups, saved_groups, strict=True)):
        if len(group["params"]) != len(saved["params"]):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                f"group {i} has {len(saved['params'])} parameters saved and {len(group['params'])} in the optimizer. "
                "Give both names (named_parameters()) to match by name"
            )
    ids = chain.from_iterable(saved["params"] for saved in saved_groups)
    return dict(zip(ids, chain.from_iterable(group["params"] for group in groups), strict=True))


def _by_name(groups: list[Group], saved_groups: list[Group]) -> tuple[dict[Any, Tensor], list[Group]]:
    """Which parameter each saved id belongs to, and for each group the saved group its parameters were in.

    Says which parameters start afresh and which saved states are left aside.

    Raises:
        ValueError: no name agrees, or a group's parameters were in several saved groups with different values.
    """
    origin = {name: saved for saved in saved_groups for name in saved["param_names"]}
    ids = {name: key for saved in saved_groups for name, key in zip(saved["param_names"], saved["params"], strict=True)}
    names = [name for group in groups for name in group["param_names"]]
    new, left = [name for name in names if name not in ids], sorted(set(ids) - set(names))
    if ids and len(new) == len(names):
        raise ValueError(
            f"no parameter name agrees with the checkpoint's: here {names[0]!r} ..., there {left[0]!r} .... "
            "Rename the saved param_names, or leave names out on one side to match by position"
        )
    sources: list[Group] = []
    for index, (group, same_place) in enumerate(zip(groups, saved_groups, strict=True)):
        homes = [origin[name] for name in group["param_names"] if name in origin]
        values = [{key: value for key, value in home.items() if key not in ("params", "param_names")} for home in homes]
        if any(each is not homes[0] and value != values[0] for each, value in zip(homes, values, strict=True)):
            raise ValueError(f"the parameters of group {index} were saved in several groups with different values")
        sources.append(homes[0] if homes else same_place)
    if new or left:
        warnings.warn(
            f"optimizer state was matched by name: {len(new)} parameters start without state ({', '.join(new[:5])}), "
            f"{len(left)} saved states have no parameter ({', '.join(left[:5])})",
            stacklevel=4,
        )
    pairs = [pair for group in groups for pair in zip(group["param_names"], group["params"], strict=True)]
    params = {ids[name]: param for name, param in pairs if name in ids}
    return params, sources


def _restored(saved: State, param: Tensor, group: Group, name: str) -> State:
    """A copy of a saved state in the optimizer's storage, device and layout."""
    if not saved:
        return {}
    needed = ("step",) if has_moments(saved) else ("step", *WIDE)
    lacking = [key for key in needed if saved.get(key) is None]
    if lacking:
        raise ValueError(
            f"the state of {name} lacks {', '.join(lacking)}: it has {', '.join(map(str, saved))}, "
            "which is not the state of an Adam or AdamW"
        )
    check_parameters([(name, param)], group)
    if not float(saved["step"]) >= 0:
        raise ValueError(f"the state of {name} has step={saved['step']}, which must be >= 0")
    copied = {
        key: value.detach().clone() if isinstance(value, Tensor) else deepcopy(value) for key, value in saved.items()
    }
    copied |= {key: copied[key].to(param.device) for key in TENSORS if isinstance(copied.get(key), Tensor)}
    # An average that was saved is kept, to be looked at at least; one that was not begins at the next step.
    extras = (*(("max_exp_avg_sq",) if group["amsgrad"] else ()), *(("ema",) if "ema" in copied else ()))
    return conform(copied, param, storage_of(param, group), extras, name)


def decoded(optimizer: Adam, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict with moments as torch.optim keeps them, whatever their format; without low bits of weights.

    Args:
        optimizer: whose state it is.
        state_dict: from `optimizer.state_dict()`; not changed.
    """
    groups = zip(optimizer.param_groups, state_dict["param_groups"], strict=True)
    homes = {key: param for group, saved in groups for key, param in zip(saved["params"], group["params"], strict=True)}
    from adamas.kernels import stored

    state = dict(state_dict["state"])
    for key, saved in state.items():
        if key in homes and has_moments(saved):
            param = homes[key]
            moments = stored.moments(stored_as(saved, param), saved, param.detach())
            rest = {name: value for name, value in saved.items() if name not in (*PARTS, "param_low")}
            state[key] = {**rest, **dict(zip(WIDE, moments, strict=True))}
    return {**state_dict, "state": state}
