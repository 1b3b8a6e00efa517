"""Databases that are damaged, full, locked, or written by a clock that was set back: a sentence says what to do."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import event

from adamas.compare.api import conduct
from adamas.compare.runner import conduct as study_module
from adamas.compare.runner import storage as storage_module
from adamas.compare.study.errors import StorageError
from adamas.compare.study.run import Outcome
from adamas.compare.verdict.result import Summary
from tests.compare.studies import finished, run, task, trials_of, until
from tests.compare.tiny_job import RUNS, settings

TABLES = (
    "studies",
    "trials",
    "trial_user_attributes",
    "trial_params",
    "trial_heartbeats",
    "version_info",
    "trial_values",
)
STATEMENTS = (
    *(f"DROP TABLE {table}" for table in TABLES),
    "UPDATE version_info SET schema_version = 1",
    "UPDATE alembic_version SET version_num = 'v0.0.1.a'",
    "DELETE FROM trial_user_attributes WHERE key = 'run'",
    "DELETE FROM trial_user_attributes WHERE key = 'outcome'",
    "UPDATE trial_user_attributes SET value_json = '{' WHERE key = 'outcome'",
    "UPDATE trial_user_attributes SET value_json = '[3]' WHERE key = 'task'",
    "UPDATE trial_user_attributes SET value_json = replace(value_json, 'loss', 'lass')",
    "UPDATE trial_user_attributes SET value_json = replace(value_json, 'ok', 'OK')",
    "UPDATE study_user_attributes SET value_json = '3' WHERE key = 'specification'",
    "UPDATE trials SET state = 'LOST'",
    "UPDATE trials SET datetime_complete = 'yesterday'",
    "DELETE FROM trial_params",
    "ALTER TABLE trials RENAME COLUMN state TO condition",
    "DROP TABLE trials; CREATE TABLE trials (trial_id INTEGER)",
)


def damaged(whole: Path, folder: Path) -> list[str]:
    """Write databases that are damaged in many ways into a folder, and return their names."""
    good, random = whole.read_bytes(), Random(51)
    kinds: dict[str, bytes] = {"empty": b"", "text": b"once upon a time\n" * 400, "zeros": bytes(len(good))}
    kinds |= {f"cut at {part} of 12": good[: len(good) * part // 12] for part in range(1, 12)}
    kinds |= {f"cut at byte {size}": good[:size] for size in (1, 16, 100, 4095, 4097)}
    for number in range(16):
        bytes_ = bytearray(good)
        for _ in range(4 ** (number % 4)):
            start = random.randrange(len(good))
            bytes_[start : start + 8] = random.randbytes(8)
        kinds[f"overwritten {number}"] = bytes(bytes_[: len(good)])
    for name, content in kinds.items():
        (folder / name).mkdir()
        (folder / name / "trials.db").write_bytes(content)
    for number, statement in enumerate(STATEMENTS):
        (folder / f"statement {number}").mkdir()
        path = folder / f"statement {number}" / "trials.db"
        shutil.copy(whole, path)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(statement)
    return [*kinds, *(f"statement {number}" for number in range(len(STATEMENTS)))]


def test_a_damaged_database_is_told_in_one_sentence(tiny_result: Summary, tmp_path: Path) -> None:
    names = damaged(tiny_result.record.settings.out / "trials.db", tmp_path)
    assert len(names) >= 51
    told, whole = {}, []
    for name in names:
        before = (tmp_path / name / "trials.db").stat().st_size
        try:
            conduct(settings(tmp_path / name), lambda snapshot: None)
            whole.append(name)
        except (StorageError, ValueError) as error:
            told[name] = str(error)
        assert (tmp_path / name / "trials.db").stat().st_size >= before or name in whole
    for name, sentence in told.items():
        assert "\n" not in sentence or "--fresh" in sentence, name
        assert any(word in sentence for word in ("move the file away", "--fresh", "it must be a folder")), (
            name,
            sentence,
        )
    assert len(told) >= 30, whole
    assert "empty" in whole


def test_a_full_disk_is_told_and_keeps_what_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_atomic, limited = storage_module._make_claims_atomic, [True]

    def with_little_space(engine: sqlalchemy.Engine) -> None:
        made_atomic(engine)

        def connect(connection: sqlite3.Connection, _: object) -> None:
            if limited[0]:
                connection.execute("PRAGMA max_page_count=34")

        event.listen(engine, "connect", connect)
        engine.dispose()

    monkeypatch.setattr(storage_module, "_make_claims_atomic", with_little_space)
    given = settings(tmp_path)
    with pytest.raises(
        StorageError, match=r"database or disk is full\); free space on the disk, .* same command again"
    ):
        conduct(given, lambda snapshot: None)
    limited[0] = False
    before = finished(given)
    assert 0 < len(before) < RUNS
    record = conduct(given, lambda snapshot: None)
    after = finished(given)
    assert len(record.outcomes) == RUNS
    assert {number: after[number] for number in before} == before


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.usefixtures("forked_workers")
def test_a_locked_database_is_told(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program locks it before the study begins, or while it trains."""
    monkeypatch.setattr(storage_module, "_BUSY_SECONDS", 1)
    given = settings(tmp_path, workers=workers)
    with trials_of(given):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "trials.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"\(.*database is locked\); another program holds it: close that program"):
            conduct(given, lambda snapshot: None)
        assert time.monotonic() - began < 10
        other.execute("COMMIT")

        def lock(snapshot: object) -> None:
            if not other.in_transaction:
                other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(StorageError, match=r"database is locked\); another program holds it"):
            conduct(given, lock)
        other.execute("COMMIT")
    assert len(conduct(given, lambda snapshot: None).outcomes) == RUNS


def test_the_command_ends_in_a_sentence(tiny_result: Summary, tmp_path: Path) -> None:
    """A file may not grow beyond a limit, as on a full disk; and then the database is no database."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)); from adamas.cli import run"
    command = [
        sys.executable,
        "-c",
        f"{limit}; run()",
        "compare",
        "noise",
        "--seeds",
        "2",
        "--workers",
        "1",
        "--out",
        "out",
    ]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode in (1, 2), found.stderr
    assert "free space" in found.stderr
    assert "Traceback" not in found.stderr
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "trials.db").write_text("no database\n" * 100)
    command[2] = "from adamas.cli import run; run()"
    found = subprocess.run([*command[:-1], "text"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.strip().splitlines()[-1].startswith("out=text cannot hold the trials (")
    assert "move the file away" in found.stderr
    assert "Traceback" not in found.stderr
    assert (tmp_path / "text" / "trials.db").read_text() == "no database\n" * 100


def test_a_run_whose_heartbeat_lies_in_the_future_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was set back; the heartbeats of live workers change, whatever the clock says."""
    monkeypatch.setattr(storage_module, "FILE_HEARTBEAT", (1, 2))
    with trials_of(settings(tmp_path)) as trials:
        trials.want([task(0), task(1)], trials.all())
        dead, live = trials.claim(), trials.claim()
        assert dead is not None
        assert live is not None

        def set_clock_back(number: int, seconds: int) -> None:
            late = f"datetime('now', '+{seconds} seconds')"
            with trials.storage.engine.begin() as connection:
                connection.exec_driver_sql(f"UPDATE trial_heartbeats SET heartbeat = {late} WHERE trial_id = {number}")

        set_clock_back(1, 3600)
        seconds = 7200

        def is_returned() -> bool:
            nonlocal seconds
            seconds += 1
            set_clock_back(2, seconds)
            trials.return_lost()
            return trials.all()[0].state == TrialState.FAIL

        assert not is_returned()
        until(is_returned, "the run of the dead worker")
        assert trials.all()[1].state == TrialState.RUNNING
        trials.want([task(0)], trials.all())
        again = trials.claim()
        assert again is not None
        trials.finish(again.trials[run(0).key], Outcome("ok", {"loss": 1.0}), "loss")
        assert len(finished(settings(tmp_path))) == 1


def test_the_driver_shows_a_study_in_which_no_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "_SHOWN_SECONDS", 0.0)
    from adamas.compare.runner.inline import Inline
    from adamas.compare.study.snapshot import Snapshot

    waits, seen = [], list[Snapshot]()

    def wait(self: Inline) -> list[object]:
        waits.append(self)
        if len(waits) > 3:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(Inline, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        conduct(settings(tmp_path), seen.append)
    assert len(seen) >= 3
