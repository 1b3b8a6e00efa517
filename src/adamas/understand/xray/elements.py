"""Read some elements of live parameters and of their states, in any format of the moments and weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from adamas.formats import stored
from adamas.state import shards
from adamas.state.conform import decoded_moments, has_moments, steps_taken, stored_as
from adamas.state.layout import ORDINARY
from adamas.understand.xray.sample import stride_for

State = dict[str, Any]
States = Mapping[Any, State]


class Place:
    """Where the sampled elements of a parameter lie, with views of them that stay valid while its memory does.

    Attributes:
        elements: The number of elements of the parameter, or of this process's shard of it.
        count: How many elements are read.
    """

    def __init__(self, param: Tensor) -> None:
        local = _real(shards.local(param.detach()))
        self.elements = local.numel()
        self._stride = stride_for(self.elements)
        self.count = -(-self.elements // self._stride)
        # A view of a contiguous tensor follows it; otherwise the sampled elements are a copy.
        self._pointer = local.data_ptr() if type(param) in ORDINARY and local.is_contiguous() else None
        self._view = self.of(local)
        self._may_have_low_bits = param.dtype == torch.bfloat16

    def of(self, tensor: Tensor) -> Tensor:
        """Return the sampled elements of a tensor shaped like the parameter."""
        return tensor.reshape(-1)[:: self._stride]

    def weight(self, param: Tensor, states: States) -> Tensor:
        """Return the weight that the rule steps, with the low bits of a master weight."""
        followed = self._pointer is not None and param.data_ptr() == self._pointer
        view = self._view if followed else self.of(_real(shards.local(param.detach())))
        state = states.get(param) if self._may_have_low_bits else None
        if not state or "param_low" not in state:
            return view
        storage, low = stored_as(state, param), shards.local(state["param_low"])
        low = self.of(low) if storage.master_bits == 24 else low.reshape(-1, 2)[:: self._stride]
        return stored.weight(storage, {"param_low": low}, view)

    def moments(self, param: Tensor, state: State, amsgrad: bool) -> tuple[Tensor, Tensor]:
        """Return the first moment, and the second moment that the step divides by the root of."""
        first, second = decoded_moments(state, param)
        second = state["max_exp_avg_sq"] if amsgrad else second
        return self.of(_real(shards.local(first))), self.of(_real(shards.local(second)))


def joined(tensors: Iterable[Tensor]) -> Tensor:
    """Return a new tensor with the elements of all, in float32 or wider, on the device of the first."""
    found = list(tensors)
    if len({x.device for x in found}) > 1:
        found = [x.to(found[0].device) for x in found]
    whole = torch.cat(found)
    return whole.to(torch.promote_types(whole.dtype, torch.float32))


def steps(param: Tensor, states: States) -> int:
    """Return the number of steps that a parameter has taken."""
    state = states.get(param) or {}
    return steps_taken(state) if has_moments(state) else 0


def size(param: Tensor, place: Place, weights: Tensor) -> tuple[float, float]:
    """Return the RMS and the largest absolute value of all elements of a parameter.

    Args:
        param: the parameter.
        place: where its sampled elements lie.
        weights: the sampled elements, which suffice where they are all.
    """
    whole = weights if place.count == place.elements else _real(shards.local(param.detach()))
    norm = torch.linalg.vector_norm(whole, dtype=torch.promote_types(whole.dtype, torch.float32))
    return float(norm) / place.elements**0.5, float(torch.linalg.vector_norm(whole, float("inf")))


def _real(tensor: Tensor) -> Tensor:
    """View complex numbers as pairs of real ones, which Adam steps independently."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
