"""Sums that hold whoever enters amounts, in one process or in several."""

import multiprocessing
import sqlite3
import time

from rare_assets.teacher.ledger import FORGOTTEN_S, Ledger, Spent


def enter(path, scope, times):
    ledger = Ledger(path, scope)
    for _ in range(times):
        ledger.add(requests=1, cost_usd=0.25, reserved_usd=0.5)
        ledger.add(reserved_usd=-0.5)
    ledger.close()


def test_amounts_add_up_in_memory():
    ledger = Ledger()
    assert ledger.spent() == Spent(0, 0.0, 0.0)
    assert ledger.add(requests=1, reserved_usd=0.5) == Spent(1, 0.0, 0.5)
    assert ledger.add(cost_usd=0.25, reserved_usd=-0.5) == Spent(1, 0.25, 0.0)
    assert not ledger.shared


def test_processes_count_together_and_scopes_apart(tmp_path):
    path = tmp_path / "new" / "spent.sqlite3"
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=enter, args=(path, scope, 100)) for scope in ("a", "a", "b")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert Ledger(path, "a").spent() == Spent(200, 50.0, 0.0)
    assert Ledger(path, "b").spent() == Spent(100, 25.0, 0.0)


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
