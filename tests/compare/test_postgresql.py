"""Studies on a PostgreSQL server: several machines at once, dead workers, and settings of the server."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState
from typer.testing import CliRunner

from adamas.cli import app
from adamas.compare.runner import storage as storage_module
from adamas.compare.runner.storage import record_heartbeats, set_once
from adamas.compare.runner.trials import RUN, Trials, outcomes, waiting_trial
from adamas.compare.study.run import Outcome
from adamas.compare.study.settings import Settings
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import Summary
from tests.compare.barrier import Barrier
from tests.compare.fork_server import ForkServer
from tests.compare.postgresql import PASSWORD, Server, running_server
from tests.compare.studies import Tool, end, result_of, run, task, trials_of, until
from tests.compare.tiny_job import RUNS, settings

MACHINES = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def given(server: Server, tmp_path: Path) -> Settings:
    """Return the settings of a new study in a new database."""
    return settings(tmp_path, storage=server.new_database())


def all_trials(given: Settings) -> list[FrozenTrial]:
    with trials_of(given) as trials:
        return trials.all()


def key_of(trial: FrozenTrial) -> str:
    return trial.user_attrs[RUN]["key"]


def test_two_machines_share_a_study_and_one_loses_its_worker(
    server: Server, one_by_one_result: Summary, fork_server: ForkServer, tmp_path: Path
) -> None:
    url = server.new_database()
    with Barrier(tmp_path / "barrier") as barrier, contextlib.ExitStack() as stack:
        tools = [Tool(tmp_path / name, 1, url, barrier, fork_server) for name in ("one", "other")]
        machines = [tool.start() for tool in tools]
        for machine in machines:
            stack.callback(end, machine)
        until(lambda: barrier.ready() == 2, "the tools")
        barrier.begin()
        until(lambda: all(barrier.working(machine.pid) for machine in machines), "a run on each machine")
        at_work = [trial for trial in all_trials(tools[0].settings) if trial.state == TrialState.RUNNING]
        os.kill(barrier.working(machines[0].pid)[0], signal.SIGKILL)
        barrier.open()
        printed = [result_of(machine) for machine in machines]
    assert printed == [to_json([one_by_one_result])] * 2
    after = all_trials(tools[0].settings)
    done = [trial for trial in after if trial.state == TrialState.COMPLETE]
    assert Counter(map(key_of, done)) == dict.fromkeys(map(key_of, done), 1)
    assert len(done) == RUNS
    (lost,) = [trial for trial in after if trial.state == TrialState.FAIL]
    assert lost.number in [trial.number for trial in at_work]
    assert [trial.number > lost.number for trial in done if key_of(trial) == key_of(lost)] == [True]
    assert {trial.state for trial in after} <= {TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED}


def together(act) -> list:
    """Call `act(number)` on several machines at the same moment, and return the results."""
    start = threading.Barrier(MACHINES, timeout=60)

    def wait_and_act(number: int):
        start.wait()
        return act(number)

    with ThreadPoolExecutor(MACHINES) as pool:
        return list(pool.map(wait_and_act, range(MACHINES)))


def test_machines_that_start_together_share_one_new_database(given: Settings) -> None:
    def want_one(machine: int) -> None:
        with trials_of(given) as trials:
            trials.want([task(machine)], trials.all())

    together(want_one)
    assert sorted(map(key_of, all_trials(given))) == sorted(run(machine).key for machine in range(MACHINES))


def test_of_machines_that_start_together_one_decides_the_specification(given: Settings) -> None:
    again = threading.Barrier(MACHINES, timeout=60)

    def decide(machine: int) -> list[int]:
        found: list[int] = []
        with trials_of(given) as trials:
            study = trials.storage.get_study_id_from_name(given.study_name)
            for attempt in range(30):
                again.wait()
                found.append(set_once(trials.storage, study, f"attempt {attempt}", machine))
        return found

    all_trials(given)
    first, *others = together(decide)
    assert others == [first] * (MACHINES - 1)


def test_machines_write_heartbeats_of_the_same_trials_at_the_same_moment(given: Settings) -> None:
    with trials_of(given) as trials:
        trials.want([task(seed) for seed in range(60)], trials.all())
    again = threading.Barrier(MACHINES, timeout=60)

    def beat(machine: int) -> None:
        order = (1, -1)[machine % 2]
        with trials_of(given) as trials:
            for first in range(1, 61, 6):
                again.wait()
                for _ in range(3):  # the first time inserts the rows, unless another machine was faster
                    record_heartbeats(trials.storage, range(first, first + 6)[::order])

    together(beat)
    with trials_of(given) as trials, trials.storage.engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT trial_id FROM trial_heartbeats"))
        assert sorted(rows.scalars()) == list(range(1, 61))


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_runs_that_every_machine_wants_are_made_once(server: Server, tmp_path: Path, isolation: str) -> None:
    given = settings(tmp_path, storage=server.new_database(f"default_transaction_isolation TO '{isolation}'"))
    runs, enqueued = [run(seed) for seed in range(10)], threading.Barrier(MACHINES, timeout=60)

    def work(machine: int) -> list[str]:
        with trials_of(given) as trials:
            for each in runs:  # as if each machine had looked before the others enqueued
                trials.study.add_trial(waiting_trial(each, task(each.seed)))
            enqueued.wait()
            return list(claim_all(trials))

    all_trials(given)
    made = [key for keys in together(work) for key in keys]
    assert sorted(made) == sorted(each.key for each in runs)
    states = Counter(trial.state for trial in all_trials(given))
    assert states == {TrialState.COMPLETE: len(runs), TrialState.PRUNED: (MACHINES - 1) * len(runs)}


def claim_all(trials: Trials) -> Iterator[str]:
    """Claim and finish runs until all are finished; yield their keys."""
    while not all(trial.state.is_finished() for trial in trials.all()):
        claim = trials.claim()
        for key, trial in (claim.trials if claim else {}).items():
            trials.finish(trial, Outcome(status="ok", validation={"loss": 0.0}), "loss")
            yield key


def test_dead_workers_are_found_and_live_ones_left_alone_across_time_zones(
    given: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def arrive(zone: str) -> Trials:
        monkeypatch.setenv("PGTZ", zone)  # read by the driver when it connects
        return stack.enter_context(trials_of(given))

    with contextlib.ExitStack() as stack:
        west, east = arrive("America/New_York"), arrive("Asia/Tokyo")
        west.want([task(0)], west.all())
        claim = west.claim()
        assert claim is not None
        east.return_lost()
        assert [trial.state for trial in east.all()] == [TrialState.RUNNING]

        monkeypatch.setattr(storage_module, "SERVER_HEARTBEAT", (1, 1))
        impatient = arrive("America/Los_Angeles")
        east.want([task(1)], east.all())
        assert east.claim() is not None

        def all_are_lost() -> bool:
            impatient.return_lost()
            return all(trial.state == TrialState.FAIL for trial in impatient.all())

        until(all_are_lost, "both trials to be returned")
        (late,) = claim.trials.values()
        west.finish(late, Outcome(status="ok", validation={"loss": 1.0}), "loss")
        assert outcomes(west.all()) == {}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{wrong_password}", "password authentication failed"),
        ("{no_database}", 'database "nowhere" does not exist'),
        ("postgresql://adamas:secret@127.0.0.1:1/trials", "127.0.0.1"),
        ("postgresql://adamas:secret", "its port is no number"),
        ("postgresql:/adamas:secret@host/trials", "Could not parse"),
    ],
)
def test_a_server_that_does_not_let_us_in_is_a_usage_error(
    server: Server, tmp_path: Path, url: str, reason: str
) -> None:
    typed = url.format(wrong_password=server.url("postgres", "secret"), no_database=server.url("nowhere"))
    found = CliRunner().invoke(app, ["compare", "--storage", typed, "--out", str(tmp_path)])
    assert found.exit_code == 2, found.stderr
    assert found.stdout == ""
    assert "***" in found.stderr
    assert reason in found.stderr
    assert "secret" not in found.stderr
    assert PASSWORD not in found.stderr
