"""Load optimizer state from Adamas, torch.optim, Apex or older versions; by name where both sides have names.

torch's own `load_state_dict` casts moments to the parameter's dtype, matches by position although names exist, and lets
a checkpoint turn Adam into AdamW. This one does not, and it changes nothing unless everything fits.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from copy import deepcopy
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from adamas.formats.names import WIDE
from adamas.kernels.counter import new_steps
from adamas.options import BASE_LR, UNSAVED_KEYS
from adamas.state.conform import check_whole, conform, decoded_moments, has_moments, packed_in, steps_taken
from adamas.state.format import check_parameter, storage_of
from adamas.state.layout import PACKED_PARTS, TENSORS, State
from adamas.state.shards import is_flat_shard
from adamas.torch.groups import Group, check, has_names, name_of, with_plain_values

CPU = torch.device("cpu")
# Parts that torch.compile, DistributedDataParallel, checkpoint_wrapper and FSDP add to the names of parameters.
WRAPPERS = frozenset(("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"))


class Entry(NamedTuple):
    """A parameter of an optimizer, or of a checkpoint."""

    group: int  # the number of the parameter's group
    name: str  # the parameter's name; "parameter" and its place in a group without names
    key: Any  # the parameter itself, or its id in the checkpoint


Pairs = list[tuple[Entry, Entry]]  # a parameter of the optimizer, and the same one in the checkpoint


def load(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Replace an optimizer's state and hyperparameters by those of `state_dict`, and run the optimizer's hooks.

    A tensor is taken over without a copy where it fits and only `state_dict` refers to it, as torch does with all
    tensors. Tensors of a living optimizer are copied.

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
            f"{len(saved_groups)}, the optimizer {len(groups)}. Make the same groups before loading"
        )
    named = all(has_names(group) for group in chain(groups, saved_groups))
    pairs, sources = (_by_name if named else _by_position)(groups, saved_groups)
    merged = [_merged(group, source) for group, source in zip(groups, sources, strict=True)]
    homes = {saved.key: entry for entry, saved in pairs}
    state: defaultdict[Any, State] = defaultdict(dict)
    for key in state_dict["state"]:
        saved: State = state_dict["state"][key]
        if any(_is_missing(value) for value in saved.values()):
            saved = {name: value for name, value in saved.items() if not _is_missing(value)}
        if key in homes:
            free = sys.getrefcount(saved) <= _FREE  # a living optimizer has the same dict in its own state
            entry = homes[key]
            if saved and saved.get("step") is None and "step" in sources[entry.group]:  # Apex, TransformerEngine
                saved = {**saved, "step": sources[entry.group]["step"]}
            state[entry.key] = _restored(saved, entry, merged[entry.group], free)
        elif not isinstance(key, int):
            state[key] = deepcopy(saved)  # state of no parameter, which torch keeps too
    # The counts on the host become views of one tensor, so that one addition counts a step of all.
    own = [each for key, each in state.items() if each and isinstance(key, Tensor)]
    on_host = [each for each in own if getattr(each["step"], "device", CPU) == CPU]
    for each, step in zip(on_host, new_steps([steps_taken(each) for each in on_host]), strict=True):
        each["step"] = step
    optimizer.__setstate__({"state": state, "param_groups": merged})
    for hook in optimizer._optimizer_load_state_dict_post_hooks.values():
        hook(optimizer)


def _merged(group: Group, saved: Group) -> Group:
    """The group with the saved hyperparameters, except for those that construction decides."""
    taken = {key: deepcopy(value) for key, value in saved.items() if key not in (*UNSAVED_KEYS, "params", "step")}
    if saved.get("decay", "lr") == "lr":
        taken.pop(BASE_LR, None)  # decay="lr" does not use it: the rate given at construction stays
    merged = with_plain_values({**group, **taken, "params": group["params"]})
    if "param_names" in group:
        merged["param_names"] = group["param_names"]
    check(merged)
    return merged


def _entries(groups: list[Group]) -> list[Entry]:
    """The parameters of all groups, in order."""
    return [
        Entry(i, name_of(group, place, f"parameter {place}"), key)
        for i, group in enumerate(groups)
        for place, key in enumerate(group["params"])
    ]


def _by_position(groups: list[Group], saved_groups: list[Group]) -> tuple[Pairs, list[Group]]:
    """Pairs of parameters at the same place, and the saved groups."""
    for i, (group, saved) in enumerate(zip(groups, saved_groups, strict=True)):
        if len(group["params"]) != len(saved["params"]):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                f"group {i} has {len(saved['params'])} parameters saved and {len(group['params'])} in the optimizer. "
                "Give both names (named_parameters()) to match by name"
            )
    return list(zip(_entries(groups), _entries(saved_groups), strict=True)), saved_groups


def _by_name(groups: list[Group], saved_groups: list[Group]) -> tuple[Pairs, list[Group]]:
    """Pairs of parameters with the same name, and for each group the saved group that held its parameters.

    Warns of parameters that start without state, and of saved states that no parameter takes.

    Raises:
        ValueError: no name agrees, or a group's parameters were in several saved groups with different values.
    """
    mine, saved = _entries(groups), _entries(saved_groups)
    pairs, new, left = _matched(mine, saved)
    if mine and saved and not pairs:
        raise ValueError(
            f"no parameter name agrees with the checkpoint's: here {new[0].name!r} ..., there {left[0].name!r} .... "
            "Rename the saved param_names, or leave names out on one side to match by position"
        )
    sources: list[Group] = []
    for index, same_place in enumerate(saved_groups):
        homes = [saved_groups[other.group] for entry, other in pairs if entry.group == index]
        values = [{key: value for key, value in home.items() if key not in ("params", "param_names")} for home in homes]
        if any(each is not homes[0] and value != values[0] for each, value in zip(homes, values, strict=True)):
            raise ValueError(
                f"the parameters of group {index} were saved in several groups with different values: make the groups "
                "as they were saved"
            )
        sources.append(homes[0] if homes else same_place)
    if new or left:
        warnings.warn(
            f"optimizer state was matched by name: {len(new)} parameters start without state "
            f"({', '.join(each.name for each in new[:5])}), {len(left)} saved states have no parameter "
            f"({', '.join(sorted(each.name for each in left)[:5])})",
            stacklevel=4,
        )
    return pairs, sources


def _bare(name: str) -> str:
    """A name without the parts that wrappers add.

    Example:
        >>> _bare("module.blocks.0._orig_mod.weight")
        'blocks.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


# Two entries belong together where one of these agrees. The surest comes first; the last two ignore wrappers.
_KEYS: tuple[Callable[[Entry], Hashable], ...] = (
    lambda entry: (entry.group, entry.name),
    lambda entry: entry.name,
    lambda entry: (entry.group, _bare(entry.name)),
    lambda entry: _bare(entry.name),
)


def _matched(mine: list[Entry], saved: list[Entry]) -> tuple[Pairs, list[Entry], list[Entry]]:
    """Pairs of entries that belong together, and the entries of either side that are in no pair.

    Group and name are compared first, because two networks with equal parameter names may have one group each. Then
    names alone are compared, and then names without the parts that wrappers add. A name that occurs several times,
    equally often on both sides, is matched in order.
    """
    pairs: Pairs = []
    for key in _KEYS:
        found: defaultdict[Hashable, list[Entry]] = defaultdict(list)
        for entry in saved:
            found[key(entry)].append(entry)
        counts = Counter(map(key, mine))
        rest: list[Entry] = []
        for entry in mine:
            candidates = found.get(key(entry), [])
            if candidates and (len(candidates) == counts[key(entry)]):
                pairs.append((entry, candidates.pop(0)))
                counts[key(entry)] -= 1
            else:
                rest.append(entry)
        mine, saved = rest, [entry for entries in found.values() for entry in entries]
    return pairs, mine, saved


def _restored(saved: State, entry: Entry, group: Group, free: bool) -> State:
    """A saved state in the storage, device and layout of the parameter; if free, its tensors may be taken over."""
    if not saved:
        return {}
    param, name = entry.key, entry.name
    check_whole(saved, name, begun=True)
    check_parameter(name, param, group)
    try:
        steps_taken(saved)
    except ValueError as error:
        raise ValueError(f"the state of {name} has {error}") from None
    mine: State = {}
    for key in saved:
        value = saved[key]
        if not isinstance(value, Tensor):
            mine[key] = deepcopy(value)
        elif key not in TENSORS:
            mine[key] = value.detach().clone()
        elif free and sys.getrefcount(value) <= _FREE and not value._is_view() and not value.requires_grad:
            mine[key] = value.to(param.device)
        else:
            mine[key] = value.detach().to(param.device, copy=True)
    _keep_one_format(mine, param, name)
    # A saved average is kept, so that it can be used. Without a saved one, an average begins at the next step.
    extras = (*(("max_exp_avg_sq",) if group["amsgrad"] else ()), *(("ema",) if "ema" in mine else ()))
    return conform(mine, param, storage_of(param, group), extras, name)


def _is_missing(value: Any) -> bool:
    """Whether a value is an empty dict, which `set_optimizer_state_dict` puts for a tensor that was not saved."""
    return isinstance(value, dict) and not value


def _keep_one_format(state: State, param: Tensor, name: str) -> None:
    """Where a state has moments in two formats, keep those that are not all zero, in place.

    torch's `set_optimizer_state_dict(full_state_dict=True)` first makes a state of zeros, and then adds the tensors of
    the checkpoint, which may be in another format.
    """
    packed = packed_in(state)
    if packed is None or not all(state.get(key) is not None for key in WIDE):
        return
    wide = {key: state.pop(key) for key in WIDE}
    if not any(bool(tensor.count_nonzero()) for tensor in decoded_moments(state, param)):
        for key in PACKED_PARTS:
            state.pop(key, None)
        state.update(wide)
    elif any(bool(tensor.count_nonzero()) for tensor in wide.values()):
        raise ValueError(f"the state of {name} has moments in float32 and in {packed}, which differ: leave one out")


def decoded(optimizer: Optimizer, state_dict: dict[str, Any], flat_only: bool) -> dict[str, Any]:
    """A copy of an optimizer's state dict with moments as torch.optim keeps them, and without low bits of weights.

    With `flat_only`, the states of all other parameters than FSDP1's flat shards stay as they are stored.
    """
    pairs = zip(_entries(state_dict["param_groups"]), _entries(optimizer.param_groups), strict=True)
    homes = {saved.key: entry.key for saved, entry in pairs}
    state = dict(state_dict["state"])
    for key, saved in state.items():
        if key in homes and has_moments(saved) and (is_flat_shard(homes[key]) or not flat_only):
            moments = decoded_moments(saved, homes[key])
            rest = {name: value for name, value in saved.items() if name not in (*PACKED_PARTS, "param_low")}
            state[key] = {**rest, **dict(zip(WIDE, moments, strict=True))}
    return {**state_dict, "state": state}


def _references() -> int:
    """The result of `sys.getrefcount` for an object in one dict and one local variable, as in the loops above."""
    whole: dict[str, Any] = {"": {}}
    for key in whole:
        value = whole[key]
        return sys.getrefcount(value)
    return 0


_FREE = _references()
