"""The adapters of optimizers that step torch's parameters: ours, torch's own in three variants, and other packages'.

The others differ in what is imported and how it is called, so that they are rows of a table.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor

from adamas.bench.peers.torch_training import TorchTraining, storage_bytes
from adamas.bench.rule import EMA_DECAY, MAX_NORM
from adamas.bench.scenario import Scenario
from adamas.torch import AdamW


class Ours(TorchTraining):
    """`adamas.torch.AdamW`, which takes a whole phase in one call."""

    name = "adamas"
    modules = ("adamas",)
    install = "adamas"
    exact = True

    def make(self, scenario: Scenario) -> Any:
        phase: dict[str, Any] = {"max_norm": MAX_NORM, "ema_decay": EMA_DECAY} if scenario.work == "phase" else {}
        return AdamW(self.params, **self.options, **phase, **scenario.storage)

    def phase(self) -> None:
        self.optimizer.step(zero_grad=True)

    def averages(self) -> list[Tensor]:
        with self.optimizer.averaged():
            return self.parameters()

    def state_bytes(self) -> int:
        return self.optimizer.state_bytes()

    def kernels(self) -> set[str]:
        return {kernel for _, kernel, _ in self.optimizer.kernel_choices()}


class Imported(TorchTraining):
    """An optimizer class found by its path, called with the options of the rule and some of its own."""

    path: ClassVar[str]
    extra: ClassVar[dict[str, Any]] = {}

    def make(self, scenario: Scenario) -> Any:
        module, _, name = self.path.rpartition(".")
        return getattr(import_module(module), name)(self.params, **self.options, **self.extra)


class FlashOptim(Imported):
    """`flashoptim.FlashAdamW`, for GPUs: 8-bit moments; 16-bit parameters are the upper part of 24-bit weights."""

    name = "flashoptim"
    modules = ("flashoptim",)
    install = "flashoptim"
    path = "flashoptim.FlashAdamW"

    def make(self, scenario: Scenario) -> Any:
        # It refuses master weights for parameters that need none.
        self.options["master_weight_bits"] = 24 if scenario.dtype in ("bfloat16", "float16") else None
        return super().make(scenario)

    def state_bytes(self) -> int:
        held = [value for state in self.optimizer.state.values() for value in state.values()]
        # Its quantized moments are objects that hold tensors.
        parts = [x for value in held for x in (value, *getattr(value, "__dict__", {}).values())]
        return sum(storage_bytes(x) for x in [*parts, *self.mean] if isinstance(x, Tensor))


def imported(name: str, path: str, install: str, exact: bool = False, **extra: Any) -> type[Imported]:
    """Return an adapter for the optimizer class at `path`."""
    fields = {"name": name, "path": path, "modules": (path.split(".")[0],), "install": install}
    return type(name, (Imported,), {**fields, "exact": exact, "extra": extra})


Torch = imported("torch", "torch.optim.AdamW", "torch", exact=True)  # on a CPU a loop over the parameters
TorchForeach = imported("torch-foreach", "torch.optim.AdamW", "torch", exact=True, foreach=True)
TorchFused = imported("torch-fused", "torch.optim.AdamW", "torch", exact=True, fused=True)  # the best of torch
# It chooses its implementation itself, and Kahan summation for 16-bit parameters.
Optimi = imported("optimi", "optimi.AdamW", "torch-optimi")
BitsAndBytes = imported("bitsandbytes", "bitsandbytes.optim.AdamW", "bitsandbytes")
# The next three keep full moments of parameters with fewer than 4,096 elements. torchao compiles for each shape.
BitsAndBytes8 = imported("bitsandbytes-8bit", "bitsandbytes.optim.AdamW8bit", "bitsandbytes")
TorchAO8 = imported("torchao-8bit", "torchao.optim.AdamW8bit", "torchao")
TorchAO4 = imported("torchao-4bit", "torchao.optim.AdamW4bit", "torchao")
# NVIDIA's apex, for GPUs, with decoupled decay; the package that PyPI calls apex is another one.
APEX = "git+https://github.com/NVIDIA/apex (needs nvcc)"
ApexFused = imported("apex-fused", "apex.optimizers.FusedAdam", APEX, adam_w_mode=True)
