"""The documents: a shard of the corpus files, read, checked and made a table."""

import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import dagster as dg
import polars as pl

from rare_assets.assets.step_progress import StepProgress
from rare_assets.catalog.charts import histogram
from rare_assets.catalog.metadata import (
    FRESHNESS,
    OWNERS,
    definition_metadata,
    materialized,
    say_once,
    spread,
)
from rare_assets.corpus.formats import SourceError, UnreadableFile, on_one_line
from rare_assets.corpus.scan import known_shards, scan_source
from rare_assets.corpus.source import CorpusSource, UnknownShard
from rare_assets.operators.read_documents import (
    FILE_GONE,
    NO_SUCH_SHARD,
    NO_USABLE_ROW,
    READER_VERSION,
    UNREADABLE,
    NoUsableRow,
    read_documents,
    without_file,
)
from rare_assets.resources.configurable import Corpus, Storage
from rare_assets.resources.dataset import Dataset, bind, code_reference
from rare_assets.resources.failures import failures_told
from rare_assets.resources.io_manager import ShardTable
from rare_assets.resources.partitions import registered_shards
from rare_assets.schemas import Documents, Produced
from rare_assets.stages import documents as stage
from rare_assets.stages.source_states import report_changes, shard_sizes, source_states
from rare_assets.storage.tables import ParquetTables

# Reasons for which a row is left out, since another row of the shard has its text or its id.
DUPLICATES = ("duplicate_text", "duplicate_id")

CORPUS_FILES = """The source files: rows (.jsonl, .ndjson, .json, .parquet, .arrow, .feather, .csv, .tsv) and texts (.txt, .md, .html,
.pdf, .docx).

They lie where `RARE_SOURCE` says. One file is one shard; a file of more rows than `RARE_ROWS_PER_SHARD` is several; many
text files, or hundreds of small data files, share a shard (`RARE_FILES_PER_SHARD`).
The sensor `watch_corpus`, `rare-assets run` and `rare-assets register` register the shards of new files.

**Observe** to see which files are new, changed or gone, and which are made; `watch_corpus` does it by itself."""


def observe_files(
    context: dg.AssetExecutionContext, dataset: Dataset, corpus: Corpus, storage: Storage
) -> Iterator[dg.ObserveResult]:
    """Scan the source. Register nothing."""
    tables, source = storage.tables(), corpus.source()
    try:
        scan = scan_source(
            source, tables, registered_shards(context.instance, dataset), watching=True
        )
        states = source_states(scan, tables, [])
        sizes = shard_sizes(source, scan)
    except SourceError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    report_changes(states, context.instance, dataset)
    yield dg.ObserveResult(
        data_version=dg.DataVersion(states.data_version), metadata=states.metadata(sizes)
    )


def corpus_files_asset(dataset: Dataset) -> dg.AssetsDefinition:
    """Return the asset of a dataset's source files."""
    spec = dg.AssetSpec(
        dataset.key("corpus_files"),
        description=CORPUS_FILES,
        group_name=dataset.named("rare_data"),
        kinds={"file"},
        owners=OWNERS,
        partitions_def=dataset.partitions,
        metadata=code_reference(observe_files),
    )
    with warnings.catch_warnings():
        # A beta in this Dagster: without it, the files have no button to observe them, and no more.
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        return dg.multi_observable_source_asset(
            specs=[spec], name=dataset.op("corpus_files"), description="Scan the source."
        )(bind(observe_files, dataset))


class ReadShard(NamedTuple):
    """A shard as it was read: its tables, what they were made from, and its file.

    `problem` says why the file could not be read; the tables are then those of an earlier reading, or
    empty. `reason` is one of `read_documents.FILE_REASONS`.
    """

    produced: Produced
    made_from: dict[str, str]
    file: str
    reason: str | None = None
    problem: str | None = None


def read_shard(
    context: dg.AssetExecutionContext, source: CorpusSource, tables: ParquetTables
) -> ReadShard:
    """Read the shard of a run. What its own file meets never raises: the other shards go on.

    Raises:
        SourceError: the source can't be reached.
    """
    key = context.partition_key
    known = known_shards(tables)
    try:
        shard = source.shard(key, known)
        rows = StepProgress(context, shard.n_rows).counting(source.read(shard))
        return ReadShard(
            read_documents(
                rows,
                file=shard.file,
                columns=source.columns,
                cutting=source.cutting,
                say=context.log.warning,
            ),
            stage.made_from(shard),
            shard.file,
        )
    except NoUsableRow as error:
        return _not_read(tables, key, error.file, NO_USABLE_ROW, error, error.rejects)
    except UnreadableFile as error:
        return _not_read(tables, key, error.file, UNREADABLE, error)
    except UnknownShard as error:
        file = next((shard.file for shard in known if shard.key == key), None)
        return _not_read(tables, key, file, FILE_GONE, error)


def _not_read(
    tables: ParquetTables,
    shard: str,
    file: str | None,
    reason: str,
    error: SourceError,
    rejects: pl.DataFrame | None = None,
) -> ReadShard:
    """Return what stands for a shard whose file can't be read: its last good tables, if any."""
    stored = tables.provenance(stage.NAME, shard)
    earlier, made_from, said = None, {"file": file or shard}, str(error)
    if stored is not None and stage.was_read(stored.made_from):
        made_from = dict(stored.made_from)
        earlier = Produced(
            tables.load(stage.NAME, shard).collect(),
            tables.load_rejects(stage.NAME, shard).collect(),
        )
        if file is None:  # no scan knows it any more
            said = f"{on_one_line(made_from['file'])} is gone from the source."
        said += f" The {stored.n_rows:,} documents of an earlier reading are kept."
    else:
        reason = NO_SUCH_SHARD if reason == FILE_GONE else reason
        if rejects is not None:
            earlier = Produced(Documents.create_empty(), rejects)
        said += " The shard has no documents."
    said = on_one_line(said)
    return ReadShard(
        without_file(made_from["file"], reason, said, earlier),
        stage.made_without_file(made_from, reason),
        made_from["file"],
        reason,
        said,
    )


def documents(
    context: dg.AssetExecutionContext, corpus: Corpus, storage: Storage
) -> dg.MaterializeResult[ShardTable]:
    """Read one shard of the source files into the passages of the corpus.

    **A row** is one passage with a `doc_id` that is unique in the corpus and the hash of its text.
    Rows that cannot be used (broken JSON, no text, a duplicate in the shard, ...) are in
    `documents_rejects`, each with file, row and reason. Where the file as a whole can't be read, the
    shard keeps its last good table, or has an empty one, and the check `file_readable` says why.

    **Cost:** none, no model is asked. **Rerun** freely: the same file gives the same table. A run
    that was stopped leaves the table as it was; **resume** by materializing the shard again.
    """
    with failures_told():
        started = time.monotonic()
        try:
            read = read_shard(context, corpus.source(), storage.tables())
        except SourceError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        produced = read.produced
        if read.problem is not None:
            say = context.log.warning if read.reason == FILE_GONE else context.log.error
            say(read.problem)
        words = produced.rows["n_words"]
        made = materialized(
            stage.NAME,
            produced,
            read.made_from,
            {
                "file": read.file,
                "problem": read.problem,
                "duplicates": produced.rejects.filter(pl.col("reason").is_in(DUPLICATES)).height,
                "words": words.sum(),
                **spread("words", words),
            },
            seconds=time.monotonic() - started,
            chart=histogram(words, "words in a document"),
        )
        return say_once(context, made)


def documents_asset(dataset: Dataset) -> dg.AssetsDefinition:
    """Return the asset of a dataset's documents."""
    return dg.asset(
        key=dataset.key(stage.NAME),
        partitions_def=dataset.partitions,
        deps=[dataset.key("corpus_files")],
        group_name=dataset.named("rare_data"),
        kinds={"polars", "parquet"},
        freshness_policy=FRESHNESS,
        owners=OWNERS,
        tags={"cost": "none"},
        code_version=READER_VERSION,
        io_manager_key=dataset.resource("io_manager"),
        metadata=definition_metadata(stage.NAME, dataset) | code_reference(documents),
    )(bind(documents, dataset))
