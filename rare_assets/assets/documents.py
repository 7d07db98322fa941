"""The documents: a shard of the corpus files, read, checked and made a table."""

import time
import warnings
from collections.abc import Iterator

import dagster as dg
import polars as pl

from rare_assets.assets.step_progress import StepProgress
from rare_assets.catalog import OWNERS, definition_metadata, materialized, spread
from rare_assets.charts import histogram
from rare_assets.operators.read_documents import READER_VERSION, read_documents
from rare_assets.partitions import document_shards
from rare_assets.provenance import documents_from
from rare_assets.registration import known_shards, scan_source
from rare_assets.resources.configurable import Corpus, Storage
from rare_assets.resources.io_manager import ShardTable
from rare_assets.resources.source_formats import SourceError
from rare_assets.source_states import report_changes, shard_sizes, source_states

# Reasons for which a row is left out, since another row of the shard has its text or its id.
DUPLICATES = ("duplicate_text", "duplicate_id")

CORPUS_FILES_SPEC = dg.AssetSpec(
    "corpus_files",
    description="""The source files: .jsonl, .ndjson, .json (a list), .parquet, .csv, .txt, .md.

They lie where `RARE_SOURCE` says. One file is one shard; a file of more rows than `RARE_ROWS_PER_SHARD` is several.
The sensor `watch_corpus`, `rare-assets run` and `rare-assets register` register the shards of new files.

**Observe** to see which files are new, changed or gone, and which are made; `watch_corpus` does it by itself.""",
    group_name="corpus",
    kinds={"file"},
    owners=OWNERS,
    partitions_def=document_shards,
)


def _observe_files(
    context: dg.AssetExecutionContext, corpus: Corpus, storage: Storage
) -> Iterator[dg.ObserveResult]:
    """Scan the source. Registers nothing."""
    tables, source = storage.tables(), corpus.source()
    try:
        scan = scan_source(source, tables, context.instance, watching=True)
        states = source_states(scan, tables, [])
        sizes = shard_sizes(source, scan)
    except SourceError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    report_changes(states, context.instance)
    yield dg.ObserveResult(
        data_version=dg.DataVersion(states.data_version), metadata=states.metadata(sizes)
    )


with warnings.catch_warnings():
    # A beta in this Dagster: without it, the files have no button to observe them, and no more.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    corpus_files = dg.multi_observable_source_asset(
        specs=[CORPUS_FILES_SPEC], name="corpus_files", description="Scan the source."
    )(_observe_files)


@dg.asset(
    partitions_def=document_shards,
    deps=[corpus_files],
    group_name="corpus",
    kinds={"polars", "parquet"},
    owners=OWNERS,
    tags={"cost": "none"},
    code_version=READER_VERSION,
    metadata=definition_metadata("documents"),
)
def documents(
    context: dg.AssetExecutionContext, corpus: Corpus, storage: Storage
) -> dg.MaterializeResult[ShardTable]:
    """The passages of the corpus, read from one shard of the source files.

    **A row** is one passage with a `doc_id` that is unique in the corpus and the hash of its text.
    Rows that cannot be used (broken JSON, no text, a duplicate in the shard, ...) are in
    `documents_rejects`, each with file, row and reason.

    **Cost:** none, no model is asked. **Rerun** freely: the same file gives the same table. A run
    that was stopped leaves the table as it was; **resume** by materializing the shard again.
    """
    started = time.monotonic()
    source = corpus.source()
    try:
        shard = source.shard(context.partition_key, known_shards(storage.tables()))
        rows = StepProgress(context, shard.n_rows).counting(source.read(shard))
        produced = read_documents(rows, file=shard.file)
    except SourceError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    words = produced.rows["n_words"]
    return materialized(
        "documents",
        produced,
        documents_from(shard),
        {
            "file": shard.file,
            "duplicates": produced.rejects.filter(pl.col("reason").is_in(DUPLICATES)).height,
            "words": words.sum(),
            **spread("words", words),
        },
        seconds=time.monotonic() - started,
        chart=histogram(words, "words in a document"),
    )
