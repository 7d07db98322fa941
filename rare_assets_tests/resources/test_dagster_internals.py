"""A step that waits for its place in a pool: it sleeps, looks again soon, and then works."""

import contextlib
import gc
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION, get_alembic_config

from rare_assets.build import build_defs
from rare_assets.resources.dagster_internals import (
    PoolPlaces,
    execute_created_run,
    executor,
    keep_connections,
    keep_migrations,
    one_process_executor,
)
from rare_assets.resources.tags import BACKFILL_TAG
from rare_assets.stages.options import check_run_config
from rare_assets_tests.support.graph import Graph
from rare_assets_tests.support.passages import write_jsonl

POOL = "teacher"
BLOCKED = "blocked by limit for pool"


@dg.asset(pool=POOL)
def asked() -> int:
    return 1


@dg.asset
def after(asked: int) -> int:
    return asked + 1


defs = dg.Definitions(
    [asked, after],
    jobs=[dg.define_asset_job("job", [asked, after])],
    executor=one_process_executor(check_run_config),
    resources={"io_manager": dg.mem_io_manager},
)


@pytest.fixture
def instance(tmp_path):
    """An instance whose pool has one place, which another run has taken."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(POOL, 1)
        assert storage.claim_concurrency_slot(POOL, "another", "step").is_claimed
        yield instance


@pytest.fixture
def claims(monkeypatch):
    """How often a place was looked for."""
    calls = []
    claim = PoolPlaces.claim
    monkeypatch.setattr(
        PoolPlaces, "claim", lambda self, *given: calls.append(given) or claim(self, *given)
    )
    return calls


def run(instance, **config):
    job = defs.resolve_job_def("job")
    made = instance.create_run_for_job(job, run_config=config)
    return execute_created_run(job, made, instance)


def events(instance):
    (made,) = instance.get_runs()
    return [entry.user_message for entry in instance.all_logs(made.run_id)]


def test_a_step_sleeps_until_its_place_is_free(instance, claims):
    def free_after_some_looks():
        while len(claims) < 3:
            time.sleep(0.01)
        instance.event_log_storage.free_concurrency_slots_for_run("another")

    freeing = threading.Thread(target=free_after_some_looks)
    freeing.start()
    result = run(instance)
    freeing.join()
    assert result.success
    assert any(BLOCKED in message for message in events(instance))
    # Without a pause between them there would be thousands.
    assert len(claims) < 50
    info = instance.event_log_storage.get_concurrency_info(POOL)
    assert (info.active_slot_count, info.pending_step_count) == (0, 0)


def test_processes_that_are_the_first_to_use_a_pool_at_once_each_get_a_place(
    tmp_path, postgres_database
):
    (tmp_path / "dagster.yaml").write_text(
        "concurrency: {pools: {default_limit: 8}}\n" + postgres_database.dagster_yaml()
    )
    made = dg.DagsterRun(job_name="job", run_id=str(uuid.uuid4()))
    ready = threading.Barrier(4)

    def claim(number):
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            found = []
            for pool in range(12):
                with PoolPlaces(instance, made) as places:
                    ready.wait(60)
                    found.append(places.claim(f"pool {pool}", f"step {number}"))
            return found

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.run_storage.get_runs_count()  # the tables are there
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(claim, range(4))) == [[True] * 12] * 4


def test_a_place_is_looked_for_again_at_the_same_interval_however_long_it_takes(
    instance, monkeypatch
):
    now = 1000.0
    monkeypatch.setattr(executor.time, "time", lambda: now)
    job = defs.resolve_job_def("job")
    with PoolPlaces(instance, instance.create_run_for_job(job)) as places:
        for _ in range(40):
            assert not places.claim(POOL, "asked")
            assert places.interval_to_next_pending_claim_check() == pytest.approx(0.5)
            now += 0.4
            assert places.interval_to_next_pending_claim_check() == pytest.approx(0.1)
            now += 0.2
            assert places.interval_to_next_pending_claim_check() == 0
        instance.event_log_storage.free_concurrency_slots_for_run("another")
        assert places.claim(POOL, "asked")


def test_a_free_place_is_taken_at_once(instance, claims):
    instance.event_log_storage.free_concurrency_slots_for_run("another")
    assert run(instance).success
    assert len(claims) == 1
    assert not any(BLOCKED in message for message in events(instance))


def test_steps_are_retried_as_the_config_says(instance):
    instance.event_log_storage.free_concurrency_slots_for_run("another")
    tries = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def shaky() -> int:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("not yet")
        return 1

    shaky_defs = dg.Definitions(
        [shaky],
        jobs=[dg.define_asset_job("shaky_job", [shaky])],
        executor=one_process_executor(check_run_config),
    )
    job = shaky_defs.resolve_job_def("shaky_job")
    made = instance.create_run_for_job(job)
    assert execute_created_run(job, made, instance).success
    tries.clear()
    config = {"execution": {"config": {"retries": {"disabled": {}}}}}
    made = instance.create_run_for_job(job, run_config=config)
    assert not execute_created_run(job, made, instance).success
    assert tries == [1]


def test_it_is_the_executor_of_every_job():
    shipped = build_defs(alone=True)
    jobs = [job.name for job in shipped.jobs]
    assert jobs
    executors = {shipped.resolve_job_def(name).executor_def for name in jobs}
    assert executors == {shipped.executor}


# options of steps, and words of the refusal
OUT_OF_RANGE = {
    "of a later step": (
        {"reasoning": {"max_attempts": 0}},
        "ops.reasoning.config: max_attempts: Input should be greater than or equal to 1",
    ),
    "of two that go together": (
        {"hard_negatives": {"range_min": 98, "num_neg": 5}},
        "ops.hard_negatives.config: range_min=98 to range_max=100 must hold num_neg=5",
    ),
    "of two steps": (
        {"questions": {"num_questions": 2}, "reasoning": {"max_tokens": 0}},
        "ops.reasoning.config: max_tokens: Input should be greater than or equal to 1",
    ),
}


def rare_run(graph, assets, options, **tags):
    """Make a run of some of the assets as a launched one is made, by the executor of the code location."""
    job = graph.defs.resolve_job_def("rare_job")
    run_config = {
        "ops": {asset: {"config": config} for asset, config in options.items()},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    made = graph.instance.create_run_for_job(
        job,
        run_config=run_config,
        tags={"dagster/partition": "a.jsonl", **tags},
        asset_selection=frozenset(map(dg.AssetKey, assets)) if assets else None,
    )
    assert not execute_created_run(job, made, graph.instance).success
    events = [entry.dagster_event for entry in graph.instance.all_logs(made.run_id)]
    (failure,) = [event for event in events if event and event.is_failure]
    assert not any(event and event.is_step_start for event in events)
    return failure.event_specific_data.error.message


@pytest.fixture
def graph(nothing_set, tmp_path):
    graph = Graph(tmp_path)
    write_jsonl(graph.source / "a.jsonl", range(2))
    graph.register()
    assert graph.make("documents_job", "a.jsonl").success
    return graph


@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_options_of_every_step_are_checked_before_the_first_one(graph, case):
    options, said = OUT_OF_RANGE[case]
    assert said in rare_run(graph, [], options)


def test_options_for_the_other_runs_of_a_backfill_are_checked_too(graph):
    options = {"ops": {"reasoning": {"config": {"max_attempts": 0}}}}
    graph.instance.add_backfill(
        PartitionBackfill(
            "ours", BulkActionStatus.REQUESTED, True, {}, 0.0, None, run_config=options
        )
    )
    said = rare_run(graph, ["questions"], {}, **{BACKFILL_TAG: "ours"})
    assert "ops.reasoning.config: max_attempts" in said


def test_an_option_that_comes_from_the_environment_is_left_to_its_step(graph):
    check_run_config({"ops": {"reasoning": {"config": {"max_attempts": {"env": "ATTEMPTS"}}}}})


@pytest.fixture
def home(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)):
        yield tmp_path


def run_of(instance):
    job = defs.resolve_job_def("job")
    return execute_created_run(job, instance.create_run_for_job(job), instance)


def test_what_is_stored_over_kept_connections_is_what_another_instance_reads(home):
    kept, other = dg.DagsterInstance.get(), dg.DagsterInstance.get()
    keep_connections(kept)
    keep_connections(kept)
    try:
        results = [run_of(kept) for _ in range(4)]
        for result in results:
            assert result.success
            assert other.get_run_by_id(result.run_id).is_success
            stored = [each.dagster_event_type for each in other.all_logs(result.run_id)]
            assert stored == [each.dagster_event_type for each in kept.all_logs(result.run_id)]
            assert stored[-1] == dg.DagsterEventType.PIPELINE_SUCCESS
        made = other.fetch_materializations(dg.AssetKey("asked"), limit=10).records
        assert {each.run_id for each in made} == {result.run_id for result in results}
    finally:
        kept.dispose()
        other.dispose()


def test_a_run_that_another_instance_began_goes_on_over_kept_connections(home):
    job = defs.resolve_job_def("job")
    with dg.DagsterInstance.get() as other:
        run = other.create_run_for_job(job)
        planned = len(other.all_logs(run.run_id))
    with dg.DagsterInstance.get() as kept:
        keep_connections(kept)
        assert execute_created_run(job, run, kept).success
        assert len(kept.all_logs(run.run_id)) > planned > 0


def test_whoever_watches_a_run_is_told_of_what_is_stored_over_kept_connections(home):
    told = queue.Queue()
    with dg.DagsterInstance.get() as page, dg.DagsterInstance.get() as kept:
        keep_connections(kept)
        run = kept.create_run_for_job(defs.resolve_job_def("job"))
        page.watch_event_logs(run.run_id, None, lambda event, cursor: told.put(event.message))
        for number in range(3):
            kept.report_engine_event(f"event {number}", run)
            while f"event {number}" not in told.get(timeout=30):
                pass


def schema(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        version = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return tables, version, connection.execute("PRAGMA journal_mode").fetchall()


def test_the_database_of_a_new_run_is_as_dagster_makes_it(home):
    with dg.DagsterInstance.get() as own:
        path = own.event_log_storage.path_for_shard(run_of(own).run_id)
        expected = schema(path)
    with dg.DagsterInstance.get() as kept:
        keep_connections(kept)
        runs = [run_of(kept).run_id for _ in range(2)]
        assert [schema(kept.event_log_storage.path_for_shard(run)) for run in runs] == 2 * [
            expected
        ]


def test_many_threads_store_over_kept_connections_and_none_is_left_open(home):
    job = defs.resolve_job_def("job")
    with dg.DagsterInstance.get() as kept:
        keep_connections(kept)
        runs = [kept.create_run_for_job(job) for _ in range(8)]
        planned = [len(kept.all_logs(run.run_id)) for run in runs]

        def store(run):
            for number in range(20):
                kept.report_engine_event(f"event {number}", run)
                kept.add_run_tags(run.run_id, {"number": str(number)})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(store, runs))
        assert [len(kept.all_logs(run.run_id)) for run in runs] == [n + 20 for n in planned]
        assert {kept.get_run_by_id(run.run_id).tags["number"] for run in runs} == {"19"}
        assert len(databases_open(home)) <= 5
    assert databases_open(home) == []


def databases_open(folder):
    """Paths of the databases in a folder that this process holds open."""
    found = set()
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(handle))
    return sorted(path for path in found if path.startswith(str(folder)) and path.endswith(".db"))


def test_dagsters_migrations_are_read_once_and_those_of_others_each_time(tmp_path):
    keep_migrations()
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").touch()

    def read(location):
        config = Config()
        config.set_main_option("script_location", location)
        return ScriptDirectory.from_config(config)

    dagsters = get_alembic_config(sqlite_run_storage.__file__)
    assert ScriptDirectory.from_config(dagsters) is read(ALEMBIC_SCRIPTS_LOCATION)
    assert read(ALEMBIC_SCRIPTS_LOCATION).get_current_head()
    assert read(str(tmp_path)) is not read(str(tmp_path))
    assert read(str(tmp_path)).get_current_head() is None


def test_a_table_that_is_there_is_looked_for_once(monkeypatch, tmp_path):
    """One that is missing may come any moment, as by `dagster instance migrate`."""
    looked = []
    look = SqliteEventLogStorage.has_table

    def has_table(storage, name):
        looked.append(name)
        return look(storage, name)

    monkeypatch.setattr(SqliteEventLogStorage, "has_table", has_table)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as kept:
        keep_connections(kept)
        assert run_of(kept).success
        assert "asset_event_tags" in looked
        assert len(looked) == len(set(looked))
        assert run_of(kept).success
        assert len(looked) == len(set(looked))
        storage = kept.event_log_storage
        assert [storage.has_table("other") for _ in range(2)] == [False, False]
        assert looked.count("other") == 2


def test_an_instance_on_another_storage_stays_as_it_is():
    with dg.DagsterInstance.ephemeral() as instance:
        before = dict(vars(instance.event_log_storage))
        keep_connections(instance)
        assert vars(instance.event_log_storage) == before


def test_a_run_on_postgres_opens_and_keeps_few_connections_and_survives_their_loss(
    monkeypatch, tmp_path, postgres_database
):
    (tmp_path / "dagster.yaml").write_text(postgres_database.dagster_yaml())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    opened = []
    connections = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    lost = (
        f"SELECT pg_terminate_backend(pid) FROM ({connections} AND pid != pg_backend_pid()) others"
    )
    server = sqlalchemy.create_engine(postgres_database.url, isolation_level="AUTOCOMMIT")
    with server.connect() as looking, dg.DagsterInstance.get() as instance:

        def note(*_):
            opened.append(1)

        def ask(query):
            return looking.execute(sqlalchemy.text(query)).all()

        def keeps_few():
            # The oldest Dagster gives those over which it looks for its tables back when they are collected;
            # a process of the server that is told to end does so soon after.
            gc.collect()
            deadline = time.monotonic() + 30
            while len(ask(connections)) > 1 + 4 and time.monotonic() < deadline:
                time.sleep(0.1)
            return 2 <= len(ask(connections)) - 1 <= 4

        keep_connections(instance)
        keep_connections(instance)
        assert run_of(instance).success
        assert keeps_few()
        sqlalchemy.event.listen(sqlalchemy.pool.Pool, "connect", note)
        try:
            assert run_of(instance).success
            # One more where it looks at its events while it writes one; Dagster opens more than fifty.
            assert len(opened) <= 4
            # As a server that was started anew, or a firewall that forgets what is idle.
            assert keeps_few()
            assert len(ask(lost)) >= 2
            assert run_of(instance).success
            assert keeps_few()
        finally:
            sqlalchemy.event.remove(sqlalchemy.pool.Pool, "connect", note)
    server.dispose()


PRINTS = """
import os, sys, threading
from pathlib import Path
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from rare_assets.resources.dagster_internals import keep_output_in_logs

keep_output_in_logs()
manager = LocalComputeLogManager(sys.argv[1])
with manager.capture_logs(["run", "step"]):
    print("printed")
    os.write(2, b"warned\\n")
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text()
log = manager.get_log_data(["run", "step"])
print(log.stdout, log.stderr, children.split())
"""


@pytest.mark.processes
def test_what_a_run_prints_is_in_its_log_alone_and_takes_no_other_process(tmp_path):
    arguments = [sys.executable, "-c", PRINTS, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("b'printed\\n' b'warned\\n' []\n", "")
