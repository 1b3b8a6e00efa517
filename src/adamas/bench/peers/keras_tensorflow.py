"""The adapter of Keras 3 on TensorFlow, compiled by XLA as Keras' own training loop is: up to 5 times faster."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from adamas.bench.peers.contract import Peer
from adamas.bench.rule import BETA1, BETA2, EMA_DECAY, LR, MAX_NORM, WEIGHT_DECAY, eps
from adamas.bench.scenario import Scenario


class Keras(Peer):
    """`keras.optimizers.AdamW`, which clips and averages inside its own step."""

    name = "keras"
    modules = ("keras", "tensorflow")
    install = "keras tensorflow-cpu"
    eps_mode = "hat"
    jit_compile: ClassVar[bool] = True
    side_by_side: ClassVar[bool] = False  # whether TensorFlow runs several operations at a time, as it does by default

    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        self.keras, self.tf = import_module("keras"), import_module("tensorflow")
        if self.keras.backend.backend() != "tensorflow":
            raise RuntimeError(f"the backend is {self.keras.backend.backend()}; set KERAS_BACKEND=tensorflow")
        threads = torch.get_num_threads()
        self.tf.config.threading.set_intra_op_parallelism_threads(threads)
        self.tf.config.threading.set_inter_op_parallelism_threads(threads if self.side_by_side else 1)
        phase = {"global_clipnorm": MAX_NORM, "use_ema": True, "ema_momentum": EMA_DECAY}
        self.optimizer = self.make(
            learning_rate=LR,
            weight_decay=WEIGHT_DECAY,
            beta_1=BETA1,
            beta_2=BETA2,
            epsilon=eps(scenario.dtype),
            **(phase if scenario.work == "phase" else {}),
        )
        self.dtype = scenario.dtype
        self.variables = [self.keras.Variable(numpy(param), dtype=self.dtype) for param in params]
        self.optimizer.build(self.variables)
        self.compiled = self.tf.function(self.apply, jit_compile=self.jit_compile)
        # The first function of a process takes longer than all later ones. It must not be one of the measured ones.
        self.tf.function(lambda x: x + 1, jit_compile=self.jit_compile)(self.tf.constant(0.0))

    def make(self, **options: Any) -> Any:
        """Return the optimizer with these options."""
        return self.keras.optimizers.AdamW(**options)

    def apply(self, grads: list[Any]) -> None:
        """Apply the gradients; this function is compiled."""
        self.optimizer.apply(grads, self.variables)

    def give(self, grads: list[Tensor]) -> None:
        self.grads = [self.tf.constant(numpy(grad), dtype=self.dtype) for grad in grads]

    def step(self) -> None:
        self.compiled(self.grads)

    phase = step

    def parameters(self) -> list[Tensor]:
        return [self.tensor(variable) for variable in self.variables]

    def averages(self) -> list[Tensor]:
        return [self.tensor(variable) for variable in self.optimizer._model_variables_moving_average]

    def tensor(self, variable: Any) -> Tensor:
        """Return a copy for torch, through float32 or float64, since NumPy has no bfloat16."""
        wide = "float64" if self.dtype == "float64" else "float32"
        return torch.tensor(self.tf.cast(variable.value, wide).numpy()).to(getattr(torch, self.dtype))

    def state_bytes(self) -> int:
        return sum(variable.value.numpy().nbytes for variable in self.optimizer.variables)


def numpy(tensor: Tensor) -> Any:
    """Return the values as a NumPy array, in float32 or float64, since NumPy has no bfloat16."""
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()
