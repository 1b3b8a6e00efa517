from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import adamas
from adamas.compare.api import conduct
from adamas.compare.runner import process
from adamas.compare.verdict.result import Summary, summarise
from tests.compare.fork_server import ForkedProcess, ForkServer
from tests.compare.tiny_job import settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def workers_find_the_tests() -> Iterator[None]:
    """Let worker processes import the jobs of the tests, in whatever folder pytest was started, and speak English."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C.UTF-8")  # sentences are tested in English, in whatever locale pytest was started
        patch.setenv("PYTHONPATH", f"{ROOT}:{Path(adamas.__file__).parents[1]}")  # the same build as in this process
        yield


@pytest.fixture(scope="session")
def fork_server(workers_find_the_tests: None) -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


@pytest.fixture
def forked_workers(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pools of this process fork their workers: each start of a process would import for five seconds.

    Workers that are started as users start them train the studies of `tiny_result`, `test_pool` and `test_api`.
    """
    for name, value in fork_server.environment.items():
        monkeypatch.setenv(name, value)
    forking = SimpleNamespace(**{**vars(process.subprocess), "Popen": ForkedProcess})
    monkeypatch.setattr(process, "subprocess", forking)


@pytest.fixture(scope="session")
def tiny_result(workers_find_the_tests: None, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Return a finished study of the tiny job, trained by two workers."""
    return summarise(conduct(settings(tmp_path_factory.mktemp("tiny"), workers=2), lambda snapshot: None))


@pytest.fixture(scope="session")
def one_by_one_result(workers_find_the_tests: None, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Return the same study, with its runs trained one by one, as those of the slow job are."""
    given = settings(tmp_path_factory.mktemp("tiny"))
    alone = replace(given, workload=replace(given.workload, stackable=False))
    return summarise(conduct(alone, lambda snapshot: None))
