"""The study as a whole: workers, death, resumption. Each test that trains starts processes and takes seconds."""

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
from adamas.compare.runner.snapshot import Snapshot
from adamas.compare.runner.storage import open_storage, record_heartbeats
from adamas.compare.runner.tasks import Task
from adamas.compare.runner.trials import RUN, TASK, Heartbeat, Trials, errors, outcomes, waiting_trial
from adamas.compare.runner.worker import Worker
from adamas.compare.study.errors import ChangedError, DiscardedError, JobFailedError
from adamas.compare.study.run import Outcome
from adamas.compare.study.settings import Settings
from adamas.compare.study.specification import specification
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import Summary, summarise
from tests.compare.conftest import ROOT
from tests.compare.studies import Tool, descendants, end, finished, result_of, run, task, trials_of, until
from tests.compare.tiny_job import RUNS, settings


def test_every_run_is_made_once(tiny_result: Summary) -> None:
    done = finished(tiny_result.record.settings)
    assert len(done) == RUNS
    assert set(Counter(key for key, _ in done.values()).values()) == {1}
    assert all(arm.trials == 8 for arm in tiny_result.arms.values())


def test_a_study_stays_cut_as_the_machine_that_began_it_cut_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def layout_of(out: str, *machines: int) -> dict[str, object]:
        """The task of every run: all but the last machine, of so many cores, stop on the way."""
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
    with pytest.raises(ChangedError, match=r"seeds: 3 -> 4\n") as found:
        conduct(replace(given, seeds=4), lambda snapshot: None)
    assert "--fresh" in str(found.value)
    budget = replace(given.budget, timescales=(1, 0.2))
    with pytest.raises(ChangedError, match=r"budget\.timescales: \[1, 0\.1\] -> \[1, 0\.2\]"):
        conduct(replace(given, budget=budget), lambda snapshot: None)
    with pytest.raises(ChangedError, match=r"workload\.revision: 1 -> 2"):
        conduct(replace(given, workload=replace(given.workload, revision=2)), lambda snapshot: None)
    assert len(finished(given)) == RUNS


def test_the_margin_may_change(tiny_result: Summary) -> None:
    margin = replace(tiny_result.record.settings.margin, value=0.5)
    again = summarise(conduct(replace(tiny_result.record.settings, margin=margin), lambda snapshot: None))
    assert again.difference == tiny_result.difference


def test_a_raising_job_stops_the_study_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match=r"(?s)lr=.*Traceback.*no data here"):
        conduct(settings(tmp_path, workers=1, factory="broken_job"), lambda snapshot: None)


def test_fresh_starts_over_and_stopping_keeps_what_finished(tmp_path: Path) -> None:
    given, enough = settings(tmp_path, workers=2, factory="slow_job"), 8  # in the grids: nobody waits for anybody there

    def stop(snapshot: Snapshot) -> None:
        if snapshot.done >= enough:
            raise KeyboardInterrupt

    states: list[TrialState] = []
    for _ in range(5):  # a stop may fall between two runs, and then cuts none short: it is tried again
        with pytest.raises(KeyboardInterrupt):
            conduct(replace(given, fresh=True), stop)
        kept = finished(given)
        assert enough <= len(kept) < RUNS
        with trials_of(given) as trials:  # a run that was cut short was given back, so nobody has to wait for it
            states = [trial.state for trial in trials.all()]
        assert TrialState.RUNNING not in states
        if TrialState.FAIL in states:
            break
    assert TrialState.FAIL in states
    started = time.time()
    with pytest.raises(KeyboardInterrupt):
        conduct(replace(given, fresh=True), stop)
    anew = finished(given)
    assert len(anew) >= enough
    assert all(ended.timestamp() > started for _, ended in anew.values())  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers through /proc")
def discard_it(given: Settings) -> None:
    """What another process does with --fresh."""
    storage = open_storage(given.storage_url, create=False)
    discard(given.study_name, storage)
    storage.remove_session()
    storage.engine.dispose()


def test_who_is_at_work_on_a_study_that_another_began_afresh_is_told(tmp_path: Path) -> None:
    given = settings(tmp_path, workers=2, factory="slow_job")

    def interfere(snapshot: Snapshot) -> None:
        if snapshot.done >= 3:
            discard_it(given)

    with pytest.raises(DiscardedError, match="began 'adamas compare tiny' afresh"):
        conduct(given, interfere)
    assert finished(given) == {}


def test_a_study_that_is_gone_is_missed_though_no_run_ends(tmp_path: Path) -> None:
    """Else the tool would wait for ever: of the new study as few runs have ended as of the old one."""
    given = settings(tmp_path)
    with trials_of(given) as trials, make_runner(0) as runner:
        driver = Driver(given, trials.storage, runner, (0, 0), lambda snapshot: None)
        driver.open(specification(given))
        driver._return_lost()
        discard_it(given)
        driver._next_look = 0.0
        with pytest.raises(KeyError, match="tiny"):
            driver._return_lost()


def test_two_who_begin_afresh_at_once_leave_one_study(tmp_path: Path) -> None:
    given = settings(tmp_path)
    with trials_of(given):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: discard_it(given), range(8)))
        storage = open_storage(given.storage_url, create=False)
        assert [study.study_name for study in storage.get_all_studies()] == [given.study_name]
        storage.engine.dispose()


def test_nothing_is_written_to_the_study_that_took_the_place_of_a_discarded_one(tmp_path: Path) -> None:
    """SQLite gives the numbers of deleted trials again: the late result of one would become another's."""
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
        assert new._number(new.all()[0]) == old._number(late)  # the danger is real
        old.finish(late, Outcome(status="ok", validation={"loss": 1.0}), "loss")
        old.fail(late, None)
        assert [trial.state for trial in new.all()] == [TrialState.WAITING]
        assert old.claim() is None


def test_a_worker_joins_no_study_but_the_one_it_was_sent_to(tmp_path: Path) -> None:
    given = settings(tmp_path)
    with trials_of(given) as trials:
        order = {"storage": given.storage_url, "study": given.study_name, "study_id": trials.study_id}
    joined = worker_module.join_study(order)
    assert joined is not None
    joined.storage.engine.dispose()
    assert worker_module.join_study(order | {"study_id": order["study_id"] + 1}) is None


def test_killed_at_any_moment_it_loses_and_repeats_nothing(one_by_one_result: Summary, tmp_path: Path) -> None:
    tool = Tool(tmp_path, workers=2)
    process = tool.start()
    tool.wait_for(7)
    os.kill(descendants(process.pid)[-1], signal.SIGKILL)  # a worker, in the middle of a run
    tool.wait_for(12)
    workers = descendants(process.pid)
    process.kill()
    for worker in workers:
        with suppress(ProcessLookupError):  # it noticed first that its tool is gone
            os.kill(worker, signal.SIGKILL)
    end(process)
    before = finished(tool.settings)
    assert 12 <= len(before) < RUNS

    printed = result_of(tool.start())
    after = finished(tool.settings)
    assert {number: after[number] for number in before} == before
    assert len(after) == RUNS
    assert set(Counter(key for key, _ in after.values()).values()) == {1}
    assert printed == to_json([one_by_one_result])


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


def test_a_task_cut_short_is_claimed_again_for_what_is_missing(tmp_path: Path) -> None:
    """Its cells are trained together again, as they were laid out; what had finished is neither lost nor repeated."""
    whole = Task((run(0), replace(run(0), lr=2e-3), replace(run(0), lr=3e-3)), "loss")
    with trials_of(settings(tmp_path)) as trials:
        trials.want([whole], trials.all())
        first = trials.claim()
        assert first is not None
        assert first.task == whole
        assert len(first.trials) == 3
        assert trials.claim() is None  # nobody takes a part of what another is at
        finished_cell, *cut_short = whole.runs
        trials.finish(first.trials[finished_cell.key], Outcome(status="ok", validation={"loss": 1.0}), "loss")
        for lost in cut_short:
            trials.fail(first.trials[lost.key], None)
        trials.want([whole], trials.all())
        again = trials.claim()
        assert again is not None
        assert again.task == whole
        assert set(again.trials) == {lost.key for lost in cut_short}
        for trial in again.trials.values():
            trials.finish(trial, Outcome(status="ok", validation={"loss": 2.0}), "loss")
        assert trials.claim() is None
        complete = [trial.user_attrs[RUN]["key"] for trial in trials.all() if trial.state == TrialState.COMPLETE]
        assert sorted(complete) == sorted(each.key for each in whole.runs)
        assert outcomes(trials.all())[finished_cell.key].validation == {"loss": 1.0}


def test_a_task_is_left_until_all_of_it_is_asked_for(tmp_path: Path) -> None:
    """Whoever took a part would train the whole, and somebody all of it again for the rest."""
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
        for _ in range(2):  # what two machines do that start at the same moment
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
            assert trials.all()[0].state == TrialState.RUNNING  # it gives signs of life
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
            Worker(trials, given.workload, given.trained_arms).train(claim)
        assert [trial.state for trial in trials.all()] == [TrialState.RUNNING]
        assert errors(trials.all(), after=-1) == []


@pytest.mark.parametrize("error", [StorageInternalError("away"), DBAPIError("beat", {}, Exception("away"))])
def test_signs_of_life_go_on_after_one_that_failed(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with Heartbeat(Quick(), [0, 1]):  # type: ignore[arg-type]
        until(lambda: len(beats) > 2, "another sign of life")
    assert beats[0] == [0, 1]


def heartbeats(trials: Trials) -> dict[int, str]:
    """When each trial last gave a sign of life, as the database has it."""
    rows = sqlalchemy.text("SELECT trial_id, heartbeat FROM trial_heartbeats")
    with trials.storage.engine.connect() as connection:
        return {number: str(beat) for number, beat in connection.execute(rows)}


def test_signs_of_life_are_written_together_and_anew(tmp_path: Path) -> None:
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
        trials.storage.record_heartbeat(2)  # Optuna's own, which finds what it needs
        assert heartbeats(trials)[2] >= second[2]


CLAIMANT = """
import sys
import optuna
from adamas.compare.runner.storage import open_storage
from adamas.compare.study.run import Outcome
from adamas.compare.runner.trials import Trials
storage = open_storage(sys.argv[1], create=False)
trials = Trials(optuna.load_study(study_name="adamas compare tiny", storage=storage), storage)
print("ready", flush=True)
sys.stdin.readline()
while (claim := trials.claim()) is not None:
    (trial,) = claim.trials.values()
    print(trial.number)
    trials.finish(trial, Outcome(feasible=True, validation={"loss": 0.0}), "loss")
"""


def test_a_transaction_holds_the_lock_from_its_first_read(tmp_path: Path) -> None:
    """Else two workers may both read that a trial is waiting, and then both take it."""
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
