"""Parameters of which each process has a shard (torch's DTensor), and states that are sharded with them.

Kernels step shards, which are plain tensors. A state keeps DTensors, so that torch.distributed.checkpoint and
`full_tensor` know the whole. Row k of a packed state belongs to row k of the parameter, so that both are sharded alike.
The format of a state follows from the shape of the whole parameter, never from that of a shard.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from math import prod
from typing import Any

import torch
from torch import Tensor

from adamas.formats.names import PACKED, Storage
from adamas.formats.random_bits import Place
from adamas.state.layout import ORDINARY, TENSORS, State, parts

BLOCK = 256  # elements of a block of packed moments


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor is a DTensor, of which this process has a shard."""
    return type(tensor) not in ORDINARY and hasattr(tensor, "_local_tensor")


def local(tensor: Any) -> Any:
    """This process's shard of a DTensor; anything else is returned unchanged."""
    if not is_sharded(tensor):
        return tensor
    shard = tensor._local_tensor
    return shard.wait() if hasattr(shard, "wait") else shard  # a collective may still be filling it


def is_flat_shard(param: Tensor) -> bool:
    """Whether a parameter is one process's part of a flat buffer of FullyShardedDataParallel (FSDP1)."""
    return getattr(param, "_fsdp_flattened", False)


def is_alike(tensor: Any, param: Any) -> bool:
    """Whether a DTensor is sharded over the processes as a parameter is."""
    return tensor.device_mesh == param.device_mesh and tensor.placements == param.placements


def wrapped(shard: Tensor, param: Any, shape: tuple[int, ...] | None = None) -> Tensor:
    """A DTensor of this shard, sharded as the parameter; row-major with the given shape, else laid out as it."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

    if shape is None:
        whole, strides = tuple(param.shape), param.stride()
    else:
        whole, strides = shape, tuple(prod(shape[d + 1 :]) for d in range(len(shape)))
    meta = TensorMeta(torch.Size(whole), strides, shard.dtype)
    # Not by from_local, which moves a shard that FSDP keeps on the host to the devices of the mesh.
    spec = DTensorSpec(param.device_mesh, param.placements, tensor_meta=meta)
    return DTensor(shard, spec, requires_grad=False)  # pyright: ignore


def on_shards(function: Callable[..., Any], state: State, param: Any) -> Any:
    """The results of a function of a state and its parameter, computed from shards and wrapped like the parameter."""
    found = function({key: local(value) for key, value in state.items()}, local(param))
    return tuple(wrapped(x, param) for x in found) if isinstance(found, tuple) else wrapped(found, param)


def shard_of(value: Any, param: Any) -> Any:
    """This process's shard of a tensor in a state; whole tensors, and those cut otherwise, are cut as the parameter."""
    if is_sharded(value):
        return local(value if is_alike(value, param) else value.redistribute(param.device_mesh, param.placements))
    if value.shape == local(param).shape or not value.ndim:
        return value
    from torch.distributed.tensor import distribute_tensor

    here: Any = {"src_data_rank": None} if "src_data_rank" in signature(distribute_tensor).parameters else {}
    cut = distribute_tensor(value.detach(), param.device_mesh, param.placements, **here)  # torch 2.6 sends the parts
    return local(cut).to(value.device, copy=True)


def sharded(state: State, param: Any, storage: Storage, complete: Callable[[State], State]) -> State:
    """A state of DTensors, completed by a function of this process's shards of its tensors."""
    given = {key: shard_of(x, param) if key in TENSORS and isinstance(x, Tensor) else x for key, x in state.items()}
    whole, stored = complete(given), parts(storage, param)
    for key, value in whole.items():
        if key in TENSORS:
            old = state.get(key)
            same = is_sharded(old) and old._local_tensor is value  # pyright: ignore
            whole[key] = old if same else wrapped(value, param, stored[key][1] if key in stored else None)
    return whole


def _split(param: Any) -> list[tuple[int, int, Any]]:
    """For each placement that cuts a dimension: the dimension, the number of pieces, and the placement."""
    mesh = param.device_mesh
    cuts = [(p.dim, mesh.size(i), p) for i, p in enumerate(param.placements) if hasattr(p, "dim")]
    return [cut for cut in cuts if cut[1] > 1]


def place_of(param: Any) -> Place:
    """The place of this process's shard in the whole parameter; for a plain tensor that of a whole one."""
    if not is_sharded(param):
        return Place()
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape = tuple(param.shape)
    _, offsets = compute_local_shape_and_global_offset(shape, param.device_mesh, param.placements)
    first = sum(offset * prod(shape[d + 1 :]) for d, offset in enumerate(offsets))
    last = max((dim for dim, _, _ in _split(param)), default=0)
    if last == 0:
        return Place(first)
    run, pitch = prod(local(param).shape[last:]), prod(shape[last:])
    return Place(first, max(run, 1), pitch - run)


def is_first_replica(param: Any) -> bool:
    """Whether this process is the first of those that have the same shard of a DTensor."""
    coordinate = param.device_mesh.get_coordinate() or []
    return all(at == 0 or not p.is_replicate() for at, p in zip(coordinate, param.placements, strict=False))


def refusal(param: Any, storage: Storage) -> str | None:
    """Why a DTensor's state cannot be stored so that every number of processes gives the same bits; None if it can."""
    if any(placement.is_partial() for placement in param.placements):
        return "its placement is Partial: a parameter must be sharded or replicated"
    if storage.plain:
        return None
    shape, cuts = tuple(param.shape), _split(param)
    dims = sorted({dim for dim, _, _ in cuts})
    for dim in dims:
        pieces = prod(count for d, count, _ in cuts if d == dim)
        strided = any(hasattr(placement, "split_factor") for d, _, placement in cuts if d == dim)
        if strided and (dim > 0 or shape[dim] % pieces):
            return f"dimension {dim} is cut by a strided placement into pieces that are not adjacent or not equal"
    if len(dims) > 2 or (len(dims) == 2 and dims[0] != 0):
        return f"dimensions {dims} are cut: at most dimension 0 and one other may be"
    if storage.moments in PACKED and dims and dims[-1] > 0:
        pieces, inner = prod(count for d, count, _ in cuts if d == dims[-1]), prod(shape[dims[-1] + 1 :])
        even = shape[dims[-1]] % pieces == 0 and shape[dims[-1]] // pieces * inner % BLOCK == 0
        if storage.moments == "packed12" or dims[-1] > 1 or not even:
            return (
                f"dimension {dims[-1]} is cut through blocks of {BLOCK} elements that {storage.moments} moments share"
            )
    return None
