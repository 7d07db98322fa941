"""An instance of Dagster in memory, for runs in the process of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy

from rare_assets.resources.dagster_internals.connections import _Database


def ephemeral_instance(folder: Path) -> dg.DagsterInstance:
    """Make one whose files lie in `folder`; it keeps its connection to the log of events.

    Dagster's own opens one for each query, which takes a tenth of all that a run takes.
    """
    instance = dg.DagsterInstance.ephemeral(tempdir=str(folder))
    events: Any = instance.event_log_storage
    database = _Database(str(events._engine.url))

    @contextmanager
    def connect() -> Iterator[sqlalchemy.Connection]:
        with events._db_lock, database.connect() as connection:
            yield connection

    events._connect = connect
    return instance
