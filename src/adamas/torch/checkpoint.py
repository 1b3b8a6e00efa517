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
from adamas.torch.state import MOMENTS, State, conform

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
    merged = [_merged(group, saved) for group, saved in zip(groups, saved_groups, strict=True)]
    params = _params_by_saved_id(groups, saved_groups)
    owners = {id(param): group for group in merged for param in group["params"]}
    state: defaultdict[Any, State] = defaultdict(dict)
    for key, saved in state_dict["state"].items():
        for param in params.get(key, []):
            name = _name(owners[id(param)], param)
            state[param] = _restored(saved, param, owners[id(param)]["amsgrad"], name)
        if key not in params and not isinstance(key, int):
            state[key] = deepcopy(saved)  # not a parameter's: kept, as torch does
    optimizer.__setstate__({"state": state, "param_groups": merged})
    for hook in optimizer._optimizer_load_state_dict_post_hooks.values():
        hook(optimizer)


def _merged(group: Group, saved: Group) -> Group:
    """The group with the saved hyperparameters; what construction decided stays."""
    merged = {**group, **{key: deepcopy(value) for key, value in saved.items() if key not in CONSTRUCTED_KEYS}}
    merged["params"] = group["params"]
    if "param_names" in group:
        merged["param_names"] = group["param_names"]
    check(merged)
    return merged


def _name(group: Group, param: Tensor) -> str:
    position = next(i for i, other in enumerate(group["params"]) if other is param)
    return group["param_names"][position] if "param_names" in group else f"parameter {position}"


def _params_by_saved_id(groups: list[Group], saved_groups: list[Group]) -> dict[Any, list[Tensor]]:
    """Which parameter each saved state belongs to: by name where both sides have names, else by position."""
    if all("param_names" in group for group in chain(groups, saved_groups)):
        return _by_name(groups, saved_groups)
    for i, (group, saved) in enumerate(zip(groups, saved_groups, strict=True)):
        if len(group["params"]) != len(saved["params"]):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                f"group {i} has {len(saved['params'])} parameters saved and {len(group['params'])} in the optimizer. "
                "Give both names (named_parameters()) to match by name"
            )
    ids = chain.from_iterable(saved["params"] for saved in saved_groups)
    params = chain.from_iterable(group["params"] for group in groups)
    return {key: [param] for key, param in zip(ids, params, strict=True)}


def _by_name(groups: list[Group], saved_groups: list[Group]) -> dict[Any, list[Tensor]]:
    """Match by name; say which parameters start afresh and which saved states are left aside."""
    saved_ids = {
        name: key
        for saved in saved_groups
        for name, key in zip(saved["param_names"], saved["params"], strict=True)
    }  # fmt: skip
    found: dict[Any, list[Tensor]] = {}
    new: list[str] = []
    for group in groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            if name in saved_ids:
                found.setdefault(saved_ids.pop(name), []).append(param)
            else:
                new.append(name)
    if new or saved_ids:
        warnings.warn(
            f"optimizer state was matched by name: {len(new)} parameters start without state ({', '.join(new[:5])}), "
            f"{len(saved_ids)} saved states have no parameter ({', '.join(list(saved_ids)[:5])})",
            stacklevel=4,
        )
    return found


def _restored(saved: State, param: Tensor, amsgrad: bool, name: str) -> State:
    """A copy of a saved state in the optimizer's dtype, device and layout; never narrower than float32."""
    if not saved:
        return {}
    copied = {
        key: value.detach().to(param.device, copy=True)
        if key in MOMENTS and isinstance(value, Tensor)
        else deepcopy(value)
        for key, value in saved.items()
    }
    return conform(copied, param, amsgrad, name)
