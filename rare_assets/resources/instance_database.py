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


def counted_alone(instance: dg.DagsterInstance) -> str:
    """Return what to tell of limits where the instance's database is one that several hosts share and that
    can't count for them, as MySQL; "" where it can, or is a file of this machine."""
    connect = getattr(instance.run_storage, "connect", None)
    if connect is None or postgres_of(instance) is not None:
        return ""
    with connect() as connection:
        dialect = connection.dialect.name
    if dialect == "sqlite":
        return ""
    return (
        f"Limits and rates are counted on each host for itself, since this Dagster instance lies in {dialect}: "
        "only Postgres counts for several hosts. With one host nothing is lost; else put the instance on "
        "Postgres, or divide the limits by the number of hosts."
    )
