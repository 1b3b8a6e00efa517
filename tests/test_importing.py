"""Importing a lot at once goes without the collector, and only that does."""

from __future__ import annotations

import gc

import pytest

from adamas.importing import uncollected


@pytest.fixture(autouse=True)
def thawed():  # type: ignore[no-untyped-def]
    yield
    gc.unfreeze()


def test_the_collector_rests_while_the_block_runs_and_passes_over_what_is_there() -> None:
    gc.unfreeze()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1_000


def test_an_import_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(ModuleNotFoundError), uncollected():
        import no_such_module  # noqa: F401 # pyright: ignore[reportMissingImports, reportUnusedImport]
    assert gc.isenabled()
