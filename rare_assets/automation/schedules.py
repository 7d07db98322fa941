"""Schedules, for teams that want no sensor."""

import dagster as dg

from rare_assets.automation.jobs import Jobs
from rare_assets.automation.registration import describe_missing
from rare_assets.automation.sensors import due_shards
from rare_assets.corpus.formats import SourceError
from rare_assets.corpus.scan import scan_source
from rare_assets.resources.configurable import Corpus, Storage
from rare_assets.resources.dataset import Dataset, bind
from rare_assets.resources.partitions import add_shards, registered_shards

RUNS_PER_NIGHT = 1000


def nightly(
    context: dg.ScheduleEvaluationContext, dataset: Dataset, corpus: Corpus, storage: Storage
) -> list[dg.RunRequest] | dg.SkipReason:
    """Scan the source; open only files that changed since the last scan."""
    tables = storage.tables()
    try:
        scan = scan_source(corpus.source(), tables, registered_shards(context.instance, dataset))
    except SourceError as error:
        return dg.SkipReason(f"The source can't be read: {error}")
    if gone := describe_missing(scan, []):
        context.log.warning(gone)
    if scan.new:
        add_shards(context.instance, scan.new, dataset)
    due, _ = due_shards(scan.shards, {}, tables, runs=RUNS_PER_NIGHT, looks=len(scan.shards))
    if not due:
        return dg.SkipReason(
            f"No new or changed files; {len(scan.shards):,} shards are registered."
        )
    return [
        dg.RunRequest(partition_key=shard.key, run_key=f"{shard.key}@{shard.version}")
        for shard in due
    ]


def schedules_of(dataset: Dataset, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    """Return a dataset's schedules."""
    schedule = dg.schedule(
        name=dataset.named("nightly"),
        cron_schedule="0 2 * * *",
        job=jobs["questions_job"],
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Costs money once it is on: what the sensor new_shards does, once a night at 2:00 "
        "UTC: registers the shards of new source files and requests documents and questions for them "
        f"and for changed files, at most {RUNS_PER_NIGHT:,} runs. Off by default; no need for both.",
    )
    return [schedule(bind(nightly, dataset))]
