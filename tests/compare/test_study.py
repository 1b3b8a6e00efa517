"""A study as a whole: workers, their deaths, continued studies. Each test that trains takes seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError

from adamas.compare.api import conduct
from adamas.compare.runner import conduct as study_module
from adamas.compare.runner import storage as storage_module
from adamas.compare.runner import trials as trials_module
from adamas.compare.runner import worker as worker_module
from adamas.compare.runner.conduct import Driver, discard
from adamas.compare.runner.pool import make_runner
from adamas.compare.runner.storage import close_storage, open_storage, record_heartbeats
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.trials import RUN, TASK, Trials, errors, heartbeat, outcomes, waiting_trial
from adamas.compare.runner.worker import Worker
from adamas.compare.study.errors import ChangedError, DiscardedError, JobFailedError
from adamas.compare.study.run import Outcome
from adamas.compare.study.settings import Settings
from adamas.compare.study.snapshot import Snapshot
from adamas.compare.study.specification import specification
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import Summary, summarise
from adamas.compare.verdict.statistics import paired_difference
from tests.compare.conftest import ROOT
from tests.compare.studies import Tool, descendants, end, finished, run, task, trials_of, until
from tests.compare.tiny_job import RUNS, settings


def test_every_run_is_made_once(tiny_result: Summary) -> None:
    done = finished(tiny_result.record.settings)
    assert len(done) == RUNS
    assert set(Counter(key for key, _ in done.values()).values()) == {1}
    assert {name: arm.trials for name, arm in tiny_result.arms.items()} == {"none": 6, "adam_l2": 8, "adamw": 8}


def test_the_machine_that_begins_a_study_decides_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def layout_of(out: str, *machines: int) -> dict[str, object]:
        """Return the task of every run, if machines with these cores train in turn and all but the last are stopped."""
        given = settings(tmp_path / out)
        for place, cores in enumerate(machines, start=1):
            monkeypatch.setattr(study_module, "default_workers", lambda device, cores=cores: cores)

            def watch(snapshot: Snapshot, last: bool = place == len(machines)) -> None:
                if snapshot.done >= 2 and not last:
                    raise KeyboardInterrupt

            with contextlib.nullcontext() if place == len(machines) else pytest.raises(KeyboardInterrupt):
                conduct(given, watch)
        with trials_of(given) as trials:
            return {trial.user_attrs[RUN]["key"]: trial.user_attrs[TASK] for trial in trials.all()}

    of_two, of_four = layout_of("two", 2), layout_of("four", 4)
    assert len(of_two) == len(of_four) == RUNS
    assert of_two != of_four
    assert layout_of("two, then four", 2, 4) == of_two


def test_resuming_a_finished_study_trains_nothing(tiny_result: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a worker was started"))
    before = finished(tiny_result.record.settings)
    seen: list[Snapshot] = []
    again = summarise(conduct(tiny_result.record.settings, seen.append))
    assert to_json([again]) == to_json([tiny_result])
    assert finished(tiny_result.record.settings) == before
    assert seen[-1].done == seen[-1].total == RUNS


def test_another_specification_is_refused_with_a_diff(tiny_result: Summary) -> None:
    given = tiny_result.record.settings
    budget = replace(given.budget, timescales=(1, 0.2))
    with pytest.raises(ChangedError, match=r"budget\.timescales: \[1, 0\.1\] -> \[1, 0\.2\]") as found:
        conduct(replace(given, budget=budget), lambda snapshot: None)
    assert "was made with other options or versions" in str(found.value)
    assert "--fresh" in str(found.value)
    with pytest.raises(ChangedError, match=r"different version of tiny(.|\n)*workload\.revision: 1 -> 2"):
        conduct(replace(given, workload=replace(given.workload, revision=2)), lambda snapshot: None)
    assert len(finished(given)) == RUNS


def test_more_seeds_go_on_with_the_same_study(tmp_path: Path) -> None:
    """The search stays, further pairs join, and the interval knows of the looks that were taken."""
    few = conduct(settings(tmp_path), lambda snapshot: None)
    more = conduct(replace(settings(tmp_path), seeds=5), lambda snapshot: None)
    assert (few.pairs, more.pairs, few.planned, more.planned) == (3, 5, 3, 3)
    assert more.winners == few.winners
    assert len(more.outcomes) == len(few.outcomes) + 2 * 3
    assert few.outcomes.items() <= more.outcomes.items()
    again = summarise(conduct(settings(tmp_path), lambda snapshot: None))  # fewer seeds look at fewer pairs
    assert again.difference == summarise(few).difference
    wide, seen = summarise(more).difference, summarise(few).difference
    assert wide is not None
    assert seen is not None
    fresh = paired_difference(
        summarise(more).arms["adamw"].test["loss"].values, summarise(more).arms["adam_l2"].test["loss"].values, True
    )
    assert wide.low < fresh.low < fresh.high < wide.high


def test_the_margin_may_change(tiny_result: Summary) -> None:
    margin = replace(tiny_result.record.settings.margin, value=0.5)
    again = summarise(conduct(replace(tiny_result.record.settings, margin=margin), lambda snapshot: None))
    assert again.difference == tiny_result.difference


@pytest.mark.usefixtures("forked_workers")
def test_a_raising_job_stops_the_study_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match=r"(?s)lr=.*Traceback.*no data here"):
        conduct(settings(tmp_path, workers=1, factory="broken_job"), lambda snapshot: None)


@pytest.mark.usefixtures("forked_workers")
def test_fresh_starts_over_and_stopping_keeps_what_finished(tmp_path: Path) -> None:
    given, enough = settings(tmp_path, workers=2, factory="slow_job"), 8  # in the grids, no search waits for another

    def stop(snapshot: Snapshot) -> None:
        if snapshot.done >= enough:
            raise KeyboardInterrupt

    states: list[TrialState] = []
    for _ in range(5):  # a stop between two runs interrupts none; then it is tried again
        with pytest.raises(KeyboardInterrupt):
            conduct(replace(given, fresh=True), stop)
        kept = finished(given)
        assert enough <= len(kept) < RUNS
        with trials_of(given) as trials:  # an interrupted run was failed at once, so that no worker waits for it
            states = [trial.state for trial in trials.all()]
        assert TrialState.RUNNING not in states
        if TrialState.FAIL in states:
            break
    assert TrialState.FAIL in states
    started = time.time()
    with pytest.raises(KeyboardInterrupt):
        conduct(replace(given, fresh=True), stop)
    after = finished(given)
    assert len(after) >= enough
    assert all(ended.timestamp() > started for _, ended in after.values())  # type: ignore[attr-defined]


def discard_it(given: Settings) -> None:
    """Discard the study as another process does that restarts it with --fresh."""
    storage = open_storage(given.storage_url, create=False)
    discard(given.study_name, storage)
    close_storage(storage)


@pytest.mark.usefixtures("forked_workers")
def test_a_process_notices_that_another_restarted_its_study(tmp_path: Path) -> None:
    given = settings(tmp_path, workers=2, factory="slow_job")

    def interfere(snapshot: Snapshot) -> None:
        if snapshot.done >= 3:
            discard_it(given)

    with pytest.raises(DiscardedError, match="another process restarted the study 'adamas compare tiny' with --fresh"):
        conduct(given, interfere)
    assert finished(given) == {}


def test_a_discarded_study_is_noticed_although_no_run_ends(tmp_path: Path) -> None:
    """Without this the tool would wait for ever, if as many runs of the new study have ended as of the old one."""
    given = settings(tmp_path)
    with trials_of(given) as trials, make_runner(0) as runner:
        driver = Driver(given, trials.storage, runner, (0, 0), lambda snapshot: None)
        driver.open(specification(given))
        driver._return_lost()
        discard_it(given)
        driver._next_look = 0.0
        with pytest.raises(KeyError, match="tiny"):
            driver._return_lost()


def test_processes_that_restart_a_study_at_once_leave_one_study(tmp_path: Path) -> None:
    given = settings(tmp_path)
    with trials_of(given):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: discard_it(given), range(8)))
        storage = open_storage(given.storage_url, create=False)
        assert [study.study_name for study in storage.get_all_studies()] == [given.study_name]
        storage.engine.dispose()


def test_nothing_is_written_to_the_study_that_replaced_a_discarded_one(tmp_path: Path) -> None:
    """SQLite reuses the numbers of deleted trials: a late outcome could become that of another run."""
    given = settings(tmp_path)
    with trials_of(given) as old, trials_of(given) as new_storage:
        old.want([task(0)], old.all())
        claim = old.claim()
        assert claim is not None
        (late,) = claim.trials.values()
        discard_it(given)
        assert not old.are_kept()
        new = Trials(optuna.load_study(study_name=given.study_name, storage=new_storage.storage), new_storage.storage)
        assert new.study_id != old.study_id
        new.want([task(1)], new.all())
        assert new._number(new.all()[0]) == old._number(late)  # the new trial has the same number
        old.finish(late, Outcome(status="ok", validation={"loss": 1.0}), "loss")
        old.fail(late)
        assert [trial.state for trial in new.all()] == [TrialState.WAITING]
        assert old.claim() is None


def test_a_worker_joins_only_the_study_of_its_order(tmp_path: Path) -> None:
    given = settings(tmp_path)
    with trials_of(given) as trials:
        order = {"storage": given.storage_url, "study": given.study_name, "study_id": trials.study_id}
    joined = worker_module.join_study(order)
    assert joined is not None
    joined.storage.engine.dispose()
    assert worker_module.join_study(order | {"study_id": order["study_id"] + 1}) is None


def test_a_killed_tool_loses_and_repeats_no_finished_run(one_by_one_result: Summary, tmp_path: Path) -> None:
    """Its processes start as those of users do; it goes on in this process."""
    tool = Tool(tmp_path, workers=2)
    process = tool.start()
    tool.wait_for(7)
    os.kill(descendants(process.pid)[-1], signal.SIGKILL)  # a worker, in the middle of a run
    tool.wait_for(12)
    workers = descendants(process.pid)
    process.kill()
    for worker in workers:
        with suppress(ProcessLookupError):  # the worker ended first, because its tool is gone
            os.kill(worker, signal.SIGKILL)
    end(process)
    before = finished(tool.settings)
    assert 12 <= len(before) < RUNS

    record = conduct(settings(tmp_path, factory="slow_job"), lambda snapshot: None)
    after = finished(tool.settings)
    assert {number: after[number] for number in before} == before
    assert len(after) == RUNS
    assert set(Counter(key for key, _ in after.values()).values()) == {1}
    assert to_json([summarise(record)]) == to_json([one_by_one_result])


def test_any_folder_name_will_do(tmp_path: Path) -> None:
    given = settings(tmp_path / "a?b %20 {x} é#z")
    with trials_of(given) as trials:
        trials.want([task(0)], trials.all())
    assert (given.out / "trials.db").is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == [given.out.name]


def test_processes_that_start_together_share_one_new_database(tmp_path: Path) -> None:
    given, start = settings(tmp_path), threading.Barrier(6)

    def want_one(seed: int) -> None:
        start.wait()
        with trials_of(given) as trials:
            trials.want([task(seed)], trials.all())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(want_one, range(6)))
    with trials_of(given) as trials:
        assert len(trials.all()) == 6


def test_an_interrupted_task_is_claimed_again_for_its_missing_runs(tmp_path: Path) -> None:
    """All runs of the task train together again; the outcome of a finished run is neither lost nor replaced."""
    whole = Task((run(0), replace(run(0), lr=2e-3), replace(run(0), lr=3e-3)), "loss")
    with trials_of(settings(tmp_path)) as trials:
        trials.want([whole], trials.all())
        first = trials.claim()
        assert first is not None
        assert first.task == whole
        assert len(first.trials) == 3
        assert trials.claim() is None  # no worker takes a part of a task that another trains
        finished_run, *interrupted = whole.runs
        trials.finish(first.trials[finished_run.key], Outcome(status="ok", validation={"loss": 1.0}), "loss")
        for lost in interrupted:
            trials.fail(first.trials[lost.key])
        trials.want([whole], trials.all())
        again = trials.claim()
        assert again is not None
        assert again.task == whole
        assert set(again.trials) == {lost.key for lost in interrupted}
        for trial in again.trials.values():
            trials.finish(trial, Outcome(status="ok", validation={"loss": 2.0}), "loss")
        assert trials.claim() is None
        complete = [trial.user_attrs[RUN]["key"] for trial in trials.all() if trial.state == TrialState.COMPLETE]
        assert sorted(complete) == sorted(each.key for each in whole.runs)
        assert outcomes(trials.all())[finished_run.key].validation == {"loss": 1.0}


def test_a_task_is_left_alone_until_all_its_runs_have_trials(tmp_path: Path) -> None:
    """A worker that took a part would train all of it, and another worker all of it again for the rest."""
    whole = Task((run(0), replace(run(0), lr=2e-3)), "loss")
    with trials_of(settings(tmp_path)) as trials:
        trials.study.add_trial(waiting_trial(whole.runs[0], whole))
        assert trials.claim() is None
        trials.study.add_trial(waiting_trial(whole.runs[1], whole))
        claimed = trials.claim()
        assert claimed is not None
        assert len(claimed.trials) == 2


def test_wanting_twice_enqueues_once(tmp_path: Path) -> None:
    with trials_of(settings(tmp_path)) as trials:
        trials.want([task(0), task(1), task(0)], trials.all())
        trials.want([task(1), task(0)], trials.all())
        assert len(trials.all()) == 2


def test_a_duplicate_is_dropped_when_it_is_claimed(tmp_path: Path) -> None:
    with trials_of(settings(tmp_path)) as trials:
        for _ in range(2):  # as two machines do that start at the same moment
            trials.study.add_trial(waiting_trial(run(0), task(0)))
        claimed = trials.claim()
        assert claimed is not None
        assert [trial.number for trial in claimed.trials.values()] == [0]
        assert trials.claim() is None
        assert [trial.state for trial in trials.all()] == [TrialState.RUNNING, TrialState.PRUNED]


def test_a_lost_run_returns_and_its_late_result_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "FILE_HEARTBEAT", (1, 1))
    with trials_of(settings(tmp_path)) as trials:
        trials.want([task(0)], trials.all())
        claim = trials.claim()
        assert claim is not None
        (lost,) = claim.trials.values()
        with trials.heartbeat([lost]):
            time.sleep(2.5)
            trials.return_lost()
            assert trials.all()[0].state == TrialState.RUNNING  # its heartbeats go on
        time.sleep(2.5)
        trials.return_lost()
        trials.want([task(0)], trials.all())
        assert [trial.state for trial in trials.all()] == [TrialState.FAIL, TrialState.WAITING]
        trials.finish(lost, Outcome(status="ok", validation={"loss": 1.0}), "loss")
        assert outcomes(trials.all()) == {}
        again = trials.claim()
        assert again is not None
        (trial,) = again.trials.values()
        trials.finish(trial, Outcome(status="ok", validation={"loss": 2.0}), "loss")
        assert outcomes(trials.all())[run(0).key].validation == {"loss": 2.0}


def test_a_database_that_fails_is_no_fault_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StorageInternalError("away")

    given = settings(tmp_path)
    with trials_of(given) as trials:
        trials.want([task(0)], trials.all())
        claim = trials.claim()
        assert claim is not None
        monkeypatch.setattr(trials, "finish", away)
        with pytest.raises(StorageInternalError, match="away"):
            Worker(trials, given.workload, given.trained_arms)._train(claim)
        assert [trial.state for trial in trials.all()] == [TrialState.RUNNING]
        assert errors(trials.all()) == []


@pytest.mark.parametrize("error", [StorageInternalError("away"), DBAPIError("beat", {}, Exception("away"))])
def test_heartbeats_go_on_after_one_that_failed(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[list[int]] = []

    def record(_: object, numbers: list[int]) -> None:
        beats.append(numbers)
        if len(beats) == 1:
            raise error

    class Quick:
        def get_heartbeat_interval(self) -> float:
            return 0.01

        def remove_session(self) -> None:
            pass

    monkeypatch.setattr(trials_module, "record_heartbeats", record)
    with heartbeat(Quick(), [0, 1]):  # type: ignore[arg-type]
        until(lambda: len(beats) > 2, "another heartbeat")
    assert beats[0] == [0, 1]


def heartbeats(trials: Trials) -> dict[int, str]:
    """Return the time of the last heartbeat of each trial, as the database has it."""
    rows = sqlalchemy.text("SELECT trial_id, heartbeat FROM trial_heartbeats")
    with trials.storage.engine.connect() as connection:
        return {number: str(beat) for number, beat in connection.execute(rows)}


def test_heartbeats_are_written_together_and_updated(tmp_path: Path) -> None:
    with trials_of(settings(tmp_path)) as trials:
        trials.want([task(0), task(1), task(2)], trials.all())
        record_heartbeats(trials.storage, [1, 2])
        first = heartbeats(trials)
        assert first.keys() == {1, 2}
        time.sleep(1.1)  # SQLite's clock ticks in seconds
        record_heartbeats(trials.storage, [2, 3])
        second = heartbeats(trials)
        assert second.keys() == {1, 2, 3}
        assert second[1] == first[1]
        assert second[2] > first[2]
        trials.storage.record_heartbeat(2)  # Optuna's own method finds the row
        assert heartbeats(trials)[2] >= second[2]


CLAIMANT = """
import sys
import optuna
from adamas.compare.runner.storage import close_storage, open_storage
from adamas.compare.study.run import Outcome
from adamas.compare.runner.trials import Trials
storage = open_storage(sys.argv[1], create=False)
trials = Trials(optuna.load_study(study_name="adamas compare tiny", storage=storage), storage)
print("ready", flush=True)
sys.stdin.readline()
while (claim := trials.claim()) is not None:
    (trial,) = claim.trials.values()
    print(trial.number)
    trials.finish(trial, Outcome(status="ok", validation={"loss": 0.0}), "loss")
"""


def test_a_transaction_holds_the_lock_from_its_first_read(tmp_path: Path) -> None:
    """Without this, two workers could both read that a trial waits, and then both claim it."""
    given = settings(tmp_path)
    with trials_of(given) as trials, trials.storage.engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT state FROM trials"))
        other = sqlite3.connect(tmp_path / "trials.db", timeout=0)
        with contextlib.closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def test_no_run_is_claimed_twice(tmp_path: Path) -> None:
    given = settings(tmp_path)
    with trials_of(given) as trials:
        trials.want([task(seed) for seed in range(40)], trials.all())
    claimants = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMANT, given.storage_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for claimant in claimants:
        assert claimant.stdout is not None
        claimant.stdout.readline()
    claimed = [number for claimant in claimants for number in claimant.communicate("go\n", timeout=60)[0].split()]
    assert all(claimant.returncode == 0 for claimant in claimants)
    assert sorted(map(int, claimed)) == list(range(40))
