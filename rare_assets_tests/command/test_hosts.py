"""Leases between hosts: real processes on hosts of their own, on both kinds of instance."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy

from rare_assets.assets.asking import ledger_in
from rare_assets.automation.instance import SHIPPED_YAML
from rare_assets.files.processes import this_process
from rare_assets.resources.instance_database import counted_alone, postgres_of
from rare_assets.resources.leases import Watch
from rare_assets_tests.support.hosts import Host

# Holds a lease, a run and a place in a pool until it is killed.
WORK = """
import sys, threading, uuid
import dagster as dg
from rare_assets.automation.instance import run_tags
from rare_assets.resources.leases import Lease
with dg.DagsterInstance.from_config(sys.argv[1]) as instance, Lease(instance, beat=0.2) as lease:
    run = dg.DagsterRun("a_job", str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED, tags=run_tags("c", lease.name))
    instance.add_run(run)
    assert instance.event_log_storage.claim_concurrency_slot("teacher", run.run_id, "questions").is_claimed
    print(run.run_id, flush=True)
    threading.Event().wait()
"""
# Watches as the next command would, on a host of its own, until a dead lease has been seen and for longer than
# another would take.
LOOK = """
import sys, time
import dagster as dg
from rare_assets.resources.instance_database import counted_alone, postgres_of
from rare_assets.resources.leases import Watch
watch, until = Watch(dead_after=2.0), time.monotonic() + 90
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    while time.monotonic() < until:
        for run_id in watch.end_dead_runs(instance):
            print(run_id, flush=True)
            until = min(until, time.monotonic() + 4)
        time.sleep(0.2)
"""
STARTED, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE


@pytest.fixture(params=["sqlite", "postgres"])
def home(request, nothing_set, tmp_path):
    """The home of an instance that all hosts of the test use."""
    folder = tmp_path / "home"
    settings = SHIPPED_YAML.read_text()
    if request.param == "postgres":
        pytest.importorskip("dagster_postgres", reason="pip install -e '.[test]' brings it")
        settings += request.getfixturevalue("postgres_database").dagster_yaml()
    folder.mkdir()
    (folder / "dagster.yaml").write_text(settings)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.get_runs(limit=1)
        instance.event_log_storage.set_concurrency_slots("teacher", 3)
    return folder


def work_on(host: Host, home: Path) -> str:
    """Start somebody that works on a run; its id."""
    process = host.start([sys.executable, "-c", WORK, str(home)])
    return process.stdout.readline().strip()


def statuses(home, runs):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return [instance.get_run_by_id(run).status for run in runs]


def test_a_lost_host_frees_its_places_and_living_hosts_of_the_same_name_keep_theirs(home):
    with Host("worker") as one, Host("worker") as two, Host("worker") as lost:
        living = [work_on(one, home), work_on(two, home)]
        dead = work_on(lost, home)
        lost.kill()
        with Host("its-pod-started-anew") as next_one:
            looking = next_one.start([sys.executable, "-c", LOOK, str(home)])
            ended = looking.communicate(timeout=120)[0].split()
        assert ended == [dead]
        assert statuses(home, [*living, dead]) == [STARTED, STARTED, FAILURE]
        with dg.DagsterInstance.from_config(str(home)) as instance:
            held = instance.event_log_storage.get_concurrency_info("teacher").active_run_ids
        assert held == set(living)


def test_on_its_own_machine_a_killed_process_is_known_to_be_gone_at_once(home):
    if not this_process():
        pytest.skip("this system does not name its processes")
    command = [sys.executable, "-c", WORK, str(home)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as alive,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed,
    ):
        try:
            living, dead = [each.stdout.readline().strip() for each in (alive, killed)]
            killed.kill()
            killed.wait()
            with dg.DagsterInstance.from_config(str(home)) as instance:
                # The living one looks, too, and may have been first.
                Watch().end_dead_runs(instance)
            assert statuses(home, [living, dead]) == [STARTED, FAILURE]
        finally:
            alive.kill()
            killed.kill()


def test_limits_are_counted_in_the_instances_postgres_where_it_has_one(home):
    """By runs of whatever host; without Postgres in a file of the machine."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        ledgers = [ledger_in(instance, "a backfill", "questions") for _ in range(2)]
        ledgers[0].add(requests=3)
        assert ledgers[1].spent().requests == 3
        file = Path(instance.storage_directory()) / "rare_assets_spent.sqlite3"
        assert file.exists() == (postgres_of(instance) is None)
        assert counted_alone(instance) == ""
        if connect := postgres_of(instance):
            with connect() as database:
                rows = database.execute(sqlalchemy.text("SELECT scope FROM rare_assets_spent"))
                assert list(rows) == [("a backfill",)]
        for ledger in ledgers:
            ledger.close()
