"""The contract: what an implementation must offer to be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from adamas.bench.scenario import STEPS, Scenario


class Peer(ABC):
    """An optimizer with its parameters, built for one scenario; it is made only where its modules can be imported.

    An implementation may change the tensors that it holds, but not the tensors that it is given.

    Attributes:
        name: name that the user types.
        modules: modules that must be importable.
        install: what `pip install` needs to provide the modules.
        exact: whether it follows our rule to rounding and is held equal to ours; others are shown with their error.
        eps_mode: where epsilon is added, in the words of `adamas.scalars.Hyper`.
        ours: our implementation that it is measured beside; None for `adamas.torch.AdamW`.
        compiles: whether the first call compiles, so that its time is shown on a CPU too.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    install: ClassVar[str]
    exact: ClassVar[bool] = False
    eps_mode: ClassVar[Literal["alg1", "hat"]] = "alg1"
    ours: ClassVar[type[Peer] | None] = None
    compiles: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        """Copy the values of the parameters, and make the optimizer."""

    @abstractmethod
    def give(self, grads: list[Tensor]) -> None:
        """Copy the values of the gradients; this is not timed."""

    def ready(self) -> None:  # noqa: B027 - most implementations have nothing to do
        """Put back what the last call cleared; this is not timed."""

    @abstractmethod
    def step(self) -> None:
        """Take one step; return when it is done, or queued where parameters lie on a GPU."""

    def ten_steps(self) -> None:
        """Take `STEPS` steps, in one compiled function where the framework has loops for that."""
        for _ in range(STEPS):
            self.step()

    @abstractmethod
    def phase(self) -> None:
        """Clip, step, average and clear the gradients; return as `step` does."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """Return copies of the parameters."""

    @abstractmethod
    def averages(self) -> list[Tensor]:
        """Return copies of the averages of the weights; there are none before the first phase."""

    @abstractmethod
    def state_bytes(self) -> int:
        """Return the bytes that are held beyond parameters and gradients."""

    def kernels(self) -> set[str]:
        """Return the names of our kernels that step the parameters; empty where they are not known by name."""
        return set()
