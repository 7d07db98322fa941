"""The sensor on runs whose command is gone."""

import dagster as dg

from rare_assets.automation.dead_runs import dead_runs_sensor
from rare_assets.definitions import defs
from rare_assets.resources.dataset import UNNAMED
from rare_assets_tests.resources.test_leases import FAILURE, STARTED, beat, instance, leased, status

__all__ = ["instance"]

dead_runs = dead_runs_sensor(UNNAMED)


def tick(instance):
    context = dg.build_sensor_context(instance=instance, definitions=defs)
    return dead_runs(context).skip_message


def test_it_ends_what_was_left_behind_and_says_so(instance):
    beat(instance, "alive")
    alive = leased(instance, "alive")
    assert tick(instance) == "Nobody has left runs behind."
    instance.run_storage.set_cursor_values({"rare_assets/lease/left": ""})
    left = [leased(instance, "left") for _ in range(2)]
    assert tick(instance) == "Ended 2 runs whose command is gone."
    assert [status(instance, each) for each in (*left, alive)] == [FAILURE, FAILURE, STARTED]


def test_it_is_on(instance):
    assert dead_runs.default_status is dg.DefaultSensorStatus.RUNNING
