"""An instance of Dagster in memory, for runs in the process of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
from sqlalchemy.pool import QueuePool


def ephemeral_instance(folder: Path) -> dg.DagsterInstance:
    """Make one whose files lie in `folder`; it keeps its connection to the log of events.

    Dagster's own opens one for each query, which takes a tenth of all that a run takes.
    """
    instance = dg.DagsterInstance.ephemeral(tempdir=str(folder))
    events: Any = instance.event_log_storage
    engine = sqlalchemy.create_engine(
        events._engine.url,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=-1,
        connect_args={"check_same_thread": False},
    )

    @contextmanager
    def connect() -> Iterator[sqlalchemy.Connection]:
        with events._db_lock, engine.connect() as connection, connection.begin():
            yield connection

    events._connect = connect
    return instance
