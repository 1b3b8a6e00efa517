"""The adapter of Optax under `jax.jit`, with donated buffers: parameters and state are overwritten in place."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from adamas.bench.peers.contract import Peer
from adamas.bench.rule import BETA1, BETA2, EMA_DECAY, LR, MAX_NORM, WEIGHT_DECAY, eps
from adamas.bench.scenario import STEPS, Scenario

Functions = tuple[Callable[[Any], Any], Callable[[Any, Any, Any], Any]]


class Optax(Peer):
    """`optax.adamw`; a phase chains it behind the clipping and compiles the average into the same function."""

    name = "optax"
    modules = ("optax", "jax")
    install = "optax jax"

    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        self.jax = import_module("jax")
        self.jax.config.update("jax_enable_x64", scenario.dtype == "float64")
        init, step = self.make(scenario)

        def ten_steps(params: Any, state: Any, grads: Any) -> Any:
            return self.jax.lax.fori_loop(0, STEPS, lambda _, held: step(held[0], held[1], grads), (params, state))

        def phase(params: Any, state: Any, mean: Any, grads: Any, weight: Any) -> Any:
            params, state = step(params, state, grads)
            return params, state, import_module("optax").incremental_update(params, mean, weight)

        self.compiled_step = self.jax.jit(step, donate_argnums=(0, 1))
        self.compiled_ten_steps = self.jax.jit(ten_steps, donate_argnums=(0, 1))
        self.compiled_phase = self.jax.jit(phase, donate_argnums=(0, 1, 2))
        self.params = self.taken(params)
        self.state = init(self.params)
        self.mean = self.taken(params) if scenario.work == "phase" else []
        self.weight = 1.0  # weight of the parameters in their average: the first phase copies them

    def make(self, scenario: Scenario) -> Functions:
        """Return the functions that make the state and take a step, with clipping where a phase is asked for."""
        optax = import_module("optax")
        rule = self.transformation(scenario)
        if scenario.work == "phase":
            rule = optax.chain(optax.clip_by_global_norm(MAX_NORM), rule)

        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = rule.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        return rule.init, step

    def transformation(self, scenario: Scenario) -> Any:
        """Return the rule as a transformation of optax."""
        return import_module("optax").adamw(LR, BETA1, BETA2, eps(scenario.dtype), weight_decay=WEIGHT_DECAY)

    def taken(self, tensors: list[Tensor]) -> list[Any]:
        """Return copies that JAX owns, so that it may overwrite them."""
        return [self.jax.numpy.array(self.jax.dlpack.from_dlpack(tensor.contiguous()), copy=True) for tensor in tensors]

    def give(self, grads: list[Tensor]) -> None:
        self.grads = self.taken(grads)

    def step(self) -> None:
        self.params, self.state = self.compiled_step(self.params, self.state, self.grads)
        self.jax.block_until_ready(self.params)

    def ten_steps(self) -> None:
        self.params, self.state = self.compiled_ten_steps(self.params, self.state, self.grads)
        self.jax.block_until_ready(self.params)

    def phase(self) -> None:
        everything = self.compiled_phase(self.params, self.state, self.mean, self.grads, self.weight)
        self.params, self.state, self.mean = self.jax.block_until_ready(everything)
        self.weight = 1 - EMA_DECAY

    def parameters(self) -> list[Tensor]:
        return self.tensors(self.params)

    def averages(self) -> list[Tensor]:
        return self.tensors(self.mean)

    def tensors(self, arrays: list[Any]) -> list[Tensor]:
        """Return copies that torch owns."""
        return [torch.from_dlpack(array).clone() for array in arrays]

    def state_bytes(self) -> int:
        return sum(array.nbytes for array in self.jax.tree.leaves((self.state, self.mean)))
