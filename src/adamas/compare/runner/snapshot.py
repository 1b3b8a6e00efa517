"""Read from the trials how far a study is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from statistics import median

from optuna.trial import FrozenTrial, TrialState

from adamas.compare.runner.trials import OUTCOME, RUN, TASK, run_of
from adamas.compare.study.run import SEARCH_STAGES, Stage
from adamas.compare.study.settings import Settings
from adamas.compare.study.snapshot import Best, Slow, Snapshot

_RECENT = 30  # finished runs from which the rate is computed
_SLOW = 5  # times the median time of a run; a run is told as slow beyond that
_SLOW_SECONDS = 30  # that a run told as slow has taken at least
_FIRST_SECONDS = 300  # the same where no run has finished yet


def snapshot(settings: Settings, expected: tuple[int, int], trials: Sequence[FrozenTrial], since: datetime) -> Snapshot:
    """Return how far a study is.

    Args:
        settings: The settings of the study.
        expected: The runs that the pilots begin with, and the runs of the whole study.
        trials: The trials of the study.
        since: The time at which this call of the tool began.
    """
    pilots, total = expected
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    failed = [trial.user_attrs[OUTCOME] for trial in finished if trial.user_attrs[OUTCOME]["status"] == "failed"]
    times = [(trial.datetime_start, trial.datetime_complete) for trial in finished]
    spans = [(start, end) for start, end in times if start and end]
    pilot_runs = {trial.user_attrs[RUN]["key"] for trial in trials if trial.user_attrs[RUN]["stage"] == "pilot"}
    return Snapshot(
        done=len({trial.user_attrs[RUN]["key"] for trial in finished}),
        total=total - pilots + max(pilots, len(pilot_runs)),
        running=sum(trial.state == TrialState.RUNNING for trial in trials),
        rate=rate(spans, since),
        metric=settings.workload.metric,
        best={arm: _best(arm, trials) for arm in settings.arms},
        titles={name: arm.title for name, arm in settings.arms.items()},
        failed=len(failed),
        failure=failed[-1].get("message", "") if failed else "",
        slow=slow(trials, spans, datetime.now()),
    )


def slow(trials: Sequence[FrozenTrial], spans: Sequence[tuple[datetime, datetime]], now: datetime) -> Slow | None:
    """Return the oldest of the running trials, if it takes much longer than the finished ones took.

    Args:
        trials: The trials of the study.
        spans: The start and the end of each finished run.
        now: The present time.
    """
    running = [trial for trial in trials if trial.state == TrialState.RUNNING and trial.datetime_start]
    oldest = min(running, key=lambda trial: trial.datetime_start or now, default=None)
    if oldest is None or oldest.datetime_start is None:
        return None
    usual = [(end - start).total_seconds() for start, end in spans]
    limit = max(_SLOW_SECONDS, _SLOW * median(usual)) if usual else _FIRST_SECONDS
    seconds = (now - oldest.datetime_start).total_seconds()
    others = sum(trial.user_attrs[TASK] == oldest.user_attrs[TASK] for trial in running) - 1
    return Slow(run_of(oldest), seconds, others) if seconds > limit else None


def rate(spans: Sequence[tuple[datetime, datetime]], since: datetime) -> float:
    """Return the runs per second of this call of the tool, over its latest runs.

    The time counts from the start of the first of these runs, because workers need seconds to start. It does not count
    from one end to the next: runs that train together end together, and would seem to take no time.

    Args:
        spans: The start and the end of each finished run.
        since: The time at which this call of the tool began.
    """
    latest = sorted((span for span in spans if span[1] > since), key=lambda span: span[1])[-_RECENT:]
    if not latest:
        return 0.0
    seconds = (latest[-1][1] - min(start for start, _ in latest)).total_seconds()
    return len(latest) / seconds if seconds > 0 else 0.0


def _best(arm: str, trials: Sequence[FrozenTrial]) -> Best:
    """Return how far an arm is, and the best run of its search."""
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
