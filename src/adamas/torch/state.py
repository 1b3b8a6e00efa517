"""What is kept of a parameter: `step`, `exp_avg`, `exp_avg_sq` and, with amsgrad, `max_exp_avg_sq`, as in torch.

With ema_decay also `ema`, the moving average of the weights; with master weights `param_low`; and with a state_dtype of
fewer bits the parts that `adamas.formats.moments` names in place of both moments.

Unlike torch's the moments are float32 or wider unless asked otherwise, whatever the parameter's dtype: in bfloat16
rounded to nearest a second moment with beta2 = 0.999 never moves again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamas.formats.names import GRIDS, PACKED, WIDE
from adamas.formats.random_bits import step_key
from adamas.kernels.bucket import Storage, moment_dtype

if TYPE_CHECKING:
    from adamas.kernels.stored import Part

State = dict[str, Any]
PARTS = (*PACKED, *GRIDS)  # the words are told by their name
TENSORS = (*WIDE, *PARTS, "param_low", "max_exp_avg_sq", "ema")


def steps_taken(state: State) -> int:
    """The number of steps in a state; 0 before the first. Reads the device if the counter lies on one."""
    return int(state.get("step", 0))


def has_moments(state: State) -> bool:
    """Whether there are moments, in whatever form."""
    return any(state.get(name) is not None for name in PACKED) or all(state.get(key) is not None for key in WIDE)


def stored_as(state: State, param: Tensor) -> Storage:
    """How the moments and the weight of a state are stored, whatever the parameter's group now asks for."""
    packed = next((key for key in PACKED if key in state), None)
    half = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    moments = packed or half.get(state["exp_avg"].dtype if "exp_avg" in state else torch.float32, "wide")
    low = state.get("param_low") if param.dtype == torch.bfloat16 else None
    return Storage(moments, None if low is None else 24 if low.dtype == torch.int8 else 32)


def is_complete(state: State, param: Tensor, storage: Storage, extras: tuple[str, ...]) -> bool:
    """Whether a step finds all it needs in a state, perhaps laid out anew."""
    parts = _parts(storage, param)
    alike = (*(WIDE if storage.moments == "wide" else ()), *extras)
    return (
        "step" in state
        and all(key in state and _fits(state[key], part, param) for key, part in parts.items())
        and all(
            key in state
            and state[key].shape == param.shape
            and state[key].device == param.device
            and state[key].is_complex() == param.is_complex()
            for key in alike
        )
    )


def conform(state: State, param: Tensor, storage: Storage, extras: tuple[str, ...], name: str) -> State:
    """A complete state for `param` from what `state` has: same tensors where they fit, new ones where not.

    Wide moments, maxima and averages get the parameter's layout, so that element k of one lies where element k of the
    other does. Moments in another form than the storage's are decoded, and encoded anew.

    Args:
        state: a state or a part of one; empty for a new parameter. Not changed.
        param: the parameter.
        storage: how moments and weight are to be stored.
        extras: what a step needs beside: "max_exp_avg_sq", "ema". Where something is missing, a moment starts at zero,
            a running maximum at the second moment and an average at the weight. An average that is not needed is left
            out.
        name: how to call the parameter in an error.

    Raises:
        ValueError: a tensor has another shape than the parameter or lies on another device.
    """
    whole = dict(state)
    _conform_moments(whole, param, storage, name)
    low, part = whole.pop("param_low", None), _parts(storage, param).get("param_low")
    if part is not None:
        low = torch.zeros(part[1], dtype=part[0], device=param.device) if low is None else low
        if low.dtype not in (torch.int8, torch.uint8):
            raise ValueError(f"param_low of {name} is {low.dtype}: it must be int8 (24 bits) or uint8 (32)")
        from adamas.kernels import stored

        low = stored.convert_low(low, storage.master_bits or 0)
        _check_part(low, part, param, f"param_low of {name}")
        whole["param_low"] = _in_rows(low)
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
    """Bring the moments of a state into the storage's form, in place."""
    packed = next((key for key in PACKED if whole.get(key) is not None), None)
    if packed:
        for key in WIDE:
            whole.pop(key, None)  # of another form
    if packed is not None and packed != storage.moments:
        form = Storage(packed)
        from adamas.kernels import stored

        for key, part in stored.parts(form, param).items():
            if key not in whole:
                raise ValueError(f"the state of {name} has {packed}, but lacks {key}")
            _check_part(whole[key], part, param, f"{key} of {name}")
        whole |= dict(zip(WIDE, stored.moments(form, whole, param), strict=True))
        for key in PARTS:
            whole.pop(key, None)
    if storage.moments == "wide":
        for key in WIDE:
            whole[key] = _fitting(whole[key] if whole.get(key) is not None else _like(param), param, f"{key} of {name}")
        return
    from adamas.kernels import stored

    parts = {key: part for key, part in stored.parts(storage, param).items() if key != "param_low"}
    if packed == storage.moments or all(key in whole and whole[key].dtype == parts[key][0] for key in parts):
        for key, part in parts.items():
            if key not in whole:
                raise ValueError(f"the state of {name} has {packed}, but lacks {key}")
            _check_part(whole[key], part, param, f"{key} of {name}")
            whole[key] = _in_rows(whole[key])
        return
    moments = [whole.pop(key, None) for key in WIDE]
    whole |= {key: torch.zeros(shape, dtype=dtype, device=param.device) for key, (dtype, shape) in parts.items()}
    if moments[0] is not None and moments[1] is not None:
        wide = [_fitting(x, param, f"{key} of {name}") for key, x in zip(WIDE, moments, strict=True)]
        random = stored.random_of(step_key(0, steps_taken(whole)), param, stored.Place.of(param))
        for part, value in stored.encoded_moments(storage, wide[0], wide[1], random).items():
            stored.put(whole[part], value, None)


def _parts(storage: Storage, param: Tensor) -> dict[str, Part]:
    """The tensors stored in rows; none where moments and weight are plain."""
    if storage.moments == "wide" and not storage.master_bits:
        return {}
    from adamas.kernels import stored

    return stored.parts(storage, param)


def _weight(storage: Storage, state: State, param: Tensor) -> Tensor:
    """The weight as wide as moments are, laid out as the parameter."""
    if not storage.master_bits:
        return _like(param).copy_(param.detach())
    from adamas.kernels import stored

    return stored.write_weight(_like(param), storage, state, param)


def _fits(tensor: Tensor, part: Part, param: Tensor) -> bool:
    return (tensor.dtype, tuple(tensor.shape)) == part and tensor.device == param.device


def _check_part(tensor: Tensor, part: Part, param: Tensor, what: str) -> None:
    dtype, shape = part
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(
            f"{what} is {tensor.dtype} of shape {tuple(tensor.shape)}; a parameter of shape {tuple(param.shape)} has "
            f"{dtype} of shape {shape}: they must agree"
        )
    if tensor.device != param.device:
        raise _elsewhere(tensor, param, what)


def _in_rows(tensor: Tensor) -> Tensor:
    """Contiguous, and at an even address: kernels read words of 16 bits."""
    return tensor.contiguous() if tensor.data_ptr() % 2 == 0 else tensor.clone(memory_format=torch.contiguous_format)


def _elsewhere(tensor: Tensor, param: Tensor, what: str) -> ValueError:
    return ValueError(
        f"{what} is on {tensor.device}, the parameter on {param.device}: move the model before making its "
        "optimizer, or load the optimizer's state again after moving it"
    )


def _like(param: Tensor) -> Tensor:
    """Zeros as wide as moments, laid out as the parameter."""
    dtype = moment_dtype(param)
    return torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)


def _fitting(moment: Tensor, param: Tensor, what: str) -> Tensor:
    """The moment (or average) itself if it fits the parameter, else a copy that does."""
    dtype = moment_dtype(param)
    same_place = moment.shape == param.shape and moment.device == param.device
    if same_place and moment.dtype == dtype and moment.stride() == param.stride():
        return moment
    if moment.shape != param.shape:
        raise ValueError(f"{what} has shape {tuple(moment.shape)}, the parameter {tuple(param.shape)}: they must agree")
    if moment.device != param.device:
        raise _elsewhere(moment, param, what)
    if moment.is_complex() != param.is_complex():
        raise ValueError(f"{what} is {moment.dtype}, which a {param.dtype} parameter cannot use")
    fitting = torch.empty_like(param, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
    if moment.dtype == dtype and moment.stride() == fitting.stride():
        return moment  # of a parameter with gaps in memory
    return fitting.copy_(moment.detach())
