from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from adamas.compare.report.live import Progress, line, live_table, pace, slow_sentence
from adamas.compare.runner.snapshot import rate, slow
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.trials import waiting_trial
from adamas.compare.study.run import Run
from adamas.compare.study.snapshot import Best, Slow, Snapshot

RUN = Run("search", "adamw", 3e-4, 2.27, 0)
EMPTY = Best("search", None, float("nan"), 0, 0)
SNAPSHOT = Snapshot(
    done=30,
    total=150,
    running=2,
    rate=1.5,
    metric="cross_entropy",
    best={"none": EMPTY, "adam_l2": EMPTY, "adamw": Best("refine", RUN, 1.2345678, 12, 3)},
    titles={"none": "Adam without decay", "adam_l2": "Adam with L2", "adamw": "AdamW"},
)
AHEAD = replace(SNAPSHOT, done=40, best={**SNAPSHOT.best, "adamw": replace(SNAPSHOT.best["adamw"], stage="final")})
NOON = datetime(2024, 1, 1, 12)


def spans(*seconds: tuple[float, float]) -> list[tuple[datetime, datetime]]:
    return [(NOON + timedelta(seconds=start), NOON + timedelta(seconds=end)) for start, end in seconds]


def test_the_rate_leaves_out_the_start_and_earlier_runs() -> None:
    assert rate(spans((-110, -100), (18, 20), (20, 22), (22, 24)), NOON) == pytest.approx(0.5)
    assert rate(spans(*((end - 1, end) for end in range(100, 0, -1))), NOON) == pytest.approx(1.0)
    assert rate(spans((-9, -1)), NOON) == rate([], NOON) == 0.0


def test_the_rate_counts_all_runs_that_train_together() -> None:
    """Two workers train ten runs each in one pass, and all of them end at once."""
    assert rate(spans(*[(5, 10)] * 20), NOON) == pytest.approx(4.0)


def test_pace_says_the_time_left() -> None:
    assert pace(SNAPSHOT) == "90 a minute, about 1 min 20 s left"
    assert pace(replace(SNAPSHOT, done=120)) == "90 a minute, about 20 s left"
    assert pace(replace(SNAPSHOT, rate=0.0)) == "workers are starting"
    assert pace(replace(SNAPSHOT, done=150, rate=0.0)) == "finished"


def test_plain_lines_are_few_and_complete() -> None:
    """A line appears when the last arm has left a stage, not when the first one has."""
    further = replace(AHEAD, best=dict.fromkeys(SNAPSHOT.best, AHEAD.best["adamw"]))
    text = io.StringIO()
    with Progress(Console(file=text, width=40)) as update:
        for done in range(30, 40):
            update(replace(SNAPSHOT, done=done))
        update(AHEAD)
        update(further)
    assert text.getvalue().splitlines() == [line(SNAPSHOT), line(further)]
    assert line(SNAPSHOT).startswith("30/150 runs, ")
    assert line(SNAPSHOT).endswith("; none search, adam_l2 search, adamw refine 1.235")


def test_the_live_table_shows_each_arm_at_its_best() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(live_table(SNAPSHOT))
    row = next(row for row in text.getvalue().splitlines() if row.strip().startswith("AdamW"))
    assert row.split() == ["AdamW", "refine", "12", "1.235", "0.0003", "2.27", "0.000681", "3"]
    assert "search: each arm" in text.getvalue()
    assert "final: " not in text.getvalue()


def trial(state: TrialState, seconds: float, lr: float = 0.1) -> FrozenTrial:
    """Return a trial that began so many seconds before noon, or that ended at noon after so many seconds."""
    given = replace(RUN, lr=lr)
    made = waiting_trial(given, Task((given,), "loss"))
    made.state, made.datetime_start = state, NOON - timedelta(seconds=seconds)
    return made


def test_a_run_is_slow_beside_the_others() -> None:
    running = [trial(TrialState.RUNNING, 100, lr=0.2), trial(TrialState.RUNNING, 20)]
    found = slow(running, spans((0, 4), (0, 6), (0, 30)), NOON)
    assert found is not None
    assert (found.run.lr, found.seconds, found.others) == (0.2, 100, 0)
    assert slow(running, spans((0, 21)), NOON) is None  # not five times as long
    assert slow(running[1:], spans((0, 1)), NOON) is None  # not half a minute
    assert slow(running, [], NOON) is None  # the first runs of a study may take some minutes
    assert slow([trial(TrialState.RUNNING, 301)], [], NOON) is not None
    assert slow([], spans((0, 1)), NOON) is None


def test_a_slow_run_and_failed_runs_are_shown() -> None:
    snapshot = replace(SNAPSHOT, failed=2, failure="ValueError: no data", slow=Slow(RUN, 241.0))
    said = "adamas: one run has been going for 4 min 01 s: adamw lr=0.0003 weight_decay=2.27 seed=0; --timeout ends"
    text = io.StringIO()
    Console(file=text, width=150).print(live_table(snapshot))
    assert said in text.getvalue()
    assert "2 failed, the latest: ValueError: no data" in text.getvalue()
    text = io.StringIO()
    with Progress(Console(file=text)) as update:
        for seconds in (241.0, 242.0):
            update(replace(snapshot, slow=Slow(RUN, seconds)))
    assert text.getvalue().count(said) == 1
    assert text.getvalue().startswith("30/150 runs, 2 failed, ")
    assert slow_sentence(Slow(RUN, 40.0, others=3)).startswith("adamas: 4 runs in one pass have been going for 40 s: ")
