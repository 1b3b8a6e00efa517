"""Runs that raise an error, hang, end their process, print a lot or leave processes behind: other runs go on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adamas.compare.api import conduct, run_study
from adamas.compare.report.live import failed_lines
from adamas.compare.runner import output
from adamas.compare.runner.process import MARK, end_marked
from adamas.compare.search.record import Record
from adamas.compare.study.errors import JobFailedError
from adamas.compare.study.run import Outcome
from adamas.compare.study.settings import Options, Settings
from adamas.compare.study.snapshot import Snapshot
from tests.compare.hostile_job import BEHAVIOUR, GUILTY, SLEEPS
from tests.compare.studies import finished
from tests.compare.tiny_job import RUNS, settings


def hostile(out: Path, workers: int, **changes: Any) -> Settings:
    given = settings(out, workers, **changes)
    return replace(given, workload=replace(given.workload, factory="tests.compare.hostile_job:job"))


def outcomes_of(record: Record) -> dict[str, dict[str, Any]]:
    return {run.key: {**outcome.to_json(), "seconds": 0} for run, outcome in record.outcomes.items()}


def failures(record: Record) -> dict[str, str]:
    return {run.key: outcome.message for run, outcome in record.outcomes.items() if outcome.status != "ok"}


def check_guilty(record: Record, message: str) -> None:
    """The two runs that misbehave failed with this message, and no other run did."""
    found = failures(record)
    assert found.keys() == GUILTY
    assert all(re.fullmatch(message, said) for said in found.values()), found


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("raises", r"ValueError: a rate that is too high \(.*hostile_job.py, line \d+\)"),
        ("exits", r"the job called sys.exit\(3\) \(.*hostile_job.py, line \d+\)"),
    ],
)
@pytest.mark.usefixtures("forked_workers")
def test_an_error_in_a_run_is_its_outcome(
    behaviour: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that shares its pass is found, and the figures of the others do not depend on the runner."""
    monkeypatch.setenv(BEHAVIOUR, behaviour)
    seen: list[Snapshot] = []
    records = [conduct(hostile(tmp_path / str(workers), workers), seen.append) for workers in (0, 2)]
    for record in records:
        check_guilty(record, message)
        first, second = failed_lines(record.outcomes)
        assert first == f"2 of {RUNS} runs failed:"
        assert second.startswith("  2 x ")
    assert outcomes_of(records[0]) == outcomes_of(records[1])
    assert seen[-1].failed == 2
    assert re.fullmatch(message, seen[-1].failure)
    assert [len(list((tmp_path / name).rglob("*.log"))) for name in "02"] == [0, 3]  # alone, together, again alone
    before = finished(records[0].settings)
    assert outcomes_of(conduct(records[0].settings, seen.append)) == outcomes_of(records[0])
    assert finished(records[0].settings) == before


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("dies", r"its worker process ended with exit code 3 \(os._exit, a crash or the out-of-memory killer\)"),
        ("hangs", r"did not end within 4 s \(--timeout\)"),
        ("asks", r"\w+Error: (breakpoint\(\): )?a job in a worker process has no terminal; give workers=0 .*"),
    ],
)
@pytest.mark.usefixtures("forked_workers")
def test_a_run_that_never_returns_has_failed(
    behaviour: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BEHAVIOUR, behaviour)
    record = conduct(hostile(tmp_path, 2, timeout=4.0 if behaviour == "hangs" else None), lambda snapshot: None)
    check_guilty(record, message)
    assert len(finished(record.settings)) == RUNS
    if behaviour == "hangs":  # the log says where
        logs = "".join(path.read_text() for path in (tmp_path / "logs").rglob("*.log"))
        assert "in misbehave" in logs


def test_what_runs_print_has_a_log_with_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BEHAVIOUR, "prints")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "0")
    record = conduct(hostile(tmp_path, 1), lambda snapshot: None)
    assert failures(record) == {}
    logs = sorted((tmp_path / "logs" / "tiny").iterdir())
    assert len(logs) == 2  # other runs print nothing
    assert "pilot none lr=0.1" in logs[0].name
    assert "and" in logs[1].name
    for log in logs:
        text = log.read_text()
        assert output.MOST < len(text) < output.MOST + 100
        assert text.startswith("a line of Python, with an \\xe9\nof a process\nof its errors\nxxx")
        assert text.endswith("[adamas: the log ends here, at 1,000,000 bytes; the run went on]\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "trials.db"]


def sleeping() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if SLEEPS.encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            pass
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes through /proc")
@pytest.mark.usefixtures("forked_workers")
def test_processes_that_a_job_leaves_behind_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those in sessions of their own, those whose parent is gone, and those that ignore SIGTERM."""
    monkeypatch.setenv(BEHAVIOUR, "leaves processes")
    most = 0

    def watch(snapshot: Snapshot) -> None:
        nonlocal most
        most = max(most, len(sleeping()))

    record = conduct(hostile(tmp_path, 2), watch)
    assert failures(record) == {}
    assert most >= 8
    assert sleeping() == []


def test_processes_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    monkeypatch.setenv(MARK, "another")
    with subprocess.Popen(["sleep", "60"]) as process:
        end_marked("mine")
        assert process.poll() is None
        end_marked("another")
        assert process.wait(10) != 0


def test_a_job_that_always_fails_ends_the_study_and_may_be_repaired(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match=r"(?s)^3 of 3 finished runs failed.*lr=.*Traceback.*no data here"):
        conduct(settings(tmp_path, factory="broken_job"), lambda snapshot: None)
    record = conduct(settings(tmp_path), lambda snapshot: None)
    assert failures(record) == {}
    assert len(record.outcomes) == RUNS


def test_more_than_a_third_of_the_runs_may_not_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adamas.compare.runner import worker

    def train_task(factory: Any, device: str, arms: Any, task: Any) -> list[Outcome]:
        if task.runs[0].lr >= 0.3:
            raise FloatingPointError("NaN")
        return [
            Outcome("ok", {"loss": 1 - run.lr}, steps=4, epochs=1, gradient_scale=(1.0, 1.0, 1.0)) for run in task.runs
        ]

    monkeypatch.setattr(worker, "train_task", train_task)
    given = settings(tmp_path)
    given = replace(given, workload=replace(given.workload, stackable=False))
    with pytest.raises(JobFailedError, match=r"of \d\d? finished runs failed"):
        conduct(given, lambda snapshot: None)


def test_a_limit_of_time_is_checked() -> None:
    with pytest.raises(ValueError, match="timeout=0 must be > 0"):
        Options.read(timeout=0)
    with pytest.raises(ValueError, match="timeout=30 needs workers >= 1"):
        Options.read(timeout=30, workers=0)


def test_an_older_outcome_has_no_message() -> None:
    data = Outcome("failed").to_json()
    del data["message"]
    assert Outcome.from_json(data) == Outcome("failed")


def test_a_function_is_called_with_each_run_that_ended_in_this_call(tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []

    def stop(row: dict[str, Any]) -> None:
        calls.append(row)
        if len(calls) == 5:
            raise KeyboardInterrupt
        if len(calls) == 3:
            raise OSError("the tracker is away")

    given = settings(tmp_path)
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="on_run_end raised OSError: the tracker is"):
        run_study(given, on_run_end=stop)
    before = len(finished(given))
    result = run_study(given, on_run_end=calls.append)
    assert 5 <= before < RUNS
    assert len(calls) == 5 + RUNS - before
    rows = {tuple(row[key] for key in ("stage", "arm", "lr", "weight_decay", "seed")): row for row in result.runs}
    for row in calls:
        assert rows[tuple(row[key] for key in ("stage", "arm", "lr", "weight_decay", "seed"))] == row
