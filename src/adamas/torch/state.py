"""What is kept of a parameter: `step`, `exp_avg`, `exp_avg_sq` and, with amsgrad, `max_exp_avg_sq`, as in torch.

With ema_decay also `ema`, the moving average of the weights.

Unlike torch's the moments are float32 or wider, whatever the parameter's dtype: in bfloat16 a second moment with
beta2 = 0.999 never moves again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adamas.kernels.bucket import is_dense, moment_dtype, state_names

State = dict[str, Any]
TENSORS = state_names(amsgrad=True, averages=True)


def steps_taken(state: State) -> int:
    """The number of steps in a state; 0 before the first. Reads the device if the counter lies on one."""
    return int(state.get("step", 0))


def conform(state: State, param: Tensor, needed: tuple[str, ...], name: str) -> State:
    """A complete state for `param` from what `state` has: same tensors where they fit, new ones where not.

    They get the parameter's layout, so that element k of one lies where element k of the other does.

    Args:
        state: a state or a part of one; empty for a new parameter. Not changed.
        param: the parameter.
        needed: which tensors a step needs. Where it is missing, a moment starts at zero, a running maximum at the
            second moment and an average at the parameter. An average that is not needed is left out.
        name: how to call the parameter in an error.

    Raises:
        ValueError: a tensor has another shape than the parameter or lies on another device.
    """
    whole = dict(state)
    for key in TENSORS:
        tensor = whole.get(key)
        if key == "ema" and key not in needed:
            whole.pop(key, None)  # what is no longer kept up would be taken for the weights' average later
            continue
        if tensor is None and key not in needed:
            continue
        if tensor is None:
            tensor = _beginning(key, param, whole)
        whole[key] = _fitting(tensor, param, f"{key} of {name}")
    return whole


def _beginning(key: str, param: Tensor, state: State) -> Tensor:
    """A new tensor of a state."""
    if key == "max_exp_avg_sq":
        return state["exp_avg_sq"].clone(memory_format=torch.preserve_format)
    like = torch.zeros_like(param, dtype=moment_dtype(param), memory_format=torch.preserve_format, requires_grad=False)
    return like.copy_(param.detach()) if key == "ema" else like


def _fitting(moment: Tensor, param: Tensor, what: str) -> Tensor:
    """The moment (or average) itself if it fits the parameter, else a copy that does."""
    dtype = moment_dtype(param)
    same_place = moment.shape == param.shape and moment.device == param.device
    if same_place and moment.dtype == dtype and moment.stride() == param.stride():
        return moment
    if moment.shape != param.shape:
        raise ValueError(f"{what} has shape {tuple(moment.shape)}, the parameter {tuple(param.shape)}: they must agree")
    if moment.device != param.device:
        raise ValueError(
            f"{what} is on {moment.device}, the parameter on {param.device}: move the model before making its "
            "optimizer, or load the optimizer's state again after moving it"
        )
    if moment.is_complex() != param.is_complex():
        raise ValueError(f"{what} is {moment.dtype}, which a {param.dtype} parameter cannot use")
    if moment.dtype == dtype and not is_dense(tuple(param.shape), param.stride()):
        return moment
    fitting = torch.empty_like(param, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
    return fitting.copy_(moment.detach())
