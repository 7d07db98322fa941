"""What steps that work side by side count together: what has been spent, and when a rate is free again."""

from __future__ import annotations

import sqlite3
import time
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

# So long after its last entry nobody counts in a scope any more.
FORGOTTEN_S = 30 * 86400.0
_BUSY_S = 30.0
# No rate holds anything back for longer, whatever was entered.
LONGEST_WAIT_S = 600.0
# An entry from the future is of a clock that was ahead: what it left to wait counts from now.
_FREE_AT = f"min(free_at - max(0.0, at - :now), min(at, :now) + {LONGEST_WAIT_S})"


class Spent(NamedTuple):
    """Requests sent, dollars that answers have cost, and dollars expected for what is in flight."""

    requests: int
    cost_usd: float
    reserved_usd: float


class Ledger:
    """Counts requests and dollars, in memory or in a SQLite file that several processes share.

    Args:
        path: the file, on a disk of this machine; made at the first entry. None: in memory.
        scope: what is spent together, as the id of a run or of a backfill. Rates have names of
            their own, since an endpoint's hold for whatever asks it.
        stage: what is asked for; answers that can and can't be used are counted for each.
    """

    def __init__(self, path: Path | None = None, scope: str = "", stage: str = "") -> None:
        self._path = path
        self._scope = scope
        self._stage = stage

    def __repr__(self) -> str:
        return f"Ledger({str(self._path)!r}, {self._scope!r})"

    @property
    def shared(self) -> bool:
        """Whether other processes may count in it."""
        return self._path is not None

    def spent(self) -> Spent:
        """The sums so far."""
        return self.add()

    def add(self, *, requests: int = 0, cost_usd: float = 0.0, reserved_usd: float = 0.0) -> Spent:
        """Enter amounts (a reservation is given back by a negative one); the sums with them."""
        row = self._connection.execute(
            "INSERT INTO spent VALUES (:scope, :requests, :cost, :reserved, :now) "
            "ON CONFLICT (scope) DO UPDATE SET requests = requests + :requests, "
            "cost_usd = cost_usd + :cost, reserved_usd = reserved_usd + :reserved, at = :now "
            "RETURNING requests, cost_usd, reserved_usd",
            {
                "scope": self._scope,
                "requests": requests,
                "cost": cost_usd,
                "reserved": reserved_usd,
                "now": time.time(),
            },
        ).fetchone()
        return Spent(*row)

    def judged(self, *, usable: int = 0, unusable: int = 0) -> tuple[int, int]:
        """Count answers that could be used and that could not; the sums of the stage with them."""
        row = self._connection.execute(
            "INSERT INTO judged VALUES (:scope, :stage, :usable, :unusable, :now) "
            "ON CONFLICT (scope, stage) DO UPDATE SET usable = usable + :usable, "
            "unusable = unusable + :unusable, at = :now RETURNING usable, unusable",
            {
                "scope": self._scope,
                "stage": self._stage,
                "usable": usable,
                "unusable": unusable,
                "now": time.time(),
            },
        ).fetchone()
        return int(row[0]), int(row[1])

    def free_at(self, rate: str, *, now: float) -> float:
        """When what is limited by a rate may be used again, by a clock that says `now`; 0.0 if it
        never was. Never later than `LONGEST_WAIT_S` from now."""
        row = self._connection.execute(
            f"SELECT {_FREE_AT} FROM rates WHERE rate = :rate", {"rate": rate, "now": now}
        )
        return float((row.fetchone() or (0.0,))[0])

    def postpone(self, rate: str, seconds: float, *, now: float, restart: bool = False) -> None:
        """Move `free_at` by so many seconds; with `restart`, counted from now if that is later."""
        since = f"max({_FREE_AT}, :now)" if restart else _FREE_AT
        self._connection.execute(
            "INSERT INTO rates VALUES (:rate, :start + :seconds, :now) ON CONFLICT (rate) "
            f"DO UPDATE SET free_at = {since} + :seconds, at = :now",
            {"rate": rate, "seconds": seconds, "now": now, "start": now if restart else 0.0},
        )

    def close(self) -> None:
        """Let go of the file."""
        if "_connection" in self.__dict__:
            self.__dict__.pop("_connection").close()

    @cached_property
    def _connection(self) -> sqlite3.Connection:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        # Statements commit one by one; what a power failure takes back was spent in a run that it ended.
        connection = sqlite3.connect(
            self._path or ":memory:",
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS spent (scope TEXT PRIMARY KEY, requests INTEGER, "
            "cost_usd REAL, reserved_usd REAL, at REAL)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS rates (rate TEXT PRIMARY KEY, free_at REAL, at REAL)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS judged (scope TEXT, stage TEXT, usable INTEGER, "
            "unusable INTEGER, at REAL, PRIMARY KEY (scope, stage))"
        )
        for table in ("spent", "rates", "judged"):
            connection.execute(f"DELETE FROM {table} WHERE at < ?", (time.time() - FORGOTTEN_S,))
        return connection
