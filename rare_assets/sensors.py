"""Sensors: new source files become shards, and their runs are requested."""

import dagster as dg

from rare_assets.jobs import questions_job
from rare_assets.partitions import document_shards
from rare_assets.registration import scan_source
from rare_assets.resources.configurable import Corpus, Storage
from rare_assets.resources.source_formats import SourceError

NEW_SHARDS_SECONDS = 60


@dg.sensor(
    job=questions_job,
    default_status=dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=NEW_SHARDS_SECONDS,
    # The UI shows a sensor's description as plain text.
    description="Costs money once it is on: registers the shards of new source files and requests "
    "documents and questions for them and for changed files, one teacher request per document that "
    "was never asked about. The index, hard negatives and reasoning follow from a backfill or "
    "'rare-assets run'. Off by default.",
)
def new_shards(
    context: dg.SensorEvaluationContext, corpus: Corpus, storage: Storage
) -> dg.SensorResult | dg.SkipReason:
    """Scans the source; opens only files that changed since the last scan."""
    try:
        scan = scan_source(corpus.source(), storage.tables(), context.instance)
    except SourceError as error:
        return dg.SkipReason(f"The source can't be read: {error}")
    if not scan.new and not scan.changed:
        return dg.SkipReason(f"No new or changed files; {len(scan.shards)} shards are registered.")
    versions = {shard.key: shard.version for shard in scan.shards}
    return dg.SensorResult(
        # A run key is never requested twice: one run per shard and version of its file.
        run_requests=[
            dg.RunRequest(partition_key=key, run_key=f"{key}@{versions[key]}")
            for key in [*scan.new, *scan.changed]
        ],
        dynamic_partitions_requests=[document_shards.build_add_request(scan.new)],
    )


sensors = [new_shards]
