"""In which format the moments and the weight of a parameter are stored, and why: pure functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from adamas.formats.names import NARROWEST, SMALLEST, Storage, is_large
from adamas.state.layout import ORDINARY, is_traced

HALF = (torch.bfloat16, torch.float16)
Group = dict[str, Any]


def storage_of(param: Tensor, group: Group) -> Storage:
    """The storage of a parameter's moments and weight.

    Moments are float32, or as wide as a wider parameter, where the tensor has fewer than 4,096 elements, one dimension
    or rows of fewer than 64: fewer bits would save next to nothing there. `state_dtype="param"` makes no exceptions.

    Example:
        >>> group = {"state_dtype": "packed16", "master_weight_bits": 24, "stochastic_rounding": None}
        >>> storage_of(torch.zeros(64, 64, dtype=torch.bfloat16), group)
        Storage(moments='packed16', master_bits=24, stochastic=True)
        >>> storage_of(torch.zeros(64), group)
        Storage(moments='wide', master_bits=None, stochastic=False)
    """
    asked, rounding = group["state_dtype"], group["stochastic_rounding"]
    moments = "wide"
    if asked == "param" and param.dtype in HALF:
        moments = str(param.dtype).removeprefix("torch.")
    elif asked not in ("param", "float32") and why_wide(param) is None:
        moments = asked
    master_bits = group["master_weight_bits"] if param.dtype == torch.bfloat16 else None
    unbiased = rounding is None or rounding
    if rounding is None and group.get("differentiable"):
        unbiased = False  # autograd has no use for it
    return Storage(moments, master_bits, unbiased and param.dtype in HALF and master_bits != 32)


def why_wide(param: Tensor) -> str | None:
    """Why moments of a parameter stay float32 or wider where fewer bits are asked for; None if they do not."""
    if param.dtype not in (torch.float32, *HALF):
        return f"{str(param.dtype).removeprefix('torch.')} parameters"
    if is_large(tuple(param.shape)):
        return None
    if param.numel() < SMALLEST:
        return f"fewer than {SMALLEST:,} elements"
    return "one dimension" if param.dim() == 1 else f"rows under {NARROWEST} elements"


def shares(params: list[Tensor], group: Group) -> dict[str, int]:
    """Elements of parameters by what their moments are stored in, and why where that is not what was asked for.

    Example:
        >>> group = {"state_dtype": "packed16", "master_weight_bits": None, "stochastic_rounding": None}
        >>> shares([torch.zeros(64, 64), torch.zeros(64)], group)
        {'packed16': 4096, 'float32: fewer than 4,096 elements': 64}
    """
    found: dict[str, int] = {}
    for param in params:
        moments, why = storage_of(param, group).moments, why_wide(param)
        asked = group["state_dtype"] not in ("float32", "param")
        wide = str(torch.promote_types(param.dtype, torch.float32)).removeprefix("torch.")
        label = moments if moments != "wide" else f"{wide}: {why}" if asked and why else wide
        found[label] = found.get(label, 0) + param.numel()
    return found


def unapplied(groups: list[tuple[list[Tensor], Group]]) -> list[str]:
    """A message for each state_dtype of fewer bits that is applied to less than half of the elements that ask for it.

    Args:
        groups: the trained parameters of each group, and the group.
    """
    messages: list[str] = []
    for asked in {
        group["state_dtype"]: None for _, group in groups if group["state_dtype"] not in ("float32", "param")
    }:
        found: dict[str, int] = {}
        for params, group in groups:
            if group["state_dtype"] == asked:
                for label, count in shares(params, group).items():
                    found[label] = found.get(label, 0) + count
        total, applied = sum(found.values()), found.pop(asked, 0)
        if total and 2 * applied < total:
            rest = ", ".join(f"{100 * count / total:.0f} % {label}" for label, count in found.items())
            messages.append(
                f"state_dtype={asked!r} is applied to {100 * applied / total:.0f} % of the elements; the rest: {rest}. "
                "state_bytes(by_reason=True) has the bytes"
            )
    return messages


def check_together(group: Group) -> None:
    """Raise ValueError on formats that cannot be had together with each other or with the group's other options."""
    state_dtype, fewer_bits = group["state_dtype"], group["state_dtype"] not in ("float32", "param")
    if group["amsgrad"] and fewer_bits:
        raise ValueError(
            f"amsgrad=True (set, or from a checkpoint) with state_dtype={state_dtype!r}: a running maximum climbs on "
            "the noise of rounding (by 7 to 60 % where measured). Use state_dtype='float32', or no amsgrad"
        )
    if group["differentiable"] and (fewer_bits or group["master_weight_bits"] or group["stochastic_rounding"]):
        raise ValueError(
            "differentiable=True records the step, and rounding to fewer bits has no gradient: leave state_dtype, "
            "master_weight_bits and stochastic_rounding as they are"
        )


def check_parameter(name: str, param: Tensor, group: Group) -> None:
    """Raise ValueError on a parameter that cannot be stored as its group asks."""
    if is_lazy(param):
        return  # it has no shape yet: looked at when it is stepped
    storage = storage_of(param, group)
    in_fewer_bits = storage.moments != "wide" or storage.master_bits
    if type(param) not in ORDINARY and in_fewer_bits and not is_traced(param):
        raise ValueError(
            f"{name} is a {type(param).__name__}: moments in fewer bits and master weights are for plain tensors. "
            "Use state_dtype='float32' and master_weight_bits=None"
        )
    if getattr(param, "_fsdp_flattened", False) and (group["state_dtype"] != "float32" or group["master_weight_bits"]):
        raise ValueError(
            f"{name} is a flat parameter of FullyShardedDataParallel, a shard of several tensors: "
            f"state_dtype={group['state_dtype']!r} and master_weight_bits={group['master_weight_bits']} are for whole "
            "ones. Use fully_shard (FSDP2) with state_dtype='float32' and master_weight_bits=None"
        )
    if group["master_weight_bits"] and param.dtype == torch.float16:
        raise ValueError(
            f"master_weight_bits={group['master_weight_bits']} and {name} is float16, whose exponent is shorter "
            "than float32's: low bits cannot make it longer. Use bfloat16 parameters"
        )
    if group["amsgrad"] and storage.moments != "wide":
        raise ValueError(
            f"amsgrad=True and {name} would have {storage.moments} moments, on whose noise a "
            "running maximum climbs. Use state_dtype='float32', or no amsgrad"
        )
