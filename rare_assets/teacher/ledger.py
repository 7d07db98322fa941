"""Count together what steps at work at the same time spend, and when a rate is free again.

On one machine the counts lie in a SQLite file, between hosts in a Postgres database, by the same statements.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Opens a connection of SQLAlchemy to a Postgres database that commits each statement.
Connect = Callable[[], AbstractContextManager["Connection"]]

# So long after its last entry nobody counts in a scope any more.
FORGOTTEN_S = 30 * 86400.0
_BUSY_S = 30.0
# No rate holds anything back for longer, whatever was entered.
LONGEST_WAIT_S = 600.0
# Rounding leaves less than this of reservations given back.
NO_MONEY = 1e-9
# Pauses before a statement is tried again on a new connection.
_RETRY_AFTER_S = (0.0, 1.0, 3.0)
# Hosts go by the clock of the database that they share.
_DATABASE_NOW = "extract(epoch from clock_timestamp())::double precision"


class Spent(NamedTuple):
    """Requests sent, US dollars that answers have cost, and US dollars reserved for what is in flight."""

    requests: int
    cost_usd: float
    reserved_usd: float


class Ledger:
    """Count requests and US dollars, in memory or in a database that several processes share.

    Args:
        place: a SQLite file on a disk of this machine, made at the first entry; or a function that connects
            to a Postgres database, for processes of several hosts. None: in memory.
        scope: what is spent together, as the id of a run or of a backfill. Rates do not belong to a scope:
            an endpoint's rate holds for all that ask it.
        stage: what is asked for; usable and unusable answers are counted for each stage.

    Example:
        >>> ledger = Ledger()
        >>> ledger.reserve(0.5, max_requests=1, max_cost_usd=None)
        True
        >>> ledger.reserve(0.5, max_requests=1, max_cost_usd=None)
        False
        >>> ledger.spent()
        Spent(requests=1, cost_usd=0.0, reserved_usd=0.5)
    """

    def __init__(
        self, place: Path | Connect | None = None, scope: str = "", stage: str = ""
    ) -> None:
        self._place = place
        self._scope = scope
        self._stage = stage
        self._opened = ExitStack()
        self._between_hosts = place is not None and not isinstance(place, Path)

    def __repr__(self) -> str:
        place = "a database between hosts" if self._between_hosts else self._place
        return f"Ledger({str(place)!r}, {self._scope!r})"

    @property
    def shared(self) -> bool:
        """True if other processes may count in it."""
        return self._place is not None

    def spent(self) -> Spent:
        """Return the sums of the scope so far."""
        row = self._execute(
            "SELECT requests, cost_usd, reserved_usd FROM {spent} WHERE scope = :scope"
        )
        return (
            Spent(0, 0.0, 0.0) if row is None else Spent(int(row[0]), float(row[1]), float(row[2]))
        )

    def forget_reserved(self, silent_s: float) -> None:
        """Give back all reservations if nothing was entered for `silent_s` seconds: their makers are gone.

        A process with requests in flight for longer calls `add()` without amounts now and then.
        """
        self._execute(
            "UPDATE {spent} SET reserved_usd = 0.0 WHERE scope = :scope AND at < {now} - :silent",
            silent=silent_s,
        )

    def add(self, *, requests: int = 0, cost_usd: float = 0.0, reserved_usd: float = 0.0) -> Spent:
        """Enter amounts, and return the sums with them; a negative reservation gives one back."""
        row = self._execute(
            _ADD + " RETURNING requests, cost_usd, reserved_usd",
            requests=requests,
            cost=cost_usd,
            reserved=reserved_usd,
        )
        return Spent(int(row[0]), float(row[1]), float(row[2]))

    def reserve(
        self, expected_usd: float, *, max_requests: int | None, max_cost_usd: float | None
    ) -> bool:
        """Enter one request and its expected cost if both limits leave room; return whether they did.

        A request that is expected to exceed the limit on cost is let through while nothing else is
        reserved, since it may cost less.

        Args:
            expected_usd: expected cost in US dollars.
            max_requests: limit on requests; None for none.
            max_cost_usd: limit on cost in US dollars; None for none.
        """
        room = []
        if max_requests is not None:
            room.append("{spent}.requests < :max_requests")
        if max_cost_usd is not None:
            room.append("{spent}.cost_usd < :most")
            room.append(
                "({spent}.cost_usd + {spent}.reserved_usd + :reserved <= :most "
                f"OR {{spent}}.reserved_usd <= {NO_MONEY})"
            )
        only = f" WHERE {' AND '.join(room)}" if room else ""
        limits = {"max_requests": max_requests, "most": max_cost_usd}
        row = self._execute(
            f"{_ADD}{only} RETURNING requests",
            requests=1,
            cost=0.0,
            reserved=expected_usd,
            **{name: limit for name, limit in limits.items() if limit is not None},
        )
        return row is not None

    def judged(self, *, usable: int = 0, unusable: int = 0) -> tuple[int, int]:
        """Count usable and unusable answers, and return the sums of the stage with them."""
        row = self._execute(_JUDGE, stage=self._stage, usable=usable, unusable=unusable)
        return int(row[0]), int(row[1])

    def delay(self, rate: str, *, now: float) -> float:
        """Return the seconds until a rate is free again; 0.0 or less if it is free now.

        Args:
            rate: its name.
            now: Unix time of the caller's clock; a database between hosts goes by its own.

        Returns:
            At most `LONGEST_WAIT_S`.
        """
        row = self._execute(
            f"SELECT {_FREE_AT} - {{now}} FROM {{rates}} WHERE rate = :rate", now=now, rate=rate
        )
        return float(row[0]) if row is not None else 0.0

    def postpone(self, rate: str, seconds: float, *, now: float, restart: bool = False) -> None:
        """Make a rate free so many seconds later.

        Args:
            rate: its name.
            seconds: to wait longer; negative to wait less.
            now: Unix time of the caller's clock; a database between hosts goes by its own.
            restart: count the seconds from now if the rate is free already.
        """
        since, start = _FREE_AT, "0.0"
        if restart:
            since, start = f"{{greatest}}({_FREE_AT}, {{now}})", "{now}"
        self._execute(
            f"INSERT INTO {{rates}} VALUES (:rate, {start} + :seconds, {{now}}) ON CONFLICT (rate) "
            f"DO UPDATE SET free_at = {since} + :seconds, at = {{now}}",
            rate=rate,
            seconds=seconds,
            now=now,
        )

    def close(self) -> None:
        """Close the connection to the database."""
        self.__dict__.pop("_connection", None)
        self._opened.close()

    # ---- the database

    @cached_property
    def _words(self) -> dict[str, str]:
        """The words that differ between the two databases; in Postgres our tables bear our name."""
        if self._between_hosts:
            tables = {name: f"rare_assets_{name}" for name in _TABLES}
            return {"least": "least", "greatest": "greatest", "now": _DATABASE_NOW, **tables}
        tables = {name: name for name in _TABLES}
        return {"least": "min", "greatest": "max", "now": ":now", **tables}

    def _execute(self, statement: str, *, now: float | None = None, **values: Any) -> Any:
        """Return the first row of a statement's result; None if it has none."""
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        values |= {"scope": self._scope, "now": time.time() if now is None else now}
        prepared = text(statement.format(**self._words))
        for pause in _RETRY_AFTER_S:
            try:
                result = self._connection.execute(prepared, values)
                return result.first() if result.returns_rows else None
            except DBAPIError as error:
                # A server that was started anew, or a pooler that has closed what was idle.
                if not error.connection_invalidated:
                    raise
                self.close()
                time.sleep(pause)
        result = self._connection.execute(prepared, values)
        return result.first() if result.returns_rows else None

    @cached_property
    def _connection(self) -> Connection:
        from sqlalchemy import text

        place = self._place
        if place is None or isinstance(place, Path):
            connection = self._opened.enter_context(_sqlite(place))
        else:
            connection = self._opened.enter_context(place())
        self._make_tables(connection)
        long_ago = {"seconds": FORGOTTEN_S}
        if not self._between_hosts:
            long_ago["now"] = time.time()
        for table in _TABLES:
            delete = f"DELETE FROM {self._words[table]} WHERE at < {self._words['now']} - :seconds"
            connection.execute(text(delete), long_ago)
        return connection

    def _make_tables(self, connection: Connection) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        for table, columns in _TABLES.items():
            make = f"CREATE TABLE IF NOT EXISTS {self._words[table]} ({columns})"
            try:
                connection.execute(text(make))
            except DBAPIError:
                # Two that make one at once: Postgres fails the later one. It is there then.
                connection.execute(text(make))


def _sqlite(path: Path | None) -> AbstractContextManager[Connection]:
    """Return a connection to a SQLite file, or to nothing but memory."""
    from sqlalchemy import URL, create_engine, text
    from sqlalchemy.pool import NullPool

    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        URL.create("sqlite", database=None if path is None else str(path)),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        connect_args={"timeout": _BUSY_S, "check_same_thread": False},
    )
    connection = engine.connect()
    # Statements commit one by one; what a power failure takes back was spent in a run that it ended.
    connection.execute(text("PRAGMA synchronous = OFF"))
    return connection


_TABLES = {
    "spent": "scope TEXT PRIMARY KEY, requests INTEGER, cost_usd DOUBLE PRECISION, "
    "reserved_usd DOUBLE PRECISION, at DOUBLE PRECISION",
    "rates": "rate TEXT PRIMARY KEY, free_at DOUBLE PRECISION, at DOUBLE PRECISION",
    "judged": "scope TEXT, stage TEXT, usable INTEGER, unusable INTEGER, at DOUBLE PRECISION, "
    "PRIMARY KEY (scope, stage)",
}
_ADD = (
    "INSERT INTO {spent} VALUES (:scope, :requests, :cost, :reserved, {now}) "
    "ON CONFLICT (scope) DO UPDATE SET requests = {spent}.requests + :requests, "
    "cost_usd = {spent}.cost_usd + :cost, "
    "reserved_usd = {greatest}(0.0, {spent}.reserved_usd + :reserved), at = {now}"
)
_JUDGE = (
    "INSERT INTO {judged} VALUES (:scope, :stage, :usable, :unusable, {now}) "
    "ON CONFLICT (scope, stage) DO UPDATE SET usable = {judged}.usable + :usable, "
    "unusable = {judged}.unusable + :unusable, at = {now} RETURNING usable, unusable"
)
# An entry from the future is of a clock that was ahead: what it left to wait counts from now.
_FREE_AT = (
    "{least}({rates}.free_at - {greatest}(0.0, {rates}.at - {now}), "
    f"{{least}}({{rates}}.at, {{now}}) + {LONGEST_WAIT_S})"
)
