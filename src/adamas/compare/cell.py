"""A cell: one training run that a study wants, and the outcome of that run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from adamas.decay import to_independent

Stage = Literal["pilot", "search", "refine", "confirm", "final"]


@dataclass(frozen=True)
class Cell:
    """One run: what is trained with, from which seed, for which stage of the study."""

    stage: Stage
    arm: str
    lr: float
    weight_decay: float
    seed: int

    @property
    def key(self) -> str:
        """Identity of the run in the storage: two trials of one key would be the same computation."""
        return f"{self.stage} {self.arm} lr={self.lr!r} weight_decay={self.weight_decay!r} seed={self.seed}"

    @property
    def weight_decay_independent(self) -> float:
        """The paper's lambda: what is taken off each weight in a step, lr * weight_decay."""
        return to_independent(self.weight_decay, self.lr)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        feasible: False where the loss or a figure became infinite or NaN.
        validation: figures by name; empty where infeasible.
        test: the same on the test split; None except in finalists.
        total_decay: D, the sum over steps of lr_t * weight_decay.
        steps: optimizer steps taken.
        steps_per_epoch: of the job.
        epochs: of the job.
        seconds: wall time of the run.
        gradient_scale: 10th, 50th and 90th percentile of sqrt(v_hat) over weights and time; in pilot runs only.
    """

    feasible: bool
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] | None = None
    total_decay: float = 0.0
    steps: int = 0
    steps_per_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    gradient_scale: tuple[float, float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """Inverse of `to_json`, after a trip through JSON."""
        scale = data["gradient_scale"]
        return replace(cls(**data), gradient_scale=None if scale is None else tuple(scale))
