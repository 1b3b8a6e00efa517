"""Loading optimizer state: ours, torch.optim's, Apex's, old ones; matched by name where both sides have names.

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

from torch import Tensor
from torch.optim import Optimizer

from adamas.formats.names import WIDE
from adamas.kernels.counter import new_steps
from adamas.options import BASE_LR, UNSAVED_KEYS
from adamas.state.conform import conform, decoded_moments, has_moments, packed_in, steps_taken
from adamas.state.format import check_parameter, storage_of
from adamas.state.layout import PACKED_PARTS, TENSORS, State
from adamas.torch.groups import Group, check, has_names, name_of, with_plain_values

# What wrappers put into the names of parameters: torch.compile, DistributedDataParallel, checkpoint_wrapper, FSDP.
WRAPPERS = frozenset(("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"))


class Entry(NamedTuple):
    """A parameter of an optimizer, or of a checkpoint.

    Args:
        group: the number of its group.
        name: its name.
        key: the parameter itself, or its id in the checkpoint.
    """

    group: int
    name: str
    key: Any


def load(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Replace an optimizer's state and hyperparameters by those of `state_dict`, with its hooks; see the module.

    Tensors that fit as they are and that nothing but `state_dict` refers to are taken over without a copy, as torch
    does with all; those of a living optimizer are copied.

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
    if all(has_names(group) for group in chain(groups, saved_groups)):
        params, saved_groups = _by_name(groups, saved_groups)
    else:
        params = _by_position(groups, saved_groups)
    merged = [_merged(group, saved) for group, saved in zip(groups, saved_groups, strict=True)]
    homes = {
        id(param): (i, name_of(group, place, f"parameter {place}"))
        for i, group in enumerate(merged)
        for place, param in enumerate(group["params"])
    }
    state: defaultdict[Any, State] = defaultdict(dict)
    for key in state_dict["state"]:
        saved: State = state_dict["state"][key]
        if key in params:
            free = sys.getrefcount(saved) <= _FREE  # a living optimizer has the same dict in its own state
            index, name = homes[id(params[key])]
            found = _with_step(saved, saved_groups[index])
            state[params[key]] = _restored(found, params[key], merged[index], name, free)
        elif not isinstance(key, int):
            state[key] = deepcopy(saved)  # not a parameter's: kept, as torch does
    _count_together([each for key, each in state.items() if isinstance(key, Tensor)])
    optimizer.__setstate__({"state": state, "param_groups": merged})
    for hook in optimizer._optimizer_load_state_dict_post_hooks.values():
        hook(optimizer)


def _merged(group: Group, saved: Group) -> Group:
    """The group with the saved hyperparameters; what construction decided stays."""
    taken = {key: deepcopy(value) for key, value in saved.items() if key not in (*UNSAVED_KEYS, "params", "step")}
    if saved.get("decay", "lr") == "lr":
        taken.pop(BASE_LR, None)  # it was nobody's base: the one given at construction stays
    merged = with_plain_values({**group, **taken, "params": group["params"]})
    if "param_names" in group:
        merged["param_names"] = group["param_names"]
    check(merged)
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

    Says which parameters start without state and which saved states are left aside.

    Raises:
        ValueError: no name agrees, or a group's parameters were in several saved groups with different values.
    """
    mine, theirs = _entries(groups), _entries(saved_groups)
    pairs, new, left = _matched(mine, theirs)
    if mine and theirs and not pairs:
        raise ValueError(
            f"no parameter name agrees with the checkpoint's: here {new[0].name!r} ..., there {left[0].name!r} .... "
            "Rename the saved param_names, or leave names out on one side to match by position"
        )
    sources: list[Group] = []
    for index, same_place in enumerate(saved_groups):
        homes = [saved_groups[saved.group] for entry, saved in pairs if entry.group == index]
        values = [{key: value for key, value in home.items() if key not in ("params", "param_names")} for home in homes]
        if any(each is not homes[0] and value != values[0] for each, value in zip(homes, values, strict=True)):
            raise ValueError(f"the parameters of group {index} were saved in several groups with different values")
        sources.append(homes[0] if homes else same_place)
    if new or left:
        warnings.warn(
            f"optimizer state was matched by name: {len(new)} parameters start without state "
            f"({', '.join(each.name for each in new[:5])}), {len(left)} saved states have no parameter "
            f"({', '.join(sorted(each.name for each in left)[:5])})",
            stacklevel=4,
        )
    return {saved.key: entry.key for entry, saved in pairs}, sources


def _entries(groups: list[Group]) -> list[Entry]:
    return [
        Entry(i, name, key)
        for i, group in enumerate(groups)
        for name, key in zip(group["param_names"], group["params"], strict=True)
    ]


def _bare(name: str) -> str:
    """A name without what wrappers put into it.

    Example:
        >>> _bare("module.blocks.0._orig_mod.weight")
        'blocks.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


# What two entries must agree in, from the surest to the least sure; the last two ignore wrappers.
_KEYS: tuple[Callable[[Entry], Hashable], ...] = (
    lambda entry: (entry.group, entry.name),
    lambda entry: entry.name,
    lambda entry: (entry.group, _bare(entry.name)),
    lambda entry: _bare(entry.name),
)


def _matched(mine: list[Entry], theirs: list[Entry]) -> tuple[list[tuple[Entry, Entry]], list[Entry], list[Entry]]:
    """Pairs of entries that belong together, and those of either side that belong to none.

    By group and name first, so that two networks whose parameters have equal names may have a group each; then by name
    alone; then without the parts that wrappers add. A name that stands several times on both sides, equally often, is
    matched in order.
    """
    pairs: list[tuple[Entry, Entry]] = []
    for key in _KEYS:
        saved: defaultdict[Hashable, list[Entry]] = defaultdict(list)
        for entry in theirs:
            saved[key(entry)].append(entry)
        counts = Counter(map(key, mine))
        rest: list[Entry] = []
        for entry in mine:
            candidates = saved.get(key(entry), [])
            if candidates and (len(candidates) == counts[key(entry)]):
                pairs.append((entry, candidates.pop(0)))
                counts[key(entry)] -= 1
            else:
                rest.append(entry)
        mine, theirs = rest, [entry for entries in saved.values() for entry in entries]
    return pairs, mine, theirs


def _with_step(saved: State, group: Group) -> State:
    """A saved state with the count that Apex and TransformerEngine keep in the group, where it has none of its own."""
    if saved and saved.get("step") is None and group.get("step") is not None and any(key in saved for key in WIDE):
        return {**saved, "step": group["step"]}
    return saved


def _restored(saved: State, param: Tensor, group: Group, name: str, free: bool) -> State:
    """A saved state in the optimizer's storage, device and layout."""
    if not saved:
        return {}
    needed = ("step",) if has_moments(saved) else ("step", *WIDE)
    lacking = [key for key in needed if saved.get(key) is None]
    if lacking:
        raise ValueError(
            f"the state of {name} lacks {', '.join(lacking)}: it has {', '.join(map(str, saved))}, "
            "which is not the state of an Adam or AdamW"
        )
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
        elif key in TENSORS:
            alone = free and sys.getrefcount(value) <= _FREE and not value._is_view() and not value.requires_grad
            there = value.detach().to(param.device)
            mine[key] = value if alone and value.device == param.device else there
            if not alone and there.device == value.device:
                mine[key] = there.clone()
        else:
            mine[key] = value.detach().clone()
    _keep_one_format(mine, param, name)
    # An average that was saved is kept, to be looked at at least; one that was not begins at the next step.
    extras = (*(("max_exp_avg_sq",) if group["amsgrad"] else ()), *(("ema",) if "ema" in mine else ()))
    return conform(mine, param, storage_of(param, group), extras, name)


def _keep_one_format(state: State, param: Tensor, name: str) -> None:
    """Of moments in two formats keep those that are not all zero, in place.

    torch's `set_optimizer_state_dict(full_state_dict=True)` adds a checkpoint's tensors to the zeros of a state that it
    has just made, which may be in another format.
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


def _count_together(states: list[State]) -> None:
    """Let the counts on the host be views of one tensor, so that a step counts them by one addition."""
    on_host = [
        each for each in states if not (isinstance(each.get("step"), Tensor) and each["step"].device.type != "cpu")
    ]
    on_host = [each for each in on_host if each]
    for state, step in zip(on_host, new_steps([steps_taken(state) for state in on_host]), strict=True):
        state["step"] = step


def decoded(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict with moments as torch.optim keeps them, whatever their format; without low bits of weights.

    Args:
        optimizer: whose state it is.
        state_dict: from `optimizer.state_dict()`; not changed.
    """
    groups = zip(optimizer.param_groups, state_dict["param_groups"], strict=True)
    homes = {key: param for group, saved in groups for key, param in zip(saved["params"], group["params"], strict=True)}
    state = dict(state_dict["state"])
    for key, saved in state.items():
        if key in homes and has_moments(saved):
            moments = decoded_moments(saved, homes[key])
            rest = {name: value for name, value in saved.items() if name not in (*PACKED_PARTS, "param_low")}
            state[key] = {**rest, **dict(zip(WIDE, moments, strict=True))}
    return {**state_dict, "state": state}


def _references() -> int:
    """What `sys.getrefcount` says of an object that is in one dict and in one local variable, as in the loops above."""
    whole: dict[str, Any] = {"": {}}
    for key in whole:
        value = whole[key]
        return sys.getrefcount(value)
    return 0


_FREE = _references()
