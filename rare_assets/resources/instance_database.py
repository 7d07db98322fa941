"""The database of a Dagster instance, where that is one that several hosts share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import dagster as dg


def postgres_of(instance: dg.DagsterInstance) -> Callable[[], AbstractContextManager[Any]] | None:
    """Return what opens a connection (of SQLAlchemy) to the instance's Postgres; None if it has none.

    Dagster opens it: address, password and tokens stay where they are.
    """
    storage = instance.run_storage
    connect = getattr(storage, "connect", None)
    return connect if connect is not None and getattr(storage, "postgres_url", None) else None
