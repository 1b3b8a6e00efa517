"""How far a study is: what the live display shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from adamas.compare.runner.trials import RUN, run_of
from adamas.compare.study.run import SEARCH_STAGES, STAGES, Run, Stage
from adamas.compare.study.settings import Settings

RECENT = 30  # finished runs that the rate is taken over


@dataclass(frozen=True)
class Best:
    """The best run of an arm so far, by validation, how many it has finished, and the stage that it has come to."""

    stage: Stage
    run: Run | None
    value: float
    done: int
    without_figures: int


@dataclass(frozen=True)
class Snapshot:
    """A study at a moment.

    Attributes:
        done: finished runs, earlier runs of the tool included.
        total: runs of the whole study, as far as they are known.
        running: runs at work.
        rate: runs finished a second of late; 0 until one has.
        metric: what `best` is measured in.
        best: by arm.
        titles: how sentences call each arm.
    """

    done: int
    total: int
    running: int
    rate: float
    metric: str
    best: dict[str, Best]
    titles: dict[str, str]

    @property
    def stage(self) -> Stage:
        """The stage of the arm that is furthest behind."""
        at_work = {best.stage for best in self.best.values()}
        return next(stage for stage in STAGES if stage in at_work)

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate; None while unknown."""
        return (self.total - self.done) / self.rate if self.rate else None


def snapshot(settings: Settings, expected: tuple[int, int], trials: Sequence[FrozenTrial], since: datetime) -> Snapshot:
    """Look at the trials of a study.

    Args:
        settings: what the user asked for.
        expected: The runs that the pilots begin with, and the runs of the whole study.
        trials: The trials of the study.
        since: when this run of the tool began.
    """
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pilots, total = expected
    return Snapshot(
        done=len({trial.user_attrs[RUN]["key"] for trial in finished}),
        total=total - pilots + max(pilots, pilot_runs(trials)),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        rate=rate(
            [
                (trial.datetime_start, trial.datetime_complete)
                for trial in finished
                if trial.datetime_start and trial.datetime_complete
            ],
            since,
        ),
        metric=settings.workload.metric,
        best={arm: best_of(arm, trials) for arm in settings.arms},
        titles={name: arm.title for name, arm in settings.arms.items()},
    )


def pilot_runs(trials: Sequence[FrozenTrial]) -> int:
    """Runs of the pilots so far."""
    return len({trial.user_attrs[RUN]["key"] for trial in trials if trial.user_attrs[RUN]["stage"] == "pilot"})


def rate(spans: Sequence[tuple[datetime, datetime]], since: datetime) -> float:
    """Runs a second over the latest of this run of the tool, from the start of the first of them.

    Workers take seconds to start, which is not counted. Runs that trained together end together: from end to end a
    stack would seem to take no time.

    Args:
        spans: start and end of each finished run.
        since: when this run of the tool began.
    """
    latest = sorted((span for span in spans if span[1] > since), key=lambda span: span[1])[-RECENT:]
    if not latest:
        return 0.0
    seconds = (latest[-1][1] - min(start for start, _ in latest)).total_seconds()
    return len(latest) / seconds if seconds > 0 else 0.0


def best_of(arm: str, trials: Sequence[FrozenTrial]) -> Best:
    """The best of an arm's search runs."""
    own = [trial for trial in trials if trial.user_attrs[RUN]["arm"] == arm]
    finished = [
        (trial.values[0], run_of(trial))
        for trial in own
        if trial.state == TrialState.COMPLETE and trial.user_attrs[RUN]["stage"] in SEARCH_STAGES
    ]
    ok = [each for each in finished if math.isfinite(each[0])]
    value, run = min(ok, key=lambda each: each[0], default=(math.nan, None))
    stage: Stage = own[-1].user_attrs[RUN]["stage"] if own else "pilot"
    return Best(stage, run, value, len(finished), len(finished) - len(ok))
