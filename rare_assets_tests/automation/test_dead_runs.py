"""The sensor on runs whose process is gone."""

import subprocess
import sys
import uuid

import dagster as dg
import pytest
from dagster._core.launcher import DefaultRunLauncher

from rare_assets.automation.dead_runs import dead_runs, dead_runs_sensor
from rare_assets.build import build_defs
from rare_assets.definitions import defs
from rare_assets.resources.dataset import UNNAMED
from rare_assets.resources.leases import Watch
from rare_assets.resources.tags import LEASE_TAG
from rare_assets_tests.resources.test_leases import (
    FAILURE,
    STARTED,
    beat,
    clock,
    instance,
    leased,
    look_for,
    status,
)

__all__ = ["clock", "instance"]

ASSETS = {dg.AssetKey("questions"), dg.AssetKey("documents")}
ASSET_JOB = "__ASSET_JOB"
# Is killed where a launched run has recorded that it begins, and not yet that it lives.
LOST = """
import os, signal, sys
import dagster as dg
from rare_assets.definitions import defs
from rare_assets.resources.dagster_internals import execute_created_run, executor
executor.lease_of_run = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    job = defs.resolve_job_def("questions_job")
    run = instance.create_run_for_job(job)
    print(run.run_id, flush=True)
    execute_created_run(job, run, instance)
"""


class Resuming(DefaultRunLauncher):
    """A launcher that resumes runs, as that of Kubernetes."""

    supports_resume_run = True
    supports_check_run_worker_health = True


class Sensor:
    """Ticks of the sensor, with the clock of a test."""

    def __init__(self, clock, defs=defs):
        self.watch = Watch(clock=clock)
        self.defs = defs

    def end_dead_runs(self, instance):
        """Tick. Returns the unfinished runs that were ended."""
        before = {run.run_id for run in unfinished(instance)}
        context = dg.build_sensor_context(instance=instance, definitions=self.defs)
        dead_runs(context, ASSETS, self.watch)
        return sorted(before - {run.run_id for run in unfinished(instance)})


def unfinished(instance):
    return [run for run in instance.get_runs() if not run.is_finished]


def begun(instance, job=ASSET_JOB, made=ASSETS, **fields):
    """A run whose log ends with its own start. Returns its id."""
    selection = frozenset(made) if made else None
    run = dg.DagsterRun(job, str(uuid.uuid4()), asset_selection=selection, **fields)
    instance.add_run(run)
    started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job, message="Started.")
    instance.report_dagster_event(started, run.run_id)
    assert status(instance, run.run_id) is STARTED
    return run.run_id


def tick(instance):
    context = dg.build_sensor_context(instance=instance, definitions=defs)
    return dead_runs_sensor(UNNAMED, ASSETS)(context).skip_message


def test_it_ends_what_was_left_behind_and_says_so(instance):
    beat(instance, "alive")
    alive = leased(instance, "alive")
    assert tick(instance) == "Nobody has left runs behind."
    instance.run_storage.set_cursor_values({"rare_assets/lease/left": ""})
    left = [leased(instance, "left") for _ in range(2)]
    assert tick(instance) == "Ended 2 runs whose process is gone."
    assert [status(instance, each) for each in (*left, alive)] == [FAILURE, FAILURE, STARTED]


@pytest.mark.processes
def test_a_run_that_was_lost_between_its_start_and_its_lease_is_ended(
    instance, clock, tmp_path, nothing_set
):
    lost = [sys.executable, "-c", LOST, str(tmp_path)]
    killed = subprocess.run(lost, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    [run] = instance.get_runs()
    assert run.run_id == killed.stdout.strip()
    assert run.status is STARTED
    assert LEASE_TAG not in run.tags
    sensor = Sensor(clock)
    assert look_for(885, sensor, instance, clock) == []
    assert look_for(30, sensor, instance, clock) == [run.run_id]
    assert status(instance, run.run_id) is FAILURE


def test_one_that_was_launched_again_has_no_lease_by_the_tags_of_the_first(instance, clock):
    beat(instance, "of the first")
    first = begun(instance, tags={LEASE_TAG: "of the first"})
    again = begun(
        instance, tags={LEASE_TAG: "of the first"}, parent_run_id=first, root_run_id=first
    )
    ended = look_for(915, Sensor(clock), instance, clock, lambda: beat(instance, "of the first"))
    assert ended == [again]


def test_runs_that_may_live_without_a_lease_are_left_alone(instance, clock):
    said = begun(instance)
    instance.report_engine_event("at work", instance.get_run_by_id(said))
    others = begun(instance, made={dg.AssetKey("of_others")})
    elsewhere = begun(instance, "a_job", made=None)
    assert look_for(1800, Sensor(clock), instance, clock) == []
    by_another = build_defs(executor=dg.in_process_executor)
    waiting = begun(instance, "questions_job", made=None)
    assert look_for(1800, Sensor(clock, by_another), instance, clock) == []
    assert look_for(915, Sensor(clock), instance, clock) == [waiting]
    assert {status(instance, each) for each in (said, others, elsewhere)} == {STARTED}


def test_an_instance_that_resumes_lost_runs_is_left_to_do_so(tmp_path, clock):
    resumes = {
        "run_launcher": {"module": __name__, "class": Resuming.__name__},
        "run_monitoring": {"enabled": True, "max_resume_run_attempts": 1},
    }
    with dg.instance_for_test(resumes, temp_dir=str(tmp_path)) as instance:
        begun(instance)
        assert look_for(1800, Sensor(clock), instance, clock) == []


def test_it_is_on(instance):
    assert dead_runs_sensor(UNNAMED, ASSETS).default_status is dg.DefaultSensorStatus.RUNNING
