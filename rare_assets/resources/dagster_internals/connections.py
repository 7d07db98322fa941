"""An instance that keeps the connections to its databases open."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from rare_assets.files.cache import temporary_folder

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

# Databases of runs that stay open: the one under way, and one that is looked at beside it.
RUNS_OPEN = 2
# Seconds that a write waits for another process's, as Dagster has it.
BUSY_SECONDS = 30
# The file of all runs' asset events, beside one a run.
INDEX_OF_EVENTS = "index"


def import_sqlite_storage() -> None:
    """Import what an instance on SQLite imports when it is opened."""
    with contextlib.suppress(ImportError):
        import dagster._core.storage.event_log.sqlite
        import dagster._core.storage.runs.sqlite
        import dagster._core.storage.schedules.sqlite  # noqa: F401


@cache
def keep_migrations() -> None:
    """Have Alembic keep Dagster's migrations once it has read them, in this process and in what is forked from it.

    For each database that is opened it looks which of ninety files is the last, and reads them all: a quarter of a
    second, several times for each instance.
    """
    try:
        from alembic.config import Config
        from alembic.script import ScriptDirectory
        from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION
    except ImportError:
        return
    read = ScriptDirectory.from_config
    kept: list[ScriptDirectory] = []

    def from_config(config: Config) -> ScriptDirectory:
        if config.get_main_option("script_location") != ALEMBIC_SCRIPTS_LOCATION:
            return read(config)
        if not kept:
            kept.append(read(config))
        return kept[0]

    ScriptDirectory.from_config = staticmethod(from_config)  # type: ignore[method-assign]


def read_migrations() -> None:
    """Read what `keep_migrations` keeps, before others are forked from this process."""
    keep_migrations()
    with contextlib.suppress(ImportError):
        from alembic.config import Config
        from alembic.script import ScriptDirectory
        from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION

        config = Config()
        config.set_main_option("script_location", ALEMBIC_SCRIPTS_LOCATION)
        ScriptDirectory.from_config(config).as_revision_number("head")


def keep_connections(instance: dg.DagsterInstance) -> None:
    """Have an instance keep its connections until it is disposed of, if its storage is on SQLite or Postgres.

    On SQLite, Dagster makes an engine, opens the file, compiles its statement and closes the file again for each event, and
    takes the database of each new run through its migrations: a third of the processor time of a command for small
    shards. Here an engine is made once a file, and a new run's database is a copy of an empty one. Files,
    statements and locks stay Dagster's.

    On Postgres it opens a connection for each statement, whose process costs the server thirty times what the
    statement does. Here a process keeps one to the events and one to the runs, and looks before each use whether
    it is still good.
    """
    try:
        from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
        from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
        from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import (
            SqliteScheduleStorage,
        )
    except ImportError:
        return
    events: Any = instance.event_log_storage
    if type(events) is SqliteEventLogStorage and _has(events, "_connect", "_initdb", "_db_lock"):
        databases = _EventDatabases(events)
        _replace(events, "_connect", databases.connect, databases.close)
        _remember_tables(events)
    for storage, kind in (
        (instance.run_storage, SqliteRunStorage),
        (instance.schedule_storage, SqliteScheduleStorage),
    ):
        if type(storage) is kind and _has(storage, "connect", "_conn_string"):
            one = _Database(vars(storage)["_conn_string"])
            _replace(storage, "connect", one.connect, one.close)
    _keep_to_postgres(events)
    _keep_to_postgres(instance.run_storage)


def _keep_to_postgres(storage: Any) -> None:
    """Have a storage keep one connection to its Postgres; threads that come meanwhile open theirs."""
    if not _has(storage, "postgres_url", "_engine", "_token_provider"):
        return
    from sqlalchemy.pool import NullPool

    try:
        from dagster_postgres.utils import create_pg_engine
    except ImportError:
        return
    if not isinstance(storage._engine.pool, NullPool):
        # It keeps them already.
        return
    _remember_tables(storage)
    storage._engine = create_pg_engine(
        storage.postgres_url,
        storage._token_provider,
        isolation_level="AUTOCOMMIT",
        pool_size=1,
        max_overflow=-1,
        pool_pre_ping=True,
    )


def _remember_tables(storage: Any) -> None:
    """Have a storage look once whether a table is there: it does so for each event of an asset."""
    if not _has(storage, "has_table") or "has_table" in vars(storage):
        return
    look = storage.has_table
    there: set[str] = set()

    def has_table(name: str) -> bool:
        if name not in there and look(name):
            there.add(name)
        return name in there

    storage.has_table = has_table


def _has(storage: object, *names: str) -> bool:
    return all(hasattr(storage, name) for name in names)


def _replace(
    storage: Any,
    name: str,
    connect: Callable[..., AbstractContextManager[Connection]],
    close: Callable[[], None],
) -> None:
    """Put a way to connect in the place of a storage's own, until the storage is disposed of."""
    if name in vars(storage):
        return
    dispose = storage.dispose

    def dispose_of_both() -> None:
        vars(storage).pop(name, None)
        vars(storage).pop("dispose", None)
        close()
        dispose()

    setattr(storage, name, connect)
    storage.dispose = dispose_of_both


def _engine(address: str) -> Engine:
    """Return an engine that keeps one connection; threads that come meanwhile have their own."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import QueuePool

    return create_engine(
        address,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=-1,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
    )


class _Database:
    """One file, which several threads may use at once."""

    def __init__(self, address: str) -> None:
        self._engine = _engine(address)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self._engine.dispose()


class _EventDatabases:
    """The database of all runs' asset events, and one a run."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        # The one that was used last stands last.
        self._open: dict[str, Engine] = {}
        self._empty: bytes | None = None

    @contextmanager
    def connect(self, shard: str) -> Iterator[Connection]:
        with self._storage._db_lock:
            engine = self._engine(shard)
            with engine.connect() as connection:
                driver: Any = connection.connection.driver_connection
                before = driver.total_changes
                with connection.begin():
                    yield connection
                changed = driver.total_changes > before
            if changed and shard != INDEX_OF_EVENTS:
                # A page that follows the run watches this file, and what was stored lies in the one beside it.
                os.utime(self._storage.path_for_shard(shard))

    def close(self) -> None:
        with self._storage._db_lock:
            while self._open:
                self._open.popitem()[1].dispose()

    def _engine(self, shard: str) -> Engine:
        engine = self._open.pop(shard, None)
        if engine is None:
            engine = _engine(self._storage.conn_string_for_shard(shard))
            if shard not in self._storage._initialized_dbs:
                if not self._copied(Path(self._storage.path_for_shard(shard))):
                    self._storage._initdb(engine)
                self._storage._initialized_dbs.add(shard)
        self._open[shard] = engine
        runs = [name for name in self._open if name != INDEX_OF_EVENTS]
        for name in runs[:-RUNS_OPEN]:
            self._open.pop(name).dispose()
        return engine

    def _copied(self, path: Path) -> bool:
        """Make the database of a new run. Return True if it did; one that is there stays as it is."""
        if path.exists():
            return False
        from sqlalchemy.exc import SQLAlchemyError

        unlinked = path.with_name(f".{path.stem}-{os.getpid()}")
        try:
            if self._empty is None:
                self._empty = self._made_empty()
            unlinked.write_bytes(self._empty)
            # Whole or not at all, and never in the place of another process's.
            os.link(unlinked, path)
        # Where there is no room for temporary files, too, there may be some for the database itself.
        except (OSError, SQLAlchemyError):
            return False
        finally:
            unlinked.unlink(missing_ok=True)
        return True

    def _made_empty(self) -> bytes:
        with tempfile.TemporaryDirectory(dir=temporary_folder()) as folder:
            made = Path(folder, "empty.db")
            engine = _engine(f"sqlite:///{made}")
            self._storage._initdb(engine)
            engine.dispose()
            return made.read_bytes()
