"""A state as it is found -> a complete one in the format and layout that a step needs."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from adamas import formats
from adamas.formats.names import PACKED, WIDE, Storage
from adamas.formats.random_bits import step_key
from adamas.state.layout import (
    PACKED_PARTS,
    TENSORS,
    Part,
    State,
    difference,
    is_aligned,
    is_lazy,
    moment_dtype,
    parts,
    zeros_like,
)


def steps_taken(state: State) -> int:
    """The number of steps in a state; 0 before the first. Reads the device if the counter lies on one.

    Raises:
        ValueError: what is there counts no steps.
    """
    step = state.get("step", 0)
    number = isinstance(step, Real) or (isinstance(step, Tensor) and step.numel() == 1)
    count = float(step) if number else math.nan
    if not 0 <= count < 2**53:
        shown = step.item() if isinstance(step, Tensor) and step.numel() == 1 else repr(step)
        raise ValueError(f"step={shown} must be a number of steps, >= 0 and finite")
    return int(count)


def packed_in(state: State) -> str | None:
    """The packed format that a state's moments are in; None where they are in no such one."""
    return next((name for name in PACKED if state.get(name) is not None), None)


def has_moments(state: State) -> bool:
    """Whether there are moments, in whatever form."""
    return packed_in(state) is not None or all(state.get(key) is not None for key in WIDE)


def stored_as(state: State, param: Tensor) -> Storage:
    """How the moments and the weight of a state are stored, whatever the parameter's group now asks for."""
    half = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    found = state["exp_avg"].dtype if "exp_avg" in state else torch.float32
    low = state.get("param_low") if param.dtype == torch.bfloat16 else None
    return Storage(
        packed_in(state) or half.get(found, "wide"), None if low is None else 24 if low.dtype == torch.int8 else 32
    )


def decoded_moments(state: State, param: Tensor) -> tuple[Tensor, Tensor]:
    """Both moments of a state that has some, float32 or wider: where they are wide, the tensors themselves."""
    storage = stored_as(state, param)
    if storage.moments == "wide":
        return state["exp_avg"], state["exp_avg_sq"]
    return formats.stored.moments(storage, state, param.detach())


def check_whole(state: State, name: str) -> None:
    """Raise ValueError where a part of a state is missing, so that the rest would go on from a zero.

    A state with none of our tensors is one that has not begun.
    """
    ours = [key for key in ("step", *TENSORS) if state.get(key) is not None]
    if not ours:
        return
    packed = packed_in(state)
    needed = ("step", *(WIDE if packed is None else formats.names.PARTS[packed]))
    lacking = [key for key in needed if state.get(key) is None]
    if lacking:
        raise ValueError(
            f"the state of {name} lacks {', '.join(lacking)}: it has {', '.join(map(str, state))}, "
            "which is not the whole state of an Adam or AdamW. Put back what is missing, or clear the state to begin "
            "from the first step"
        )


def is_complete(state: State, param: Tensor, storage: Storage, extras: tuple[str, ...]) -> bool:
    """Whether a step finds all it needs in a state, perhaps laid out anew."""
    in_rows = parts(storage, param)
    alike = (*(WIDE if storage.moments == "wide" else ()), *extras)
    return (
        "step" in state
        and all(
            key in state and (state[key].dtype, tuple(state[key].shape)) == part and state[key].device == param.device
            for key, part in in_rows.items()
        )
        and all(
            key in state
            and state[key].shape == param.shape
            and state[key].device == param.device
            and state[key].is_complex() == param.is_complex()
            for key in alike
        )
    )


def conform(state: State, param: Tensor, storage: Storage, extras: tuple[str, ...], name: str) -> State:
    """A complete state for `param` from what `state` has: the same tensors where they fit, new ones where not.

    Wide moments, maxima and averages get the parameter's layout, so that element k of one lies where element k of the
    other does. Moments in another format than the storage's are decoded, and encoded anew.

    Args:
        state: a state; empty for a new parameter. Not changed.
        param: the parameter.
        storage: how moments and weight are to be stored.
        extras: what a step needs beside: "max_exp_avg_sq", "ema". Where one is missing, a running maximum starts at the
            second moment and an average at the weight. An average that is not needed is left out.
        name: how to call the parameter in an error.

    Raises:
        ValueError: a moment or the step is missing, or a tensor has another shape than the parameter or lies on another
            device.
    """
    check_whole(state, name)
    whole = dict(state)
    _conform_moments(whole, param, storage, name)
    _conform_low_bits(whole, param, storage, name)
    for key in ("max_exp_avg_sq", "ema"):
        tensor = whole.get(key)
        if key == "ema" and key not in extras:
            whole.pop(key, None)  # what is no longer kept up would be taken for the weights' average later
            continue
        if tensor is None and key not in extras:
            continue
        if tensor is None and key == "ema":
            tensor = _weight(storage, whole, param)
        elif tensor is None:
            tensor = whole["exp_avg_sq"].clone(memory_format=torch.preserve_format)
        whole[key] = _fitting(tensor, param, f"{key} of {name}")
    return whole


def _conform_moments(whole: State, param: Tensor, storage: Storage, name: str) -> None:
    """Bring the moments of a state into the storage's format, in place."""
    packed = packed_in(whole)
    if packed is not None:
        for key in WIDE:
            whole.pop(key, None)  # of another format
        _check_parts(whole, param, Storage(packed), name)
    if packed is not None and packed != storage.moments:
        moments = formats.stored.moments(Storage(packed), whole, param)
        for key in PACKED_PARTS:
            whole.pop(key, None)
        whole |= dict(zip(WIDE, moments, strict=True))
    if storage.moments == "wide":
        for key in WIDE:
            whole[key] = _fitting(
                whole[key] if whole.get(key) is not None else zeros_like(param), param, f"{key} of {name}"
            )
        return
    in_rows = {key: part for key, part in parts(storage, param).items() if key != "param_low"}
    if all(key in whole and whole[key].dtype == dtype for key, (dtype, _) in in_rows.items()):
        _check_parts(whole, param, storage, name)
        whole |= {key: _in_rows(whole[key]) for key in in_rows}
        return
    _encode(whole, param, storage, in_rows, name)


def _encode(whole: State, param: Tensor, storage: Storage, in_rows: dict[str, Part], name: str) -> None:
    """Put moments of fewer bits in the place of wide ones, or zeros where there are none."""
    moments = [whole.pop(key, None) for key in WIDE]
    whole |= {key: torch.zeros(shape, dtype=dtype, device=param.device) for key, (dtype, shape) in in_rows.items()}
    if moments[0] is None or moments[1] is None:
        return
    wide = [_fitting(x, param, f"{key} of {name}") for key, x in zip(WIDE, moments, strict=True)]
    stored = formats.stored
    random = stored.random_of(step_key(0, steps_taken(whole)), param, stored.Place.of(param))
    for part, value in stored.encoded_moments(storage, wide[0], wide[1], random).items():
        stored.put(whole[part], value, None)


def _conform_low_bits(whole: State, param: Tensor, storage: Storage, name: str) -> None:
    """Bring the low bits of a master weight to the storage's width, in place, or leave them out."""
    low, part = whole.pop("param_low", None), parts(storage, param).get("param_low")
    if part is None:
        return
    low = torch.zeros(part[1], dtype=part[0], device=param.device) if low is None else low
    if low.dtype not in (torch.int8, torch.uint8):
        raise ValueError(f"param_low of {name} is {low.dtype}: it must be int8 (24 bits) or uint8 (32)")
    low = formats.stored.convert_low(low, storage.master_bits or 0)
    whole["param_low"] = low
    _check_parts(whole, param, Storage("wide", storage.master_bits), name)
    whole["param_low"] = _in_rows(low)


def _check_parts(state: State, param: Tensor, storage: Storage, name: str) -> None:
    """Raise ValueError unless the tensors that are stored in rows have the right dtypes, shapes and device."""
    for key, part in parts(storage, param).items():
        if state.get(key) is None:
            raise ValueError(f"the state of {name} has moments in {storage.moments}, but lacks {key}")
        why = difference(state[key].contiguous(), param, part)
        if why is not None and "laid out" not in why:
            raise ValueError(f"{key} of {name} {why}")


def _weight(storage: Storage, state: State, param: Tensor) -> Tensor:
    """The weight as wide as moments are, laid out as the parameter."""
    if not storage.master_bits:
        return zeros_like(param).copy_(param.detach())
    return formats.stored.write_weight(zeros_like(param), storage, state, param)


def _in_rows(tensor: Tensor) -> Tensor:
    """Contiguous, and at an even address."""
    if is_lazy(tensor) or not is_aligned(tensor):
        return tensor.clone(memory_format=torch.contiguous_format)
    return tensor.contiguous()


def _fitting(moment: Tensor, param: Tensor, what: str) -> Tensor:
    """The moment (or average) itself if it fits the parameter, else a copy that does."""
    if moment.shape != param.shape:
        raise ValueError(f"{what} has shape {tuple(moment.shape)}, the parameter {tuple(param.shape)}: they must agree")
    if moment.device != param.device:
        raise ValueError(
            f"{what} is on {moment.device}, the parameter on {param.device}: move the model before making its "
            "optimizer, or load the optimizer's state again after moving it"
        )
    if moment.is_complex() != param.is_complex():
        raise ValueError(f"{what} is {moment.dtype}, which a {param.dtype} parameter cannot use")
    right = moment.dtype == moment_dtype(param) and moment.layout is torch.strided and not is_lazy(moment)
    if right and moment.stride() == param.stride():
        return moment
    fitting = torch.empty_like(
        param, dtype=moment_dtype(param), memory_format=torch.preserve_format, requires_grad=False
    )
    if right and moment.stride() == fitting.stride():
        return moment  # of a parameter with gaps in memory
    return fitting.copy_(moment.detach())
