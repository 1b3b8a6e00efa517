"""The variants that parity compares: optimizers by name, and the hyperparameters that they all train with."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import adamas

BASELINE = "float32"
PERTURBATION = 1e-6  # relative change of each weight: about ten roundings of float32

Groups = Sequence[dict[str, Any]]
Factory = Callable[[Groups, float, float, int], Optimizer]  # takes groups, lr, weight decay and a seed


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters that every variant trains a workload with, and why."""

    lr: float
    weight_decay: float
    why: str


RECIPES = {
    "chars": Recipe(
        4e-3,
        1.0,
        "Lowest validation loss of float32 among lr 2e-3, 4e-3, 6e-3 and weight decay .3, 1, 3: well fitted, and decay "
        "acts (the sum of lr * weight decay over the steps is 1.5).",
    ),
    "digits": Recipe(
        1e-3,
        3.0,
        "Within 1.5 % of the lowest validation loss of float32 among lr 1e-4 to 3e-3 and weight decay .1 to 10; the "
        "lowest, at lr 3e-4 and 1, hardly decays (that sum is .09 there, and .9 here), and at lr 1e-3 with 1 the "
        "network already memorises noise.",
    ),
}


def optimizer(path: str, **arguments: Any) -> Factory:
    """Return a factory for the optimizer class at `path`; ours gets the seed of its random rounding too.

    With a seed of its own for each run, pairs do not share their luck.
    """

    def build(groups: Groups, lr: float, weight_decay: float, seed: int) -> Optimizer:
        module, _, name = path.rpartition(".")
        seeded = {"seed": seed} if path.startswith("adamas.") else {}
        return getattr(import_module(module), name)(groups, lr=lr, weight_decay=weight_decay, **seeded, **arguments)

    return build


def ours(**arguments: Any) -> Factory:
    """Return a factory for `adamas.torch.AdamW`."""
    return optimizer("adamas.torch.AdamW", **arguments)


def in_bfloat16(model: nn.Module, seed: int) -> None:
    """Put weights and arithmetic into bfloat16; inputs and outputs stay float32, so that losses compare."""

    def narrowed(tensor: Tensor) -> Tensor:
        return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor

    model.to(torch.bfloat16)
    model.register_forward_pre_hook(lambda _, inputs: tuple(map(narrowed, inputs)))
    model.register_forward_hook(lambda _, inputs, output: output.float())


def perturbed(model: nn.Module, seed: int) -> None:
    """Change every weight by about a millionth, from a random stream of its own."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(1.0 + PERTURBATION * torch.randn(param.shape, generator=random))


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: key in the results.
        build: factory of the optimizer.
        prepare: changes the model before training, given the seed.
        package: package that must be installed beside Adamas.
        limit: highest allowed upper end of the interval of the relative difference; None where nothing is promised.
    """

    name: str
    build: Factory
    prepare: Callable[[nn.Module, int], None] | None = None
    package: str | None = None
    limit: float | None = None

    @property
    def missing(self) -> bool:
        """Whether its package is not installed."""
        return self.package is not None and find_spec(self.package) is None

    def versions(self) -> dict[str, str]:
        """Return the versions of everything that a run depends on."""
        found = {"adamas": adamas.__version__, "torch": torch.__version__, "python": platform.python_version()}
        return found | ({} if self.package is None else {self.package: version(self.package)})


BITSANDBYTES = optimizer("bitsandbytes.optim.AdamW8bit", min_8bit_size=4096)
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(BASELINE, ours()),
        Variant("float32 perturbed", ours(), perturbed),  # how far rounding alone moves the loss
        Variant("bfloat16", ours(state_dtype="bfloat16"), limit=0.01),
        Variant("packed16", ours(state_dtype="packed16"), limit=0.01),
        Variant("packed12", ours(state_dtype="packed12"), limit=0.02),
        Variant("bf16+32", ours(master_weight_bits=32), in_bfloat16),  # bfloat16's arithmetic, and nothing else
        Variant("bf16+24", ours(state_dtype="packed16", master_weight_bits=24), in_bfloat16, limit=0.01),
        Variant("bf16 stochastic", ours(stochastic_rounding=True), in_bfloat16),
        Variant("bitsandbytes-8bit", BITSANDBYTES, package="bitsandbytes"),
        Variant("torchao-8bit", optimizer("torchao.optim.AdamW8bit"), package="torchao"),
    )
}
