"""The pool of worker processes: it replaces dead workers, and workers stop when their tool is gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from adamas.compare.api import conduct
from adamas.compare.runner import pool
from adamas.compare.runner.pool import Pool
from adamas.compare.study.errors import WorkersDiedError
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import Summary, summarise
from tests.compare.tiny_job import settings


@pytest.mark.parametrize("count", [1, 2])
def test_workers_that_keep_dying_are_replaced_a_few_times(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_WORKER", "this")  # a module that prints a text and ends
    with pytest.raises(WorkersDiedError, match=r"(?s)exit code 0.*Zen of Python"):
        watch(Pool(count), tmp_path)


def watch(workers: Pool, out: Path) -> None:
    """Let a pool replace dead workers for a minute."""
    deadline = time.monotonic() + 60
    with workers:
        workers.start(settings(out), 1)
        while time.monotonic() < deadline:
            workers.wait()


def test_a_worker_without_an_order_ends(tmp_path: Path) -> None:
    """The tool may die between the start of a worker and its order."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", pool._WORKER], stdin=subprocess.DEVNULL, timeout=120, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_no_figure_depends_on_the_runner(workers: int, tiny_result: Summary, tmp_path: Path) -> None:
    found = summarise(conduct(settings(tmp_path, workers=workers), lambda snapshot: None))
    assert to_json([found]) == to_json([tiny_result])
    there = {run.key: outcome for run, outcome in tiny_result.record.outcomes.items()}
    for run, outcome in found.record.outcomes.items():
        assert {**outcome.to_json(), "seconds": 0} == {**there[run.key].to_json(), "seconds": 0}
