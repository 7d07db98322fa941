"""The sensor that ends the runs of commands that are gone, where no other command is there to do it."""

import dagster as dg

from rare_assets.resources.dataset import Dataset
from rare_assets.resources.leases import Watch

SECONDS = 15
# Kept between the ticks: a lease is dead that was looked at for long enough.
_watch = Watch()


def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Read the leases of unfinished runs from the instance's storage; end the runs of dead ones."""
    ended = _watch.end_dead_runs(context.instance)
    if not ended:
        return dg.SkipReason("Nobody has left runs behind.")
    context.log.warning(f"Ended {len(ended)} runs whose command is gone: {', '.join(ended)}.")
    return dg.SkipReason(f"Ended {len(ended)} runs whose command is gone.")


def dead_runs_sensor(dataset: Dataset) -> dg.SensorDefinition:
    """Return a dataset's sensor that ends dead runs, whichever dataset they are of."""
    sensor = dg.sensor(
        name=dataset.named("dead_runs"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS,
        description="Costs nothing: marks the runs of a 'rare-assets run' as failed whose process, or host, has "
        "given no sign of life for two minutes, and frees their places in pools and in the queue. Runs "
        "that a launcher started are left to it. On by default.",
    )
    return sensor(dead_runs)
