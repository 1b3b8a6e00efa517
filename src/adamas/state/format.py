"""The format in which the moments and the weight of a parameter are stored, and the reason: pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from adamas.formats.names import FULL, Request, Storage, storage_for, why_wide
from adamas.options import check_stored
from adamas.state.layout import ORDINARY, is_traced, moment_dtype
from adamas.state.shards import is_flat_shard, is_sharded, refusal

Group = dict[str, Any]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def storage_of(param: Tensor, group: Group) -> Storage:
    """The storage of a parameter's moments and weight.

    Moments stay float32, or as wide as a wider parameter, where fewer bits would save next to nothing: in tensors with
    fewer than 4,096 elements, with rows under 8 elements, or with one dimension that is under 65,536 elements or
    sharded. `state_dtype="param"` applies to every tensor.

    Example:
        >>> group = {"state_dtype": "packed16", "master_weight_bits": 24, "stochastic_rounding": None}
        >>> storage_of(torch.zeros(64, 64, dtype=torch.bfloat16), group)
        Storage(moments='packed16', master_bits=24, stochastic=True)
        >>> storage_of(torch.zeros(64), group)
        Storage(moments='wide', master_bits=None, stochastic=False)
    """
    rounding = group["stochastic_rounding"]
    if rounding is None and group.get("differentiable"):
        rounding = False  # random rounding has no gradient
    asked = Request(group["state_dtype"], group["master_weight_bits"], rounding)
    return storage_for(_name(param.dtype), tuple(param.shape), asked, is_sharded(param))


def label(param: Tensor, group: Group) -> str:
    """The format of a parameter's moments, with the reason where it is not the one that was asked for.

    Example:
        >>> group = {"state_dtype": "packed16", "master_weight_bits": None, "stochastic_rounding": None}
        >>> label(torch.zeros(64, 64), group), label(torch.zeros(64), group)
        ('packed16', 'float32: fewer than 4,096 elements')
    """
    moments = storage_of(param, group).moments
    if moments != "wide":
        return moments
    why = why_wide(_name(param.dtype), tuple(param.shape), is_sharded(param))
    return _name(moment_dtype(param)) + (f": {why}" if why and group["state_dtype"] not in FULL else "")


def unapplied(groups: list[tuple[list[Tensor], Group]]) -> list[str]:
    """A message for each `state_dtype` that applies to less than half of the trained elements that ask for it."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for params, group in groups:
        if group["state_dtype"] not in FULL:
            for param in params:
                counts[group["state_dtype"]][label(param, group)] += param.numel()
    messages: list[str] = []
    for asked, found in counts.items():
        total, applied = found.total(), found.pop(asked, 0)
        if 2 * applied < total:
            rest = ", ".join(f"{100 * count / total:.0f} % {what}" for what, count in found.items())
            messages.append(
                f"state_dtype={asked!r} is applied to {100 * applied / total:.0f} % of the elements; the rest: {rest}. "
                "state_bytes(by_reason=True) has the bytes"
            )
    return messages


def check_parameter(name: str, param: Tensor, group: Group) -> None:
    """Raise ValueError on a parameter that cannot be stored as its group asks."""
    if is_lazy(param):
        return  # a lazy parameter has no shape yet: it is checked when it is stepped
    storage = storage_of(param, group)
    in_fewer_bits = storage.moments != "wide" or storage.master_bits
    sharded = is_sharded(param) and not group["differentiable"]
    why = refusal(param, storage) if sharded else None
    if why is not None:
        raise ValueError(
            f"{name} is a DTensor of shape {tuple(param.shape)} with placements {tuple(param.placements)}: {why}. "  # pyright: ignore
            "Use state_dtype='float32', master_weight_bits=None and stochastic_rounding=False, or shard dimension 0"
        )
    if type(param) not in ORDINARY and not sharded and in_fewer_bits and not is_traced(param):
        raise ValueError(
            f"{name} is a {type(param).__name__}: moments in fewer bits and master weights are for plain tensors and "
            "for DTensors with differentiable=False. Use state_dtype='float32' and master_weight_bits=None"
        )
    if is_flat_shard(param) and storage.master_bits:
        raise ValueError(
            f"{name} is a flat parameter of FullyShardedDataParallel, which saves only states of its shape: "
            f"master_weight_bits={storage.master_bits} has others. Use fully_shard (FSDP2), or master_weight_bits=None"
        )
    check_stored(name, _name(param.dtype), storage, group)
