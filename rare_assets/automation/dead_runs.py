"""The sensor that ends the runs of processes that are gone, where no other command is there to do it."""

from collections.abc import Set

import dagster as dg

from rare_assets.automation.runs import is_about
from rare_assets.resources.dagster_internals import OneProcessExecutorDefinition
from rare_assets.resources.dataset import Dataset, bind
from rare_assets.resources.leases import Watch, runs_take_leases

SECONDS = 15


def dead_runs(
    context: dg.SensorEvaluationContext, assets: Set[dg.AssetKey], watch: Watch
) -> dg.SkipReason:
    """Read the leases of unfinished runs from the instance's storage; end the runs of dead ones, and those
    about these assets that were lost before they took one."""
    here = context.repository_def
    assert here is not None
    taken = runs_take_leases(context.instance)

    def takes_lease(run: dg.DagsterRun) -> bool:
        if not (taken and is_about(run, assets, here)):
            return False
        return isinstance(here.get_job(run.job_name).executor_def, OneProcessExecutorDefinition)

    ended = watch.end_dead_runs(context.instance, takes_lease=takes_lease)
    if not ended:
        return dg.SkipReason("Nobody has left runs behind.")
    context.log.warning(f"Ended {len(ended)} runs whose process is gone: {', '.join(ended)}.")
    return dg.SkipReason(f"Ended {len(ended)} runs whose process is gone.")


def dead_runs_sensor(dataset: Dataset, assets: Set[dg.AssetKey]) -> dg.SensorDefinition:
    """Return a dataset's sensor that ends dead runs: those with a lease whichever dataset they are of."""
    sensor = dg.sensor(
        name=dataset.named("dead_runs"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS,
        description="Costs nothing: marks runs as failed whose process, or host, has given no sign of life for two "
        "minutes, or none at all for fifteen minutes after they had begun, and frees their places in pools and in "
        "the queue. On by default.",
    )
    # Kept between the ticks: a lease is dead that was looked at for long enough.
    return sensor(bind(dead_runs, dataset, assets=assets, watch=Watch()))
