"""What an implementation must offer to be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from adamas.bench.scenario import Scenario


class Peer(ABC):
    """An optimizer with its parameters, built for one scenario. Made only where its modules can be imported.

    What it holds it may change; what it is given it may not.

    Attributes:
        name: what the user types.
        modules: that must be importable.
        install: what `pip install` needs for that.
        exact: follows the same rule to rounding, and is held equal to ours; others are reported with their error.
        eps_mode: where epsilon is added, as `adamas.scalars.Hyper` has it.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    install: ClassVar[str]
    exact: ClassVar[bool] = False
    eps_mode: ClassVar[Literal["alg1", "hat"]] = "alg1"

    @classmethod
    def refuses(cls, scenario: Scenario) -> str | None:
        """Why this implementation cannot run a scenario; None if it can."""
        return None

    @abstractmethod
    def __init__(self, scenario: Scenario, params: list[Tensor]) -> None:
        """Take the values of the parameters, which are not to be changed."""

    @abstractmethod
    def give(self, grads: list[Tensor]) -> None:
        """Take the values of the gradients, which are not to be changed. Outside the clock."""

    def ready(self) -> None:  # noqa: B027 - most have nothing to do
        """Put back what the last call cleared. Outside the clock."""

    @abstractmethod
    def step(self) -> None:
        """Take one step; return when it is done, or queued where parameters lie on a GPU."""

    @abstractmethod
    def phase(self) -> None:
        """Clip, step, average, clear the gradients; return as `step` does."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """Copies of the parameters."""

    @abstractmethod
    def averages(self) -> list[Tensor]:
        """Copies of the averages; after a phase only."""

    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes held beyond parameters and gradients."""
