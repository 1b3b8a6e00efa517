"""Tensors in a parameter's state <-> float32 moments and weights, through the codecs of `adamas.formats`.

`eager` steps through these functions. `adamas.state` reads a state with them and converts it to another format.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adamas.formats import master, rounding
from adamas.formats.moments import MOMENTS
from adamas.formats.names import PARTS, Storage, rows_and_columns
from adamas.formats.random_bits import Key, Place, for_weights, random_bits

State = dict[str, Any]
Part = tuple[torch.dtype, tuple[int, ...]]
# Elements joined at a time, since a whole tensor's temporaries would fragment the heap: in a job of 0.9 GB, pieces of
# 2**14 leave holes of 1 MB, of 2**16 9 MB, of 2**20 130 MB.
PIECE = 2**14
LOW = {24: torch.int8, 32: torch.uint8}  # 16 bits are stored as two bytes: collectives do not support int16


def parts(storage: Storage, param: Tensor) -> dict[str, Part]:
    """Return the dtype and shape of the row-major tensors that store moments and low bits, by name.

    Wide moments are not among them, because they have the parameter's layout.
    """
    shape = tuple(param.shape)
    made = {} if storage.moments == "wide" else MOMENTS[storage.moments].parts(shape)
    found = {key: (getattr(torch, part.dtype), part.shape) for key, part in made.items()}
    if storage.master_bits:
        found["param_low"] = (LOW[storage.master_bits], shape if storage.master_bits == 24 else (*shape, 2))
    return found


def random_of(key: Key, tensor: Tensor, place: Place) -> Tensor:
    """Return a step's random bits for each element, by the element's index in the whole parameter."""
    index = torch.arange(tensor.numel(), dtype=torch.int64, device=tensor.device)
    if place.skip:
        index = index + index // place.run * place.skip
    return random_bits(key, (index + place.first).reshape(tensor.shape))


def moments(storage: Storage, state: State, param: Tensor) -> tuple[Tensor, Tensor]:
    """Return both moments in the parameter's shape: wide ones are the stored tensors, others new float32 tensors."""
    if storage.moments == "wide":
        return state["exp_avg"], state["exp_avg_sq"]
    if not param.numel():  # an empty shard
        return param.new_zeros(param.shape, dtype=torch.float32), param.new_zeros(param.shape, dtype=torch.float32)
    rows, columns = rows_and_columns(tuple(param.shape))
    found = {key: _patterns(state[key]) for key in PARTS[storage.moments]}
    if storage.moments in ("bfloat16", "float16"):
        found = {key: value.reshape(rows, columns) for key, value in found.items()}
    elif storage.moments == "packed16":
        found[storage.moments] = found[storage.moments].reshape(rows, columns, 2)
    exp_avg, exp_avg_sq = MOMENTS[storage.moments].decode(found, columns)
    return exp_avg.reshape(param.shape), exp_avg_sq.reshape(param.shape)


def encoded_moments(storage: Storage, exp_avg: Tensor, exp_avg_sq: Tensor, random: Tensor | None) -> State:
    """Encode two float32 moments as values for `put`; only float16 needs no random bits."""
    rows, columns = rows_and_columns(tuple(exp_avg.shape))
    first, second = (x.detach().to(torch.float32).reshape(rows, columns) for x in (exp_avg, exp_avg_sq))
    random = first if random is None else random.reshape(rows, columns)
    return MOMENTS[storage.moments].encode(first, second, random)


def weight(storage: Storage, state: State, param: Tensor) -> Tensor:
    """Return a new tensor with the weight for the rule: float32 or wider, with its low bits."""
    if not storage.master_bits:
        return param.detach().to(torch.promote_types(param.dtype, torch.float32), copy=True)
    return master.join(_patterns(param.detach()), _low(state["param_low"], storage.master_bits), storage.master_bits)


def write_weight(target: Tensor, storage: Storage, state: State, param: Tensor) -> Tensor:
    """Write the weight for the rule into `target`, in pieces: joining needs 32 temporary bytes an element."""
    if not storage.master_bits:
        return target.copy_(param.detach())
    if param.numel() <= PIECE:
        return target.copy_(weight(storage, state, param))
    rows = max(1, PIECE // param[0].numel())
    for into, high, low in zip(target.split(rows), param.split(rows), state["param_low"].split(rows), strict=True):
        into.copy_(weight(storage, {"param_low": low}, high))
    return target


def encoded_weight(storage: Storage, value: Tensor, change: Tensor, dtype: torch.dtype, random: Tensor | None) -> State:
    """Encode a weight after a step as values for `put`, under the keys "param" and "param_low".

    Args:
        storage: how the weight is stored.
        value: the weight before the step, float32.
        change: the difference that the step subtracts.
        dtype: the dtype of the parameter.
        random: the step's random bits, from which those of the weights follow; None where there are none.
    """
    random = for_weights(random) if storage.stochastic and random is not None else None
    if storage.master_bits:
        if random is not None:
            value = rounding.stepped(value, change, random, 8)
        else:
            value = value - change if storage.master_bits == 32 else master.nearest24(value - change)
        high, low = master.split(value, storage.master_bits)
        return {"param": high, "param_low": low if storage.master_bits == 24 else low[..., None].view(torch.uint8)}
    if random is None:
        return {"param": (value - change).to(dtype)}
    if dtype == torch.bfloat16:
        return {"param": rounding.stepped(value, change, random, 16).to(dtype)}
    return {"param": rounding.float16_value(value, change, random).to(dtype)}


def put(target: Tensor, value: Tensor, skip: Tensor | None) -> None:
    """Write an encoded value, integer patterns as bfloat16 where needed; keep the old one where `skip` is true."""
    if target.dtype == torch.bfloat16 and not value.is_floating_point():
        target = target.view(torch.int16)
    value = value.reshape(target.shape).to(target.dtype)
    target.copy_(value if skip is None else torch.where(skip, target, value))


def convert_low(low: Tensor, width: int) -> Tensor:
    """Convert the low bits of a master weight to another width; the parameter stays the same."""
    if (low.dtype == torch.int8) == (width == 24):
        return low
    if width == 32:
        return (low.to(torch.int16) << 8)[..., None].view(torch.uint8)
    return ((_low(low, 32).to(torch.int32) + 0x80) >> 8).clamp_max(127).to(torch.int8)


def _patterns(tensor: Tensor) -> Tensor:
    """Return the integer patterns of a bfloat16 tensor, and any other tensor unchanged."""
    return tensor.view(torch.int16).to(torch.int64) & 0xFFFF if tensor.dtype == torch.bfloat16 else tensor


def _low(low: Tensor, width: int) -> Tensor:
    return low if width == 24 else low.contiguous().view(torch.int16)[..., 0]
