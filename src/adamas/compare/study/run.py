"""One training run of a study, and its outcome."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from adamas.decay import to_independent

Stage = Literal["pilot", "search", "refine", "confirm", "sweep", "final"]
STAGES: tuple[Stage, ...] = get_args(Stage)
SEARCH_STAGES = ("search", "refine", "confirm")  # an arm's winner is chosen from runs of these stages
Status = Literal["ok", "diverged", "pruned", "failed"]


class Config(NamedTuple):
    """A learning rate and a weight decay of torch's convention, with which an arm trains."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Run:
    """A config with its arm, a seed, the stage of the study and the variant of the job."""

    stage: Stage
    arm: str
    lr: float
    weight_decay: float
    seed: int
    variant: str = ""

    @property
    def key(self) -> str:
        """The name of the run in the storage: two trials with one key would compute the same."""
        variant = f" {self.variant}" if self.variant else ""
        return f"{self.stage} {self.arm} lr={self.lr!r} weight_decay={self.weight_decay!r} seed={self.seed}{variant}"

    @property
    def config(self) -> Config:
        """The learning rate and the weight decay of the run."""
        return Config(self.lr, self.weight_decay)

    @property
    def weight_decay_paper(self) -> float:
        """The weight decay in the paper's convention, lr * weight_decay: the fraction taken off a weight in a step."""
        return to_independent(self.weight_decay, self.lr)


@dataclass(frozen=True)
class Request:
    """Runs that the search needs before it can go on.

    Attributes:
        runs: The runs, all of one stage.
        may_prune: Whether a run may be stopped half-way if it has learned nothing by then.
    """

    runs: tuple[Run, ...]
    may_prune: bool = False

    @property
    def stage(self) -> Stage:
        """The stage that all of these runs belong to."""
        return self.runs[0].stage


Requests = Generator[Request, "Mapping[Run, Outcome]"]  # the search asks, and is sent the outcomes


class Moment(NamedTuple):
    """A point on a run's curve.

    `training_loss` is the mean since the point before, `validation` the primary metric after `step` steps.
    """

    step: float
    training_loss: float
    validation: float


@dataclass(frozen=True)
class Outcome:
    """The figures of a finished run, or the reason why there are none.

    Attributes:
        status: "ok"; "diverged" where the training loss became inf or NaN; "failed" where the job raised an error, ran
            out of time or ended its process, or where the loss stayed finite and a figure of `evaluate` was inf or NaN;
            "pruned" where the run was stopped half-way, because it fitted its training data no better than the
            untrained weights did.
        validation: Validation figures by name; empty unless the status is "ok".
        test: Test figures by name; None in all runs but finalists.
        total_decay: D, the sum over steps of lr_t * weight_decay.
        steps: The number of optimizer steps taken.
        epochs: The number of epochs of the job.
        seconds: Wall time of the run; runs that trained together share their time equally.
        gradient_scale: The 10th, 50th and 90th percentile of sqrt(v_hat) over weights and time; in pilot runs only.
        untrained: Validation figures of the untrained weights; in pilot runs only.
        fit: Mean training loss around the middle of the run, as a fraction of the loss at its start; None if that was
            not above 0.
        training_loss: Mean training loss over the last twentieth of the run.
        curve: Points along the run; in finalists only.
        message: Why there are no figures, as a sentence; empty if the status is "ok".
    """

    status: Status
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
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the run ended with finite figures."""
        return self.status == "ok"

    @property
    def pruned(self) -> bool:
        """Whether the run was stopped half-way."""
        return self.status == "pruned"

    @property
    def steps_per_epoch(self) -> float:
        """The number of optimizer steps in an epoch; a fraction is possible where the job brings its own loop."""
        return self.steps / self.epochs if self.epochs else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """Read what `to_json` returned, after a trip through JSON."""
        scale = data["gradient_scale"]
        read: dict[str, Any] = {
            "gradient_scale": None if scale is None else tuple(scale),
            "curve": tuple(Moment(*moment) for moment in data["curve"]),
        }
        return cls(**(data | read))
