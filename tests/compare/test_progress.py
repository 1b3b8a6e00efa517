from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from adamas.compare.report.live import Progress, line, live_table, pace
from adamas.compare.runner.snapshot import rate
from adamas.compare.study.run import Run
from adamas.compare.study.snapshot import Best, Snapshot

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
