"""Which commands are alive, by what they have written: no clock, host name or id of a process decides."""

import json
import subprocess
import sys
import uuid

import dagster as dg
import pytest

from rare_assets.automation.instance import run_tags
from rare_assets.resources.leases import Lease, Watch, lease_of_run
from rare_assets.resources.tags import LEASE_TAG, PROCESS_TAG

CANCELED, CANCELING = dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING
FAILURE, STARTED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED
THIS = "from rare_assets.files.processes import this_process as name; print(name(), end='')"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(clock):
    return Watch(clock=clock)


def add_run(instance, *, status=STARTED, **fields):
    """A run of that state. Returns its id."""
    run = dg.DagsterRun("a_job", str(uuid.uuid4()), status=status, **fields)
    instance.add_run(run)
    return run.run_id


def leased(instance, name, **fields):
    return add_run(instance, tags=run_tags("one", name), **fields)


def beat(instance, name, **said):
    """Write a new value, as a process of another machine does unless told otherwise."""
    value = {"host": "w1", "pid": 7, "since": 0.0, "process": "elsewhere#7@1", **said}
    value["beat"] = uuid.uuid4().hex
    instance.run_storage.set_cursor_values({f"rare_assets/lease/{name}": json.dumps(value)})


def look_for(seconds, watch, instance, clock, between=lambda: None):
    """Look every 15 seconds for so long. Returns the runs that were ended."""
    ended = watch.end_dead_runs(instance)
    for _ in range(seconds // 15):
        clock.now += 15
        between()
        ended += watch.end_dead_runs(instance)
    return ended


def status(instance, run_id):
    return instance.get_run_by_id(run_id).status


def test_runs_whose_lease_is_silent_for_two_minutes_are_ended_and_no_others(instance, watch, clock):
    for name in ("dead", "alive"):
        beat(instance, name)
    dead, alive = leased(instance, "dead"), leased(instance, "alive")
    canceling = leased(instance, "dead", status=CANCELING)
    launched = add_run(instance)

    def go_on():
        beat(instance, "alive")

    assert look_for(105, watch, instance, clock, go_on) == []
    assert sorted(look_for(30, watch, instance, clock, go_on)) == sorted([dead, canceling])
    assert [status(instance, each) for each in (dead, canceling)] == [FAILURE, CANCELED]
    assert [status(instance, each) for each in (alive, launched)] == [STARTED, STARTED]
    assert look_for(600, watch, instance, clock, go_on) == []


def test_clocks_of_hosts_are_not_compared(instance, watch, clock):
    beat(instance, "ahead", since=4e9)
    run = leased(instance, "ahead")
    clock.now = 1e6
    assert look_for(600, watch, instance, clock, lambda: beat(instance, "ahead", since=-4e9)) == []
    assert status(instance, run) is STARTED


def test_who_was_held_up_itself_does_not_take_that_for_silence(instance, watch, clock):
    """A suspended watcher, or a storage that was away for both, says nothing of the living."""
    beat(instance, "alive")
    run = leased(instance, "alive")
    for _ in range(3):
        assert watch.end_dead_runs(instance) == []
        clock.now += 3600
    assert status(instance, run) is STARTED


@pytest.mark.processes
def test_a_lease_that_was_given_up_and_one_of_a_process_that_is_gone_are_dead_at_once(
    instance, watch
):
    done = subprocess.run([sys.executable, "-c", THIS], capture_output=True, text=True, check=True)
    if not done.stdout:
        pytest.skip("this system does not name its processes")
    with Lease(instance) as lease:
        left = leased(instance, lease.name)
        assert watch.end_dead_runs(instance) == []
    beat(instance, "killed", process=done.stdout)
    killed = leased(instance, "killed")
    assert sorted(watch.end_dead_runs(instance)) == sorted([left, killed])


def test_the_holder_of_a_lease_ends_the_runs_of_the_dead(instance):
    instance.run_storage.set_cursor_values({"rare_assets/lease/gone": ""})
    dead = leased(instance, "gone")
    with Lease(instance):
        assert status(instance, dead) is FAILURE


def test_a_run_launched_again_from_the_ui_does_not_end_with_the_lease_of_the_first(instance, watch):
    instance.run_storage.set_cursor_values({"rare_assets/lease/gone": ""})
    first = leased(instance, "gone", status=FAILURE)
    again = leased(instance, "gone", parent_run_id=first, root_run_id=first)
    assert watch.end_dead_runs(instance) == []
    assert status(instance, again) is STARTED


def test_a_run_that_a_launcher_started_holds_a_lease_of_its_own(instance, watch, clock):
    """Also one that was tried again, which has the tags of the first."""
    other = {LEASE_TAG: "of the first"}
    first = add_run(instance)
    again = add_run(instance, parent_run_id=first, root_run_id=first, tags=other)
    for run_id in (first, again):
        with lease_of_run(instance, instance.get_run_by_id(run_id)):
            assert instance.get_run_by_id(run_id).tags[LEASE_TAG] == run_id
        # Its end is recorded after that by the same process.
        assert watch.end_dead_runs(instance) == []
        beat(instance, run_id)
    assert sorted(look_for(135, watch, instance, clock)) == sorted([first, again])


def test_a_run_of_a_command_has_the_lease_of_the_command_alone(instance):
    run_id = leased(instance, "one")
    with lease_of_run(instance, instance.get_run_by_id(run_id)):
        assert instance.get_run_by_id(run_id).tags[LEASE_TAG] == "one"


def test_a_run_of_a_version_without_leases_lives_as_long_as_its_log_grows(instance, watch, clock):
    run_id = add_run(instance, tags={PROCESS_TAG: "w1:7"})

    def log():
        run = instance.get_run_by_id(run_id)
        instance.report_engine_event("still here", run)

    log()
    assert look_for(1200, watch, instance, clock, log) == []
    assert look_for(885, watch, instance, clock) == []
    assert look_for(30, watch, instance, clock) == [run_id]


def test_places_in_pools_of_dead_runs_become_free(instance, watch, clock):
    storage = instance.event_log_storage
    storage.set_concurrency_slots("teacher", 2)
    for name in ("dead", "alive"):
        beat(instance, name)
    dead, alive, waiting = (leased(instance, name) for name in ("dead", "alive", "alive"))
    for run_id in (dead, alive):
        assert storage.claim_concurrency_slot("teacher", run_id, "questions").is_claimed
    assert not storage.claim_concurrency_slot("teacher", waiting, "questions").is_claimed
    look_for(135, watch, instance, clock, lambda: beat(instance, "alive"))
    assert storage.claim_concurrency_slot("teacher", waiting, "questions").is_claimed
    assert storage.get_concurrency_info("teacher").active_run_ids == {alive, waiting}


def test_a_lease_renews_its_value(instance):
    with Lease(instance, beat=0.01) as lease:
        key = f"rare_assets/lease/{lease.name}"
        seen = set()
        while len(seen) < 3:
            seen.add(instance.run_storage.get_cursor_values({key})[key])
    assert instance.run_storage.get_cursor_values({key}) == {key: ""}
    assert {json.loads(value)["pid"] for value in seen} == {
        int(run_tags("one", lease.name)[PROCESS_TAG].rpartition(":")[2])
    }
    assert run_tags("one", lease.name)[LEASE_TAG] == lease.name
