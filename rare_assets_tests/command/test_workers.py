"""Runs side by side in processes of their own: every one has a result, whatever happens to another."""

import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections import deque

import dagster as dg
import pytest

from rare_assets.automation.instance import prepare_home
from rare_assets.command.stops import STOPS, interrupt
from rare_assets.command.workers import Request, RunPool
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.tags import PROCESS_TAG
from rare_assets.storage.tables import ParquetTables
from rare_assets_tests.support.fake_endpoint import FakeEndpoint, Fault
from rare_assets_tests.support.graph import API_KEY, MODEL
from rare_assets_tests.support.passages import passage, write_jsonl
from rare_assets_tests.support.rows import rows

SHARDS = ["a", "b", "c", "d"]


@pytest.fixture
def instance(nothing_set, tmp_path):
    """The instance that worker processes find by the environment, with documents of four shards."""
    for name, value in {
        "DAGSTER_HOME": str(tmp_path / "home"),
        "RARE_STORAGE": str(tmp_path / "storage"),
        "RARE_SOURCE": str(tmp_path / "corpus"),
        "RARE_MODEL": MODEL,
        "OPENAI_API_KEY": API_KEY,
    }.items():
        nothing_set.setenv(name, value)
    prepare_home()
    tables = ParquetTables(str(tmp_path / "storage"))
    for number, shard in enumerate(SHARDS):
        document = {"doc_id": f"p{number}", "text": passage(number), "n_words": 40}
        tables.write("documents", shard, rows("documents", document))
    write_jsonl(tmp_path / "corpus" / "a.jsonl", range(2))
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(UNNAMED.partitions_name, SHARDS)
        yield instance


def request_for(shard, **config):
    ops = {"questions": {"config": config}} if config else {}
    return Request("test", str(uuid.uuid4()), "rare_job", ("questions",), shard, {"ops": ops})


def in_turn(requests, at_once):
    """Starts runs in their order, so many side by side."""
    waiting = deque(requests)
    return lambda running: waiting.popleft() if waiting and len(running) < at_once else None


class Told:
    """What the pool told about its runs, and what is done about it."""

    def __init__(self, act=lambda running: None):
        self.most_at_once = 0
        self.done = []
        self.tick = act

    def in_turn(self, requests, at_once):
        """As above, and notes how many there are after each start: by the next tick one may have ended."""
        start = in_turn(requests, at_once)

        def noted(running):
            self.most_at_once = max(self.most_at_once, len(running))
            return start(running)

        return noted


def errors(results):
    return {result.request.shard: result.error for result in results}


def status(instance, requests):
    """Status of the run of each shard, None where there is no run."""
    runs = {each.shard: instance.get_run_by_id(each.run_id) for each in requests}
    return {shard: run and run.status for shard, run in runs.items()}


def test_a_failed_run_and_a_killed_process_stop_no_other_run(instance, nothing_set):
    """One run of two in flight loses its process; one fails; the others end well, and a later one."""
    instance.add_dynamic_partitions(UNNAMED.partitions_name, ["missing"])
    requests = [request_for(shard) for shard in ("a", "b", "missing", "c")]
    killed, far = [], []

    def hang(body):
        return Fault("slow", 3600) if passage(1) in str(body["messages"]) else None

    def kill(running):
        """Kill the process of shard b, whose answer never comes, when a and it are under way."""
        arrived = any(passage(1) in str(sent.body["messages"]) for sent in endpoint.requests)
        for each in running if arrived and not killed else ():
            if each.shard == "b":
                run = instance.get_run_by_id(each.run_id)
                killed.append(int(run.tags[PROCESS_TAG].rpartition(":")[2]))
                far.append(runs.step_state(each))
                os.kill(killed[0], signal.SIGKILL)

    told = Told(kill)
    with FakeEndpoint(fault_for=hang) as endpoint, RunPool(instance) as runs:
        nothing_set.setenv("OPENAI_BASE_URL", endpoint.url)
        start = told.in_turn(requests, 2)
        results = runs.execute_all(start, tick=told.tick, done=told.done.append)
        later = told.in_turn([request_for("d")], 2)
        results += runs.execute_all(later, tick=told.tick, done=told.done.append)
    assert killed
    assert [moment[:3] for moment in far] == [("questions", 0, 1)]
    found = errors(results)
    assert {shard for shard, error in found.items() if error is None} == {"a", "c", "d"}
    assert "killed" in found["b"]
    assert "materialize documents" in found["missing"]
    assert told.done == results
    assert told.most_at_once == 2
    success, failure = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
    assert status(instance, [result.request for result in results]) == {
        **{"a": success, "b": failure, "missing": failure, "c": success, "d": success}
    }
    assert instance.event_log_storage.get_concurrency_run_ids() == set()


def test_an_error_that_every_run_would_meet_is_told_as_such(instance, nothing_set):
    told = Told()
    with FakeEndpoint(key="sk-another") as endpoint, RunPool(instance) as runs:
        nothing_set.setenv("OPENAI_BASE_URL", endpoint.url)
        start = in_turn([request_for("a")], 1)
        results = runs.execute_all(start, tick=told.tick, done=told.done.append)
    assert results[0].stops_others
    assert "401" in results[0].error
    assert len(endpoint.requests) == 1


def test_a_run_config_that_dagster_refuses_is_an_error_of_the_run(instance):
    request = request_for("a")._replace(run_config={"nonsense": 1})
    told = Told()
    with RunPool(instance) as runs:
        (result,) = runs.execute_all(in_turn([request], 1), tick=told.tick, done=told.done.append)
    assert "nonsense" in result.error
    assert result.stops_others


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_a_stop_while_a_worker_starts_is_acted_on_and_leaves_none_behind(
    instance, nothing_set, monkeypatch, number, times
):
    start_worker = RunPool._worker

    def stopped(pool):
        worker = start_worker(pool)
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.1)
        return worker

    monkeypatch.setattr(RunPool, "_worker", stopped)
    requests = [request_for(shard) for shard in SHARDS]
    before = {n: signal.signal(n, interrupt) for n in STOPS}
    # A thread beside, as a command has many, may be the one that the system gives a signal to.
    ended = threading.Event()
    beside = threading.Thread(target=ended.wait)
    beside.start()
    try:
        with FakeEndpoint(latency=3600) as endpoint:
            nothing_set.setenv("OPENAI_BASE_URL", endpoint.url)
            with pytest.raises(KeyboardInterrupt), RunPool(instance) as runs:
                runs.execute_all(in_turn(requests, 1), tick=print, done=print)
    finally:
        ended.set()
        beside.join()
        for n, handler in before.items():
            signal.signal(n, handler)
    assert multiprocessing.active_children() == []
    assert set(status(instance, requests).values()) <= {None, dg.DagsterRunStatus.CANCELED}


def test_an_exception_here_ends_the_runs_there(instance, nothing_set):
    """As when the terminal is interrupted: nothing asks on, and no run counts as started."""
    requests = [request_for(shard) for shard in SHARDS]

    def interrupt(running):
        if len(endpoint.requests) == 2:
            raise KeyboardInterrupt

    def run_all():
        with RunPool(instance) as runs:
            runs.execute_all(in_turn(requests, 2), tick=interrupt, done=print)

    with FakeEndpoint(latency=3600) as endpoint:
        nothing_set.setenv("OPENAI_BASE_URL", endpoint.url)
        with pytest.raises(KeyboardInterrupt):
            run_all()
        assert len(endpoint.requests) == 2
    assert multiprocessing.active_children() == []
    failure = dg.DagsterRunStatus.FAILURE
    assert status(instance, requests) == {"a": failure, "b": failure, "c": None, "d": None}
