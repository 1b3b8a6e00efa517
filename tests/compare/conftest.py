from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import adamas
from adamas.compare.api import conduct
from adamas.compare.verdict.result import Summary, summarise
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
def tiny_result(workers_find_the_tests: None, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Return a finished study of the tiny job, trained by two workers."""
    return summarise(conduct(settings(tmp_path_factory.mktemp("tiny"), workers=2), lambda snapshot: None))


@pytest.fixture(scope="session")
def one_by_one_result(workers_find_the_tests: None, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Return the same study, with its runs trained one by one, as those of the slow job are."""
    given = settings(tmp_path_factory.mktemp("tiny"))
    alone = replace(given, workload=replace(given.workload, stackable=False))
    return summarise(conduct(alone, lambda snapshot: None))
