"""The adapters of our fronts for JAX and Keras, and of the optimizers that each of them takes the place of."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from adamas.bench.peers.keras_tensorflow import Keras
from adamas.bench.peers.optax_jit import Functions, Optax
from adamas.bench.rule import BETA1, BETA2, EMA_DECAY, LR, MAX_NORM, WEIGHT_DECAY, eps
from adamas.bench.scenario import Scenario


class OursJaxAdamW(Optax):
    """`adamas.jax.adamw`, a transformation of optax like any other."""

    name = "adamas.jax.adamw"

    def transformation(self, scenario: Scenario) -> Any:
        options = {"weight_decay": WEIGHT_DECAY, **scenario.storage}
        return import_module("adamas.jax").adamw(LR, BETA1, BETA2, eps(scenario.dtype), **options)


class OursJaxFused(Optax):
    """`adamas.jax.fused_adamw`, which takes a whole phase in one call."""

    name = "adamas.jax.fused_adamw"

    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        super().__init__(scenario, params)
        self.mean = []  # it is in the state

    def make(self, scenario: Scenario) -> Functions:
        phase: dict[str, Any] = {"max_norm": MAX_NORM, "ema_decay": EMA_DECAY} if scenario.work == "phase" else {}
        options = {"weight_decay": WEIGHT_DECAY, **phase, **scenario.storage}
        self.optimizer = import_module("adamas.jax").fused_adamw(LR, BETA1, BETA2, eps(scenario.dtype), **options)
        return self.optimizer.init, self.optimizer.step

    def phase(self) -> None:
        self.step()

    def averages(self) -> list[Tensor]:
        return self.tensors(self.optimizer.averages(self.state))


class JaxAdamW(Optax):
    """`optax.adamw` beside a transformation of ours."""

    name = "jax-adamw"
    ours = OursJaxAdamW
    compiles = True


class JaxFused(JaxAdamW):
    """`optax.adamw` beside our step in place."""

    name = "jax-fused"
    ours = OursJaxFused


class OursKerasXla(Keras):
    """`adamas.keras.AdamW` with the conventions of Keras, in a function that XLA compiles."""

    name = "adamas.keras, XLA"
    side_by_side = True

    def make(self, **options: Any) -> Any:
        return import_module("adamas.keras").AdamW(like="keras", **options)


class OursKerasFit(OursKerasXla):
    """The same in a function that TensorFlow runs, as `fit` does on a CPU."""

    name = "adamas.keras"
    jit_compile = False


class KerasXla(Keras):
    """`keras.optimizers.AdamW` in a function that XLA compiles."""

    name = "keras-xla"
    ours = OursKerasXla
    compiles = True
    side_by_side = True


class KerasFit(KerasXla):
    """The same in a function that TensorFlow runs, as `fit` does on a CPU."""

    name = "keras-fit"
    ours = OursKerasFit
    jit_compile = False
