"""A cell: one training run that a study wants, and the outcome of that run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from adamas.decay import to_independent

Stage = Literal["pilot", "search", "extend", "refine", "confirm", "sweep", "final"]
STAGES: tuple[Stage, ...] = get_args(Stage)
SEARCH_STAGES = ("search", "extend", "refine", "confirm")  # what an arm's winner is chosen from


@dataclass(frozen=True)
class Cell:
    """One run: what is trained with, from which seed, for which stage of the study, on which variant of the job."""

    stage: Stage
    arm: str
    lr: float
    weight_decay: float
    seed: int
    variant: str = ""

    @property
    def key(self) -> str:
        """Identity of the run in the storage: two trials of one key would be the same computation."""
        variant = f" {self.variant}" if self.variant else ""
        return f"{self.stage} {self.arm} lr={self.lr!r} weight_decay={self.weight_decay!r} seed={self.seed}{variant}"

    @property
    def weight_decay_independent(self) -> float:
        """The paper's lambda: what is taken off each weight in a step, lr * weight_decay."""
        return to_independent(self.weight_decay, self.lr)


class Moment(NamedTuple):
    """A look at a run: after `step` steps, the mean training loss since the last look, and the validation metric."""

    step: float
    training_loss: float
    validation: float


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        feasible: False where the loss or a figure became infinite or NaN, and where the run was given up.
        given_up: stopped half-way, because it fitted its training data no better than the untrained weights.
        validation: figures by name; empty where infeasible.
        test: the same on the test split; None except in finalists.
        total_decay: D, the sum over steps of lr_t * weight_decay.
        steps: optimizer steps taken.
        epochs: of the job.
        seconds: wall time of the run; of runs that trained together, an equal share.
        gradient_scale: 10th, 50th and 90th percentile of sqrt(v_hat) over weights and time; in pilot runs only.
        untrained: validation figures of the untrained weights; in pilot runs only.
        fit: mean training loss around the middle of the run, as a fraction of that at its start; None if that was <= 0.
        training_loss: mean over the last twentieth of the run.
        curve: looks at the run on its way; in finalists only.
    """

    feasible: bool
    given_up: bool = False
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] | None = None
    total_decay: float = 0.0
    steps: int = 0
    epochs: int = 0
    seconds: float = 0.0
    gradient_scale: tuple[float, float, float] | None = None
    untrained: dict[str, float] | None = None
    fit: float | None = None
    training_loss: float | None = None
    curve: tuple[Moment, ...] = ()

    @property
    def steps_per_epoch(self) -> float:
        """M; no whole number where the job's own loop says how many steps there are."""
        return self.steps / self.epochs if self.epochs else 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """Inverse of `to_json`, after a trip through JSON."""
        scale = data["gradient_scale"]
        read: dict[str, Any] = {
            "gradient_scale": None if scale is None else tuple(scale),
            "curve": tuple(Moment(*moment) for moment in data["curve"]),
        }
        return cls(**(data | read))
