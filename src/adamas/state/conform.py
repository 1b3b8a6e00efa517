"""Complete a state, and bring it into the format and layout that a step needs."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from adamas import formats
from adamas.formats.names import PACKED, PARTS, WIDE, Storage
from adamas.formats.random_bits import Place, step_key
from adamas.state.layout import PACKED_PARTS, TENSORS, State, fitting, in_rows, parts, zeros_like
from adamas.state.shards import is_sharded, local, on_shards, place_of, sharded


def steps_taken(state: State) -> int:
    """The number of steps in a state; 0 before the first. Waits for the device where the counter lies on one.

    Raises:
        ValueError: "step" is no number of steps.
    """
    step = state.get("step", 0)
    number = isinstance(step, Real) or (isinstance(step, Tensor) and step.numel() == 1)
    count = float(step) if number else math.nan
    if not 0 <= count < 2**53:
        shown = step.item() if isinstance(step, Tensor) and step.numel() == 1 else repr(step)
        raise ValueError(f"step={shown} must be a number of steps, >= 0 and finite")
    return int(count)


def packed_in(state: State) -> str | None:
    """The name of the packed format of a state's moments; None where they are not packed."""
    return next((name for name in PACKED if state.get(name) is not None), None)


def has_moments(state: State) -> bool:
    """Whether a state has moments, in any format."""
    return packed_in(state) is not None or all(state.get(key) is not None for key in WIDE)


def stored_as(state: State, param: Tensor) -> Storage:
    """The present storage of a state's moments and low bits, which may differ from the one that the group asks for."""
    half = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    found = state["exp_avg"].dtype if "exp_avg" in state else torch.float32
    low = state.get("param_low") if param.dtype == torch.bfloat16 else None
    bits = None if low is None else 24 if low.dtype == torch.int8 else 32
    return Storage(packed_in(state) or half.get(found, "wide"), bits)


def decoded_moments(state: State, param: Tensor) -> tuple[Tensor, Tensor]:
    """Both moments, float32 or wider: the tensors of the state where these are wide, else new ones."""
    storage = stored_as(state, param)
    if storage.moments == "wide":
        return state["exp_avg"], state["exp_avg_sq"]
    if is_sharded(param):
        return on_shards(decoded_moments, state, param)
    return formats.stored.moments(storage, state, param.detach())


def master(state: State, param: Tensor) -> Tensor:
    """A copy of a weight, float32 or wider, with the low bits of a master weight."""
    if is_sharded(param):
        return on_shards(master, state, param)
    return formats.stored.weight(stored_as(state, param), state, param)


def check_whole(state: State, name: str, begun: bool = False) -> None:
    """Raise ValueError where a state lacks a moment or the step, which would otherwise restart at zero.

    A state without any tensor of ours passes, unless it is known to have begun: its parameter has not been stepped.
    """
    if not begun and all(state.get(key) is None for key in ("step", *TENSORS)):
        return
    lacking = [key for key in ("step", *PARTS[packed_in(state) or "wide"]) if state.get(key) is None]
    if lacking:
        raise ValueError(
            f"the state of {name} lacks {', '.join(lacking)}: it has {', '.join(map(str, state))}, "
            "which is not the state of an Adam or AdamW. Put the missing tensors back, or clear the state to begin "
            "from the first step"
        )


def is_complete(state: State, param: Tensor, storage: Storage, extras: tuple[str, ...]) -> bool:
    """Whether a state has all tensors that a step needs; wide ones may still need another dtype or layout."""
    wide = dict.fromkeys((*(WIDE if storage.moments == "wide" else ()), *extras), (param.dtype, tuple(param.shape)))
    return "step" in state and all(
        key in state
        and tuple(state[key].shape) == shape
        and state[key].device == param.device
        and (state[key].is_complex() == dtype.is_complex if key in wide else state[key].dtype == dtype)
        for key, (dtype, shape) in (*wide.items(), *parts(storage, param).items())
    )


def conform(state: State, param: Tensor, storage: Storage, extras: tuple[str, ...], name: str) -> State:
    """A complete state for `param`, made of the tensors in `state` that fit and of new ones for the rest.

    Wide moments, running maxima and averages get the parameter's layout, so that element k of each lies where element k
    of the parameter does. Moments in another format than the storage's are decoded and encoded again.

    Args:
        state: a state, which is not changed; empty for a new parameter.
        param: the parameter.
        storage: how moments and weight are to be stored.
        extras: further tensors that a step needs: "max_exp_avg_sq", "ema". A missing running maximum starts at the
            second moment, a missing average at the weight. An average that is not needed is dropped.
        name: the parameter's name, for errors.

    Raises:
        ValueError: a moment or the step is missing, or a tensor does not have the parameter's shape or device.
    """
    check_whole(state, name)
    place = place_of(param)
    if is_sharded(param):
        shard, packed = local(param), packed_in(state)
        if packed is not None and param.ndim == 1:  # a single row, through whose blocks the shards would cut
            moments = formats.stored.moments(Storage(packed), in_rows(state, param, Storage(packed), name), param)
            state = {key: value for key, value in state.items() if key not in PACKED_PARTS}
            state |= dict(zip(WIDE, moments, strict=True))
        return sharded(state, param, storage, lambda own: _conformed(own, shard, storage, extras, name, place))
    return _conformed(state, param, storage, extras, name, place)


def _conformed(
    state: State, param: Tensor, storage: Storage, extras: tuple[str, ...], name: str, place: Place
) -> State:
    """A complete state for a whole parameter, or for a shard at the given place of its parameter."""
    whole = dict(state)
    _conform_moments(whole, param, storage, name, place)
    _conform_low_bits(whole, param, storage, name)
    if "max_exp_avg_sq" in extras and whole.get("max_exp_avg_sq") is None:
        whole["max_exp_avg_sq"] = whole["exp_avg_sq"].clone(memory_format=torch.preserve_format)
    if "ema" not in extras:
        whole.pop("ema", None)  # no step updates it: a later step would continue from old weights
    elif whole.get("ema") is None:
        ema = whole["ema"] = zeros_like(param)
        if storage.master_bits:
            formats.stored.write_weight(ema, storage, whole, param)
        else:
            ema.copy_(param.detach())
    for key in ("max_exp_avg_sq", "ema"):
        if whole.get(key) is not None:
            whole[key] = fitting(whole[key], param, f"{key} of {name}")
    return whole


def _conform_moments(whole: State, param: Tensor, storage: Storage, name: str, place: Place) -> None:
    """Bring the moments of a state into the storage's format, in place."""
    packed, wanted = packed_in(whole), Storage(storage.moments)
    if packed is not None:
        for key in WIDE:
            whole.pop(key, None)  # left over from another format
        whole |= in_rows(whole, param, Storage(packed), name)
        if packed == storage.moments:
            return
        moments = formats.stored.moments(Storage(packed), whole, param)
        for key in PACKED_PARTS:
            whole.pop(key, None)
        whole |= dict(zip(WIDE, moments, strict=True))
    found = parts(wanted, param)
    if found and all(getattr(whole.get(key), "dtype", None) == dtype for key, (dtype, _) in found.items()):
        whole |= in_rows(whole, param, wanted, name)
        return
    begun = all(whole.get(key) is not None for key in WIDE)
    wide = [fitting(whole[key], param, f"{key} of {name}") for key in WIDE] if begun else []
    if not found:
        whole |= dict(zip(WIDE, wide or (zeros_like(param), zeros_like(param)), strict=True))
        return
    for key in WIDE:
        whole.pop(key, None)
    whole |= {key: torch.zeros(shape, dtype=dtype, device=param.device) for key, (dtype, shape) in found.items()}
    if begun and param.numel():
        stored = formats.stored
        random = stored.random_of(step_key(0, steps_taken(whole)), param, place)
        for part, value in stored.encoded_moments(storage, wide[0], wide[1], random).items():
            stored.put(whole[part], value, None)


def _conform_low_bits(whole: State, param: Tensor, storage: Storage, name: str) -> None:
    """Bring the low bits of a master weight to the storage's width, in place, or drop them."""
    low = whole.pop("param_low", None)
    if not storage.master_bits:
        return
    only_low = Storage("wide", storage.master_bits)
    dtype, shape = parts(only_low, param)["param_low"]
    low = torch.zeros(shape, dtype=dtype, device=param.device) if low is None else low
    if low.dtype not in (torch.int8, torch.uint8):
        raise ValueError(f"param_low of {name} is {low.dtype}: it must be int8 (24 bits) or uint8 (32)")
    whole["param_low"] = formats.stored.convert_low(low, storage.master_bits)
    whole |= in_rows(whole, param, only_low, name)
