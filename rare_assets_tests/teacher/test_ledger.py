"""Sums that hold whoever enters amounts, in one process or in several."""

import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy

from rare_assets.resources.processes import process_context
from rare_assets.teacher.ledger import FORGOTTEN_S, Ledger, Spent
from rare_assets.teacher.pacing import RateLimit


class Postgres:
    """Connects to a database as Dagster's storage does; another process can take it along."""

    def __init__(self, url):
        self.url = url

    @contextmanager
    def connect(self):
        engine = sqlalchemy.create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """Where processes count together."""
    if request.param == "sqlite":
        return tmp_path / "new" / "spent.sqlite3"
    return Postgres(request.getfixturevalue("postgres_database").url).connect


def enter(path, scope, times):
    ledger = Ledger(path, scope)
    for _ in range(times):
        ledger.add(requests=1, cost_usd=0.25, reserved_usd=0.5)
        ledger.add(reserved_usd=-0.5)
    ledger.close()


def reserve(place, scope, times, answered):
    """Ask for so many requests, each of half a dollar; say how many were let through."""
    ledger = Ledger(place, scope)
    limits = {"max_requests": 50, "max_cost_usd": 20.0}
    answered.put(sum(ledger.reserve(0.5, **limits) for _ in range(times)))
    ledger.close()


def test_what_nobody_enters_anything_for_is_given_back(place):
    """As a process leaves it that is killed."""
    lost, other = Ledger(place, "run"), Ledger(place, "run")
    lost.add(requests=1, cost_usd=0.25, reserved_usd=0.5)
    other.forget_reserved(3600.0)
    assert other.spent() == Spent(1, 0.25, 0.5)
    limits = {"max_requests": None, "max_cost_usd": 1.0}
    assert not other.reserve(0.75, **limits)
    time.sleep(0.01)
    # Looking is no entry.
    assert other.spent() == Spent(1, 0.25, 0.5)
    other.forget_reserved(0.0)
    assert other.reserve(0.75, **limits)
    # It was alive after all: no more is given back than there is.
    assert lost.add(reserved_usd=-1.5) == Spent(2, 0.25, 0.0)
    for ledger in (lost, other):
        ledger.close()


def test_amounts_add_up_in_memory():
    ledger = Ledger()
    assert ledger.spent() == Spent(0, 0.0, 0.0)
    assert ledger.add(requests=1, reserved_usd=0.5) == Spent(1, 0.0, 0.5)
    assert ledger.add(cost_usd=0.25, reserved_usd=-0.5) == Spent(1, 0.25, 0.0)
    assert not ledger.shared


def started(target, *arguments):
    """Processes of one target, with each of these arguments, all at an end."""
    context = process_context()
    processes = [context.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_processes_count_together_and_scopes_apart(place):
    started(enter, *((place, scope, 100) for scope in ("a", "a", "b")))
    assert Ledger(place, "a").spent() == Spent(200, 50.0, 0.0)
    assert Ledger(place, "b").spent() == Spent(100, 25.0, 0.0)
    one, other = Ledger(place, "a", "questions"), Ledger(place, "a", "reasoning")
    assert one.judged(usable=1) == (1, 0)
    assert other.judged(unusable=2) == (0, 2)
    assert one.judged() == (1, 0)


def test_no_more_is_reserved_than_the_limits_leave_however_many_ask_at_once(place):
    answered = process_context().SimpleQueue()
    started(reserve, *((place, "a", 40, answered) for _ in range(3)))
    # At half a dollar each.
    assert sum(answered.get() for _ in range(3)) == 40
    ledger = Ledger(place, "a")
    assert ledger.spent() == Spent(40, 0.0, 20.0)
    assert ledger.reserve(9.0, max_requests=50, max_cost_usd=None)
    ledger.add(requests=9)
    assert not ledger.reserve(0.0, max_requests=50, max_cost_usd=None)


def test_a_request_that_is_expected_to_cost_too_much_goes_alone(place):
    ledger = Ledger(place)
    ledger.spent()
    limit = {"max_requests": None, "max_cost_usd": 1.0}
    assert ledger.reserve(5.0, **limit)
    assert not ledger.reserve(0.1, **limit)
    ledger.add(reserved_usd=-5.0, cost_usd=0.5)
    assert ledger.reserve(0.5, **limit)
    ledger.add(reserved_usd=-0.5, cost_usd=0.5)
    assert not ledger.reserve(0.0, **limit)


def test_between_hosts_a_rate_goes_by_the_clock_of_their_database(postgres_database):
    connect = Postgres(postgres_database.url).connect
    ahead, behind = (
        RateLimit(60, lambda clock=clock: clock, Ledger(connect), "r") for clock in (4e9, 1e6)
    )
    ahead.take(100)
    assert 95 < behind.delay() <= 100
    behind.correct(-50)
    assert 45 < ahead.delay() <= 50


def test_a_database_that_was_started_anew_is_connected_to_again(postgres_database):
    ledger = Ledger(Postgres(postgres_database.url).connect, "a")
    ledger.add(requests=1)
    with sqlalchemy.create_engine(postgres_database.url).connect() as other:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = :name"
        other.execute(sqlalchemy.text(end), {"name": postgres_database.name})
    assert ledger.add(requests=1).requests == 2


def test_no_address_is_shown(place):
    said = repr(Ledger(place, "a"))
    assert "postgresql" not in said
    assert (
        said == f"Ledger({str(place)!r}, 'a')"
        if isinstance(place, Path)
        else "between hosts" in said
    )


def test_what_nobody_counts_in_any_more_is_forgotten(tmp_path):
    path = tmp_path / "spent.sqlite3"
    enter(path, "old", 1)
    enter(path, "new", 1)
    with sqlite3.connect(path) as connection:
        stale = time.time() - FORGOTTEN_S - 1
        connection.execute("UPDATE spent SET at = ? WHERE scope = 'old'", (stale,))
    connection.close()
    assert Ledger(path, "new").spent().requests == 1
    assert Ledger(path, "old").spent().requests == 0
