"""The adapter of Optax under `jax.jit`, with donated buffers: parameters and state are overwritten in place."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from adamas.bench.peers.contract import Peer
from adamas.bench.rule import BETA1, BETA2, EMA_DECAY, LR, MAX_NORM, WEIGHT_DECAY, eps
from adamas.bench.scenario import Scenario


class Optax(Peer):
    """`optax.adamw`; a phase chains it behind the clipping and compiles the average into the same function."""

    name = "optax"
    modules = ("optax", "jax")
    install = "optax jax"

    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        self.jax, optax = import_module("jax"), import_module("optax")
        self.jax.config.update("jax_enable_x64", scenario.dtype == "float64")
        rule = optax.adamw(LR, BETA1, BETA2, eps(scenario.dtype), weight_decay=WEIGHT_DECAY)
        if scenario.work == "phase":
            rule = optax.chain(optax.clip_by_global_norm(MAX_NORM), rule)

        @partial(self.jax.jit, donate_argnums=(0, 1))
        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = rule.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        @partial(self.jax.jit, donate_argnums=(0, 1, 2))
        def phase(params: Any, state: Any, mean: Any, grads: Any, weight: Any) -> Any:
            params, state = step(params, state, grads)
            return params, state, optax.incremental_update(params, mean, weight)

        self.compiled_step, self.compiled_phase = step, phase
        self.params = self.taken(params)
        self.state = rule.init(self.params)
        self.mean = self.taken(params) if scenario.work == "phase" else []
        self.weight = 1.0  # weight of the parameters in their average: the first phase copies them

    def taken(self, tensors: list[Tensor]) -> list[Any]:
        """Return copies that JAX owns, so that it may overwrite them."""
        return [self.jax.numpy.array(self.jax.dlpack.from_dlpack(tensor.contiguous()), copy=True) for tensor in tensors]

    def give(self, grads: list[Tensor]) -> None:
        self.grads = self.taken(grads)

    def step(self) -> None:
        self.params, self.state = self.compiled_step(self.params, self.state, self.grads)
        self.jax.block_until_ready(self.params)

    def phase(self) -> None:
        everything = self.compiled_phase(self.params, self.state, self.mean, self.grads, self.weight)
        self.params, self.state, self.mean = self.jax.block_until_ready(everything)
        self.weight = 1 - EMA_DECAY

    def parameters(self) -> list[Tensor]:
        return [torch.from_dlpack(array).clone() for array in self.params]

    def averages(self) -> list[Tensor]:
        return [torch.from_dlpack(array).clone() for array in self.mean]

    def state_bytes(self) -> int:
        return sum(array.nbytes for array in self.jax.tree.leaves((self.state, self.mean)))
