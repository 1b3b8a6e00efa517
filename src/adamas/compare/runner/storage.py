"""Open the database of the trials, so that several processes and machines can share it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import warnings
from collections.abc import Generator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import StudyUserAttributeModel, TrialHeartbeatModel, TrialModel
from optuna.trial import TrialState
from sqlalchemy import URL, event, make_url
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from adamas.compare.study.errors import StorageError, StudyError

# Seconds between two heartbeats, and seconds without one after which a run counts as lost, both by the clock of the
# database. The numbers are larger for a server, where a slow network must not look like a dead worker.
FILE_HEARTBEAT = (2, 12)
SERVER_HEARTBEAT = (10, 60)

_BUSY_SECONDS = 60  # for which a process waits for the transaction of another
_CREATION_TRIES = 20  # to create the tables while other processes create them too
_REMEDIES = (  # by words in the reason why a database cannot be used
    (("locked",), "another program holds it: close that program, and give the same command again"),
    (
        ("is full", "disk I/O", "No space left", "File too large"),
        "free space on the disk, and give the same command again",
    ),
    (
        ("malformed", "not a database", "no such", "cannot be read", "no longer compatible", "decode", "constraint"),
        "it is damaged, or of another program: move the file away (`sqlite3 FILE .recover` reads what is whole), or "
        "give another --out",
    ),
)
_INSERTS = {"sqlite": insert_sqlite, "postgresql": insert_postgresql}  # INSERT that can update, by database


def open_storage(url: str, create: bool) -> RDBStorage:
    """Open the database at `url`.

    Args:
        url: An SQLAlchemy URL, `sqlite:///path` or `postgresql://...`.
        create: Whether to make missing folders and tables; workers join a database that the tool has made.

    Raises:
        ValueError: the URL cannot be read, its driver is missing, the database cannot be reached, or it is neither
            SQLite nor PostgreSQL.
    """
    backend, colon, _ = url.partition(":")
    shown = f"{backend}:***" if colon else url  # the rest of an unreadable URL may hold a password
    try:
        parsed = _read_url(url)
        shown = parsed.render_as_string(hide_password=True)
        database = parsed.get_backend_name()
        if database not in _INSERTS:
            raise ArgumentError(f"{database} is not known to give each run to one worker alone")
        if sqlite := database == "sqlite":
            _make_folder(parsed, create)
        return _create_or_connect(url, sqlite) if create else _connect(url, sqlite, create=False)
    except _InMemoryError:
        raise
    except Exception as error:  # a damaged database fails in many ways
        general = "it must be a database URL with its driver installed, as in sqlite:///trials.db or "
        general += "postgresql://user@host/name (pip install 'adamas[postgresql]')"
        found = reason(error)
        raise ValueError(f"storage={shown} cannot be opened ({found}); {remedy(found, general)}") from error


def close_storage(storage: RDBStorage) -> None:
    """Close the connections of this process; the last one that closes merges SQLite's -wal file into the database."""
    storage.remove_session()
    storage.engine.dispose()


def reason(error: BaseException) -> str:
    """Return in one line why a database cannot be used."""
    cause = error.__cause__ or error
    cause = getattr(cause, "orig", None) or cause  # without what SQLAlchemy says around it
    said = str(cause).splitlines()
    return said[0] if said and not isinstance(cause, KeyError) else repr(cause)


def remedy(said: str, general: str = "give the same command again once it can be used") -> str:
    """Return what to do about a database that cannot be used, from the reason why."""
    return next((advice for words, advice in _REMEDIES if any(word in said for word in words)), general)


@contextlib.contextmanager
def explained(storage: RDBStorage, content: bool = False) -> Generator[None]:
    """Raise any error of the block, which uses the database alone, as one sentence that says why and what to do.

    A `KeyError` passes, unless the block reads `content` alone: Optuna raises it for a study that another process has
    discarded.
    """
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        if isinstance(error, KeyError) and not content:
            raise
        shown = storage.engine.url.render_as_string(hide_password=True)
        found = reason(error)
        if not isinstance(error, (SQLAlchemyError, StorageInternalError)):
            found = f"its contents cannot be read: {found}"
        raise StorageError(
            f"storage={shown} cannot be used ({found}); {remedy(found)}. Every finished run that it holds is kept"
        ) from error


def _read_url(url: str) -> URL:
    """Return the parts of a URL."""
    try:
        return make_url(url)
    except ValueError:  # its message repeats the text in place of the port, which may be a password
        raise ArgumentError("its port is no number") from None


class _InMemoryError(ValueError):
    """The URL names a database in the memory of one process."""


def _make_folder(url: URL, create: bool) -> None:
    """Make the folder of an SQLite file; refuse a database in the memory of one process."""
    if url.database in (None, "", ":memory:"):
        raise _InMemoryError(
            f"storage={url} must be a file or a server: worker processes cannot see each other's memory"
        )
    if create:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)


def _create_or_connect(url: str, sqlite: bool) -> RDBStorage:
    """Open the database and create missing tables, although other processes may create them at the same moment.

    Optuna looks for a table and then creates it; it does the same with the row of its version. If several processes
    start together on a new database, one succeeds and the others fail. They try again, and then find the tables.
    """
    tries, began = 0, time.monotonic()
    while True:
        try:
            _connect(url, sqlite, create=True).engine.dispose()
            storage = _connect(url, sqlite, create=False)
            if sqlite:
                _refuse_damaged(storage.engine)
            return storage
        except (DBAPIError, StorageInternalError) as error:
            tries += 1
            said = str(error.__cause__ or error)
            by_another = isinstance(error, IntegrityError) or "already exists" in said or "database is locked" in said
            if tries == _CREATION_TRIES or not by_another or time.monotonic() - began > _BUSY_SECONDS:
                raise
        time.sleep(0.05)


def _refuse_damaged(engine: sqlalchemy.Engine) -> None:
    """Raise an error if pages of an SQLite file are damaged, before anything is built on what it holds."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise sqlite3.DatabaseError(f"the file is malformed: {str(found).splitlines()[-1]}")


def _connect(url: str, sqlite: bool, create: bool) -> RDBStorage:
    """Open the database with heartbeats and atomic claims, whatever the settings of the database are."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    interval, grace = FILE_HEARTBEAT if sqlite else SERVER_HEARTBEAT
    # Optuna numbers trials under a lock, and must see what others committed while it waited for that lock.
    options = {"connect_args": {"timeout": _BUSY_SECONDS}} if sqlite else {"isolation_level": "READ COMMITTED"}
    # If creating fails, the connections of a pool could not be closed.
    pool = {"poolclass": NullPool} if create else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna formats the URL
            engine_kwargs={**options, **pool},
            skip_compatibility_check=not create,
            skip_table_creation=not create,
            heartbeat_interval=interval,
            grace_period=grace,
        )
    if sqlite:
        _make_claims_atomic(storage.engine)
        storage.engine.connect().close()  # sets the journal mode of the file here, where a busy file is tried again
    else:
        _make_clocks_agree(storage.engine)
    return storage


def set_once(storage: RDBStorage, study: int, key: str, value: Any) -> Any:
    """Give a study an attribute, unless another process was faster; return the value that the study has then.

    Optuna looks for the attribute and then writes it: two processes could each believe that their own value counts.
    """
    row = sqlalchemy.insert(StudyUserAttributeModel).values(study_id=study, key=key, value_json=json.dumps(value))
    with suppress(IntegrityError), storage.engine.begin() as connection:
        connection.execute(row)
    return storage.get_study_user_attrs(study)[key]


def count_states(storage: RDBStorage, study: int) -> dict[TrialState, int]:
    """Return how many trials of a study are in each state: in .1 ms, where reading all trials takes 10 ms."""
    rows = sqlalchemy.select(TrialModel.state, sqlalchemy.func.count()).where(TrialModel.study_id == study)
    with storage.engine.connect() as connection:
        return {state: count for state, count in connection.execute(rows.group_by(TrialModel.state))}


def read_heartbeats(storage: RDBStorage, study: int) -> dict[int, datetime]:
    """Return the last heartbeat of each running trial of a study."""
    beats = sqlalchemy.select(TrialHeartbeatModel.trial_id, TrialHeartbeatModel.heartbeat).join(TrialModel)
    running = beats.where(TrialModel.study_id == study, TrialModel.state == TrialState.RUNNING)
    with storage.engine.connect() as connection:
        return {trial: beat for trial, beat in connection.execute(running)}


def record_heartbeats(storage: RDBStorage, trials: Sequence[int]) -> None:
    """Write a heartbeat of each trial in one transaction; Optuna takes 3 ms for each trial.

    Several machines may write heartbeats of the same trial at the same moment, because each tries to claim it. If two
    insert the row, the second updates the row of the first. All write in the order of the numbers, so that no two
    machines wait for each other.
    """
    insert = _INSERTS[storage.engine.name]
    rows = insert(TrialHeartbeatModel).values([{"trial_id": trial} for trial in sorted(trials)])
    now = {"heartbeat": sqlalchemy.func.current_timestamp()}
    with storage.engine.begin() as connection:
        connection.execute(rows.on_conflict_do_update(index_elements=["trial_id"], set_=now))


def _make_claims_atomic(engine: sqlalchemy.Engine) -> None:
    """Let SQLite take the write lock when a transaction begins.

    Optuna claims a trial by reading its state FOR UPDATE and then writing it. SQLite ignores FOR UPDATE, and Python's
    driver begins a transaction at the first write only: of 100 trials claimed by 4 processes, 3 were claimed twice.
    """

    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # runs that a power cut erases are trained again

    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    engine.dispose()  # closes connections that were made without the listeners


def _make_clocks_agree(engine: sqlalchemy.Engine) -> None:
    """Let every session read PostgreSQL's clock in the same time zone.

    Optuna stores heartbeats in the local time of the session. With PGTZ set on one machine, or when daylight saving
    time changes, the heartbeat of a live worker would be hours old, or that of a dead worker would lie in the future.
    """

    def connect(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    event.listen(engine, "connect", connect)
    engine.dispose()  # closes connections that were made without the listener
