"""Sensors: new, changed and deleted source files become, update and leave shards."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Set

import dagster as dg
import polars as pl

from rare_assets.automation.dead_runs import dead_runs_sensor
from rare_assets.automation.jobs import Jobs
from rare_assets.automation.registration import describe_missing, remove_tables
from rare_assets.automation.watch import tell_failures_sensor
from rare_assets.corpus.formats import SourceError
from rare_assets.corpus.scan import Scan, scan_source
from rare_assets.corpus.shards import Shard
from rare_assets.files.stored_bytes import StorageDamaged
from rare_assets.resources.configurable import FIRST_WAIT, Bm25Retriever, Corpus, Storage
from rare_assets.resources.dataset import Dataset, bind
from rare_assets.resources.partitions import registered_shards
from rare_assets.retriever import IndexMissing
from rare_assets.stages.corpus_index import shards_to_index
from rare_assets.stages.documents import is_current
from rare_assets.stages.source_states import report_states, source_states
from rare_assets.storage.tables import ParquetTables

WATCH_SECONDS = 30
NEW_SHARDS_SECONDS = 60
FOLLOW_SECONDS = 30
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
READING_JOBS = ("documents_job", "questions_job", "corpus_index_job")
# A tick has a minute, in which the daemon makes a few runs a second.
RUNS_PER_TICK = 100
# Each look reads the footer of a stored file, from an object store perhaps.
LOOKS_PER_TICK = 1000


class RequestedShards:
    """The version of each shard that runs were requested for, as of a tick that the daemon took.

    Too much for a cursor, so that is only the name of the file it lies in: a tick that the daemon
    could not finish leaves its cursor, and the next one requests the same runs, by the same keys.
    """

    def __init__(self, tables: ParquetTables, cursor: str | None) -> None:
        self._tables = tables
        self._folder = tables.root / "corpus_files" / "requested"
        self._cursor = cursor
        self.versions: dict[str, str] = {}
        if cursor:
            # Without them, runs are requested again by the same keys, which makes none twice.
            with contextlib.suppress(FileNotFoundError, StorageDamaged):
                stored = tables.read_file(self._folder / f"{cursor}.parquet")
                self.versions = dict(stored.iter_rows())

    def store(self, versions: dict[str, str]) -> str:
        """Keep these, and the ones before until the daemon has taken them. Return the cursor."""
        content = json.dumps(sorted(versions.items()))
        cursor = hashlib.sha256(content.encode()).hexdigest()[:16]
        if cursor != self._cursor:
            frame = pl.DataFrame(
                {"key": list(versions), "version": list(versions.values())},
                schema={"key": pl.String, "version": pl.String},
            )
            self._tables.write_file(frame, self._folder / f"{cursor}.parquet")
            for path in self._folder.glob("*.parquet"):
                if path.stem not in (cursor, self._cursor):
                    path.unlink(missing_ok=True)
        return cursor


def due_shards(
    shards: list[Shard],
    requested: dict[str, str],
    tables: ParquetTables,
    *,
    runs: int,
    looks: int,
) -> tuple[list[Shard], set[str]]:
    """Return the shards to request runs for, and the keys of those that are left for the next ticks.

    What `rare-assets run` or somebody in the UI has read is not requested again.

    Args:
        shards: of the source.
        requested: the version of each shard that a run was requested for.
        tables: where documents are stored.
        runs: most shards to return.
        looks: most stored tables to look at.
    """
    due: list[Shard] = []
    later: set[str] = set()
    looked_at = 0
    for shard in shards:
        if requested.get(shard.key) == shard.version:
            continue
        if len(due) == runs or looked_at == looks:
            later.add(shard.key)
            continue
        looked_at += 1
        if not is_current(tables, shard):
            due.append(shard)
    return due, later


def _partitions(
    dataset: Dataset, scan: Scan, removed: list[str]
) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
    return [
        *([dataset.partitions.build_add_request(scan.new)] if scan.new else []),
        *([dataset.partitions.build_delete_request(removed)] if removed else []),
    ]


def watch_corpus(
    context: dg.SensorEvaluationContext, dataset: Dataset, corpus: Corpus, storage: Storage
) -> dg.SensorResult | dg.SkipReason:
    """Scan the source; open only files that changed since the last scan."""
    tables, source = storage.tables(), corpus.source()
    try:
        scan = scan_source(
            source, tables, registered_shards(context.instance, dataset), watching=True
        )
        removed = remove_tables(scan, tables, remove_deleted=corpus.removes_deleted_shards)
        states = source_states(scan, tables, removed)
        reported = report_states(states, source, scan, context.instance, dataset)
    except SourceError as error:
        return dg.SkipReason(f"The source can't be read: {error}")
    gone = describe_missing(scan, removed)
    if gone and reported:
        context.log.warning(gone)
    counts = ", ".join(f"{n:,} {state}" for state, n in states.counts().items() if n)
    news = f"{'Changed' if reported or scan.new else 'Nothing has changed'}: {counts}."
    return dg.SensorResult(
        skip_reason=dg.SkipReason(" ".join(filter(None, [news, gone]))),
        dynamic_partitions_requests=_partitions(dataset, scan, removed),
    )


def new_shards(
    context: dg.SensorEvaluationContext, dataset: Dataset, corpus: Corpus, storage: Storage
) -> dg.SensorResult | dg.SkipReason:
    """Scan the source; open only files that changed since the last scan."""
    tables = storage.tables()
    try:
        scan = scan_source(corpus.source(), tables, registered_shards(context.instance, dataset))
    except SourceError as error:
        return dg.SkipReason(f"The source can't be read: {error}")
    removed = remove_tables(scan, tables, remove_deleted=corpus.removes_deleted_shards)
    requested = RequestedShards(tables, context.cursor)
    due, later = due_shards(
        scan.shards, requested.versions, tables, runs=RUNS_PER_TICK, looks=LOOKS_PER_TICK
    )
    versions = {shard.key: shard.version for shard in scan.shards if shard.key not in later}
    gone = describe_missing(scan, removed)
    if gone:
        context.log.warning(gone)
    requests = [
        # A run key is never requested twice: one run per shard and version of its file.
        dg.RunRequest(partition_key=shard.key, run_key=f"{shard.key}@{shard.version}")
        for shard in due
    ]
    news = f"No new or changed files; {len(scan.shards):,} shards are registered."
    if later:
        news = f"{len(later):,} shards are left for the next ticks."
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else dg.SkipReason(" ".join(filter(None, [news, gone]))),
        dynamic_partitions_requests=_partitions(dataset, scan, removed),
        cursor=requested.store(versions),
    )


def _is_under_way(instance: dg.DagsterInstance, dataset: Dataset) -> bool:
    """Return True if a run is reading documents or syncing the index, or is about to."""
    unfinished = dg.RunsFilter(statuses=UNFINISHED)
    jobs = {dataset.named(job) for job in READING_JOBS}
    assets = {dataset.key("documents"), dataset.key("corpus_index")}
    return any(
        run.job_name in jobs or assets & (run.asset_selection or set())
        for run in instance.get_runs(unfinished)
    )


def index_follows_documents(
    context: dg.SensorEvaluationContext,
    dataset: Dataset,
    storage: Storage,
    retriever: Bm25Retriever,
) -> dg.SensorResult | dg.SkipReason:
    """Compare the footers of the stored documents with the index; look only where a file
    changed."""
    tables = storage.tables()
    registered = sorted(registered_shards(context.instance, dataset))
    stored = sorted(tables.stored_versions("documents").items())
    # A sync that failed is not requested again until something changes.
    seen = hashlib.sha256(json.dumps([registered, stored]).encode()).hexdigest()[:16]
    if seen == context.cursor:
        return dg.SkipReason("No documents have changed since the last look.")
    if _is_under_way(context.instance, dataset):
        return dg.SkipReason("Documents are being read, or the index is being synced.")
    with retriever.open(first_wait=FIRST_WAIT) as engine:
        try:
            state = engine.state()
        except IndexMissing:
            state = None
    contents = shards_to_index(tables, registered, state.shards if state else {}).contents
    wanted = {shard: content.content_hash for shard, content in contents.items()}
    if wanted == (dict(state.shards) if state else {}):
        return dg.SensorResult(
            skip_reason=dg.SkipReason(f"The index holds the {len(wanted):,} shards as stored."),
            cursor=seen,
        )
    config = {}
    if state is not None:
        config = {dataset.op("corpus_index"): {"config": state.bm25._asdict()}}
    # It ranks as it did: options of a run by hand stay.
    return dg.SensorResult(run_requests=[dg.RunRequest(run_config={"ops": config})], cursor=seen)


def sensors_of(dataset: Dataset, jobs: Jobs, assets: Set[dg.AssetKey]) -> list[dg.SensorDefinition]:
    """Return a dataset's sensors; `assets` are all that are its."""
    watching = dg.sensor(
        name=dataset.named("watch_corpus"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=WATCH_SECONDS,
        description="Costs nothing: registers the shards of new source files, and shows in corpus_files "
        "which files are new, changed, gone or made, so that documents of changed files are unsynced. "
        "Removes the shards of gone files where RARE_REMOVE_DELETED_SHARDS is set. Makes no table.",
    )
    requesting = dg.sensor(
        name=dataset.named("new_shards"),
        job=jobs["questions_job"],
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=NEW_SHARDS_SECONDS,
        # The UI shows a sensor's description as plain text.
        description="Costs money once it is on: registers the shards of new source files and requests "
        "documents and questions for them and for changed files, one teacher request per document that "
        f"was never asked about, at most {RUNS_PER_TICK} runs a tick. Tells which files are gone, and "
        "removes their shards where RARE_REMOVE_DELETED_SHARDS is set. The index, hard negatives and "
        "reasoning follow from a backfill or 'rare-assets run'. Off by default.",
    )
    following = dg.sensor(
        name=dataset.named("index_follows_documents"),
        job=jobs["corpus_index_job"],
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=FOLLOW_SECONDS,
        description="Costs nothing: syncs the index whenever it does not hold the stored documents of all "
        "shards, once none is being read. Off by default: a backfill and 'rare-assets run' sync it "
        "themselves. Nothing that asks the teacher is ever requested by it.",
    )
    return [
        watching(bind(watch_corpus, dataset)),
        requesting(bind(new_shards, dataset)),
        following(bind(index_follows_documents, dataset)),
        tell_failures_sensor(dataset, assets),
        dead_runs_sensor(dataset, assets),
    ]
