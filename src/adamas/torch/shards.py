"""The shards of a bucket's DTensors: unwrapped once, and compared by identity before each step."""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor

from adamas.kernels import lists
from adamas.kernels.bucket import MismatchError
from adamas.state.layout import State
from adamas.state.shards import is_alike, is_sharded, local

_shard, _spec, _step = attrgetter("_local_tensor"), attrgetter("_spec"), itemgetter("step")


class Shards:
    """The shards of DTensors and of their states, as plain tensors for a kernel.

    Args:
        params: the DTensors.
        states: their complete states, made of DTensors.
        names: the names of the tensors in a state that a kernel needs.
    """

    def __init__(self, params: list[Tensor], states: list[State], names: tuple[str, ...]) -> None:
        self.params: list[Tensor] = [local(param) for param in params]
        self.states = [{"step": state["step"], **{name: local(state[name]) for name in names}} for state in states]
        self._whole, self._names = params, names
        self._columns = {name: [state[name] for state in self.states] for name in ("step", *names)}
        self._specs = list(map(_spec, params))
        self.replaced: list[Tensor] = []  # gradients that were sharded otherwise, of which the kernel takes copies

    def take(self, states: list[State]) -> list[Tensor | None]:
        """The shards of the gradients, which are `None` where missing.

        Raises:
            MismatchError: a parameter or a state has another shard than before.
            RuntimeError: a gradient is no DTensor.
        """
        columns, same = self._columns, lists.same_objects
        try:
            known = same(list(map(_shard, self._whole)), self.params) and same(
                list(map(_step, states)), columns["step"]
            )
            for name in self._names:
                known = known and same([_shard(state[name]) for state in states], columns[name])
        except (AttributeError, KeyError):
            known = False
        if not known:
            raise MismatchError("a parameter or a state has another shard than before")
        self.replaced = []
        grads: list[Tensor | None] = [param.grad for param in self._whole]
        for i, grad in enumerate(grads):
            if grad is not None:
                right = getattr(grad, "_spec", None) is self._specs[i]
                grads[i] = local(grad if right else self._adapted(i, grad))
        return grads

    def _adapted(self, i: int, grad: Any) -> Tensor:
        """A gradient that is sharded as its parameter."""
        param: Any = self._whole[i]
        if not is_sharded(grad):
            raise RuntimeError(
                f"a parameter is a DTensor of shape {tuple(param.shape)}, and its gradient a {type(grad).__name__}: "
                "make the gradient with distribute_tensor(grad, param.device_mesh, param.placements)"
            )
        if is_alike(grad, param):
            self._specs[i] = grad._spec
            return grad
        self.replaced.append(grad)
        with torch.no_grad():
            return grad.redistribute(param.device_mesh, param.placements)
