"""Kill workers and tools twenty times at random moments: no finished run is lost or trained again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import optuna
import pytest
from optuna.trial import TrialState

from adamas.compare.runner.trials import OUTCOME, RUN
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import Summary
from tests.compare.barrier import Barrier
from tests.compare.fork_server import ForkServer
from tests.compare.studies import Process, Tool, descendants, end, result_of, study_of, until
from tests.compare.tiny_job import RUNS

VICTIMS = 16 * ["a worker"] + 2 * ["the tool"] + 2 * ["the tool with its workers"]
DELAY_SECONDS = 0.3  # at most, from the start of a run to the kill, which may hit the run, its end or the next claim


def done(study: optuna.Study) -> dict[int, object]:
    """Return everything that the storage knows of each finished run."""
    return {
        trial.number: (trial.user_attrs[RUN]["key"], trial.values, trial.user_attrs[OUTCOME], trial.datetime_complete)
        for trial in study.get_trials()
        if trial.state == TrialState.COMPLETE
    }


def kill(processes: Sequence[int], barrier: Barrier) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # a worker may have ended because its tool is gone
            os.kill(process, signal.SIGKILL)
        barrier.forget(process)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers through /proc")
def test_twenty_kills_lose_no_finished_run_and_repeat_none(
    one_by_one_result: Summary, fork_server: ForkServer, tmp_path: Path
) -> None:
    random = Random(20)
    tools: list[Process] = []
    with Barrier(tmp_path / "barrier") as barrier, contextlib.ExitStack() as stack:
        tool = Tool(tmp_path, workers=2, barrier=barrier, fork_server=fork_server)
        study = stack.enter_context(study_of(tool.settings))
        barrier.begin()

        def start() -> int:
            tools.append(tool.start())
            stack.callback(end, tools[-1])
            return tools[-1].pid

        def a_run() -> int:
            """Wait for a run, and return its worker."""
            found: list[int] = []
            until(lambda: found.extend(barrier.working(running)) or found, "a run")
            return random.choice(found)

        running, kept = start(), {}
        for number, victim in enumerate(random.sample(VICTIMS, len(VICTIMS))):
            if len(kept) < number * RUNS / 24:  # let work go on, so that kills hit all stages
                barrier.let_through(a_run())
                until(lambda: len(done(study)) > len(kept), "a run to finish")
            worker = a_run()
            barrier.let_through(a_run())
            time.sleep(random.uniform(0, DELAY_SECONDS))
            before = done(study)
            if victim == "a worker":
                kill([worker], barrier)
            else:
                workers = [*descendants(fork_server.pid), *barrier.working(running)]
                workers.remove(running)
                kill([running, *workers] if victim == "the tool with its workers" else [running], barrier)
                for orphan in workers:
                    barrier.let_through(orphan)
                end(tools[-1])
                running = start()
            after = done(study)
            assert after | kept | before == after
            kept = after
        assert len(kept) < RUNS
        lost = [trial for trial in study.get_trials() if trial.state in (TrialState.FAIL, TrialState.RUNNING)]
        assert len(lost) >= len(VICTIMS) / 4  # of the kills hit a run
        barrier.open()
        assert result_of(tools[-1]) == to_json([one_by_one_result])
        after = done(study)
        assert after | kept == after
        runs = Counter(trial.user_attrs[RUN]["key"] for trial in study.get_trials() if trial.number in after)
        assert runs == dict.fromkeys(runs, 1)
        assert len(runs) == RUNS
