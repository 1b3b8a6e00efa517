"""Open the database that the trials live in, so that several processes and machines may share it."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
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
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool

BUSY_SECONDS = 60  # how long a process waits for another's transaction
CREATION_TRIES = 20  # while others create the same tables; a loser only needs the winner to finish

# Seconds between signs of life, and without one until a run counts as lost. The clock is the database's; over a network
# a hiccup must not look like a death.
FILE_HEARTBEAT = (2, 12)
SERVER_HEARTBEAT = (10, 60)

INSERTS = {"sqlite": insert_sqlite, "postgresql": insert_postgresql}  # that can update; by the database's name


def open_storage(url: str, create: bool) -> RDBStorage:
    """Open the database at `url`.

    Args:
        url: an SQLAlchemy URL, `sqlite:///path` or `postgresql://...`.
        create: make what is missing; workers join a database that the tool has already made.

    Raises:
        ValueError: the URL is none, its driver is missing, or the database cannot be reached or is neither of the two.
    """
    backend, colon, _ = url.partition(":")
    shown = f"{backend}:***" if colon else url  # all that is safe to show of what cannot be read
    try:
        parsed = read_url(url)
        shown = parsed.render_as_string(hide_password=True)
        database = parsed.get_backend_name()
        if database not in INSERTS:
            raise ArgumentError(f"{database} is not known to give each run to one worker alone")
        if sqlite := database == "sqlite":
            make_folder(parsed, create)
        return create_or_connect(url, sqlite) if create else connect(url, sqlite, create=False)
    except (ArgumentError, ImportError, OSError, DBAPIError, StorageInternalError) as error:
        raise ValueError(
            f"storage={shown} cannot be opened ({reason(error)}); it must be a database URL with its driver installed, "
            "as in sqlite:///trials.db or postgresql://user@host/name (pip install 'adamas[postgresql]')"
        ) from error


def reason(error: BaseException) -> str:
    """Why a database cannot be used, in a line."""
    return str(error.__cause__ or error).splitlines()[0]


def read_url(url: str) -> URL:
    """Take a URL apart."""
    try:
        return make_url(url)
    except ValueError:  # it repeats what stands where a port should, which may be a password
        raise ArgumentError("its port is no number") from None


def make_folder(url: URL, create: bool) -> None:
    """Make the folder of an SQLite file; refuse a database that lives in one process's memory."""
    if url.database in (None, "", ":memory:"):
        raise ValueError(f"storage={url} must be a file or a server: worker processes cannot see each other's memory")
    if create:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)


def create_or_connect(url: str, sqlite: bool, tries: int = CREATION_TRIES) -> RDBStorage:
    """Open the database and make what is missing, while others may be making it too.

    Optuna looks whether a table is there and then makes it, and does the same with the row of its version: of processes
    that start together on a new database, all but one fail. What they failed at is then there, so they try again.
    """
    try:
        connect(url, sqlite, create=True).engine.dispose()
        return connect(url, sqlite, create=False)
    except (DBAPIError, StorageInternalError) as error:
        if tries == 1 or not made_by_another(error):
            raise
        time.sleep(0.05)
        return create_or_connect(url, sqlite, tries - 1)


def made_by_another(error: Exception) -> bool:
    """Whether the database refused to make what somebody else made a moment before."""
    return isinstance(error, IntegrityError) or any(
        said in str(error.__cause__ or error) for said in ("already exists", "database is locked")
    )


def connect(url: str, sqlite: bool, create: bool) -> RDBStorage:
    """Open the database with heartbeats, and claims that are atomic whatever the database is set to."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    interval, grace = FILE_HEARTBEAT if sqlite else SERVER_HEARTBEAT
    # Optuna numbers trials under a lock, and counts on seeing what was committed while it waited for that lock.
    options = {"connect_args": {"timeout": BUSY_SECONDS}} if sqlite else {"isolation_level": "READ COMMITTED"}
    # A failed try to create things would leave connections in a pool that nobody could close.
    pool = {"poolclass": NullPool} if create else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # which Optuna formats
            engine_kwargs={**options, **pool},
            skip_compatibility_check=not create,
            skip_table_creation=not create,
            heartbeat_interval=interval,
            grace_period=grace,
        )
    if sqlite:
        make_claims_atomic(storage.engine)
        storage.engine.connect().close()  # sets the file's journal mode here, where a busy file is tried again
    elif storage.engine.name == "postgresql":
        make_clocks_agree(storage.engine)
    return storage


def set_once(storage: RDBStorage, study: int, key: str, value: Any) -> Any:
    """Give a study an attribute, unless another process was faster; return what it has then.

    Optuna looks whether an attribute is there and then writes it: of two processes, each would believe in its own.
    """
    row = sqlalchemy.insert(StudyUserAttributeModel).values(study_id=study, key=key, value_json=json.dumps(value))
    with suppress(IntegrityError), storage.engine.begin() as connection:
        connection.execute(row)
    return storage.get_study_user_attrs(study)[key]


def count_states(storage: RDBStorage, study: int) -> dict[TrialState, int]:
    """How many trials of a study are in which state: a tenth of a millisecond, where to read them takes ten."""
    rows = sqlalchemy.select(TrialModel.state, sqlalchemy.func.count()).where(TrialModel.study_id == study)
    with storage.engine.connect() as connection:
        return {state: count for state, count in connection.execute(rows.group_by(TrialModel.state))}


def record_heartbeats(storage: RDBStorage, trials: Sequence[int]) -> None:
    """Write a sign of life of each trial, all at once: Optuna writes them one by one, 3 ms each, in every beat.

    Several machines may write one of the same trial at this moment, each about to try to claim it: of two that insert
    it, the second updates the first's. In the order of their numbers, none waits for a machine that waits for it.
    """
    insert = INSERTS[storage.engine.name]
    rows = insert(TrialHeartbeatModel).values([{"trial_id": trial} for trial in sorted(trials)])
    now = {"heartbeat": sqlalchemy.func.current_timestamp()}
    with storage.engine.begin() as connection:
        connection.execute(rows.on_conflict_do_update(index_elements=["trial_id"], set_=now))


def make_claims_atomic(engine: sqlalchemy.Engine) -> None:
    """Make SQLite take the write lock when a transaction begins.

    Optuna claims a trial by reading its state FOR UPDATE and then writing it. SQLite ignores FOR UPDATE, and Python's
    driver begins a transaction at the first write only: of 100 trials claimed by 4 processes, 3 were claimed twice.
    """

    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes back is run again

    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    engine.dispose()  # connections made before the listeners were there


def make_clocks_agree(engine: sqlalchemy.Engine) -> None:
    """Let every session read PostgreSQL's clock in the same time zone.

    Optuna stores heartbeats in the session's local time. With PGTZ set on one machine, or once a year everywhere, a
    live worker would be hours old, or a dead one would give signs of life from the future.
    """

    def connect(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    event.listen(engine, "connect", connect)
    engine.dispose()  # connections made before the listener was there
