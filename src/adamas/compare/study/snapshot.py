"""How far a study is: the data that the live display shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from adamas.compare.study.run import STAGES, Outcome, Run, Stage


@dataclass(frozen=True)
class Best:
    """How far one arm is, and the best of its runs.

    Attributes:
        stage: The stage that the arm has reached.
        run: The run with the lowest validation figure; None while no run has one.
        value: The validation figure of that run.
        done: The number of finished runs of the search.
        without_figures: How many of the finished runs have no figures.
    """

    stage: Stage
    run: Run | None
    value: float
    done: int
    without_figures: int


@dataclass(frozen=True)
class Slow:
    """A run that has been going for much longer than others took.

    Attributes:
        run: The run.
        seconds: The time since it began.
        others: The number of runs that train with it in one pass.
    """

    run: Run
    seconds: float
    others: int = 0


@dataclass(frozen=True)
class Snapshot:
    """How far a study is at one moment.

    Attributes:
        done: The number of finished runs, those of earlier calls included.
        total: The number of runs of the whole study, as far as it is known.
        running: The number of runs that are being trained.
        rate: Runs per second, over the latest runs; 0 until one has finished.
        metric: The primary metric, in which `best` is measured.
        best: How far each arm is, by the name of the arm.
        titles: The title of each arm in sentences, by its name.
        failed: The number of finished runs that failed.
        failure: Why the latest of them failed.
        slow: The oldest of the runs that are being trained, if it takes much longer than others took.
        ended: The runs that ended since the last snapshot of this call, with their outcomes.
    """

    done: int
    total: int
    running: int
    rate: float
    metric: str
    best: dict[str, Best]
    titles: dict[str, str]
    failed: int = 0
    failure: str = ""
    slow: Slow | None = None
    ended: dict[Run, Outcome] = field(default_factory=dict)

    @property
    def stage(self) -> Stage:
        """The stage of the arm that is furthest behind."""
        reached = {best.stage for best in self.best.values()}
        return next(stage for stage in STAGES if stage in reached)

    @property
    def seconds_left(self) -> float | None:
        """The time left at the present rate; None while the rate is unknown."""
        return (self.total - self.done) / self.rate if self.rate else None
