"""The index: BM25 over the documents of all shards."""

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

import dagster as dg
import polars as pl

from rare_assets.assets.step_progress import throttled
from rare_assets.assets.unsynced import report_unsynced, version_of
from rare_assets.catalog.metadata import OWNERS, PREVIEW_CHARS, arranged, made_with, say_once
from rare_assets.catalog.worked_example import shortened
from rare_assets.corpus.languages import (
    choose_analyzer,
    record_choice,
    sample_languages,
)
from rare_assets.files.stored_bytes import StorageDamaged
from rare_assets.resources.configurable import Bm25Retriever, Storage
from rare_assets.resources.dataset import Configs, Dataset, bind, code_reference
from rare_assets.resources.failures import failures_told
from rare_assets.resources.partitions import registered_shards
from rare_assets.retriever import (
    REJECTS,
    Bm25,
    IndexMissing,
    IndexState,
    Retriever,
    SyncReport,
)
from rare_assets.stages.corpus_index import CorpusIndexConfig, shards_to_index
from rare_assets.stages.standing import Negatives, find_standing
from rare_assets.storage.tables import ParquetTables

DUPLICATES_SHOWN = 20
HEADLINES = (
    "dagster/row_count",
    "shards",
    "shards_without_documents",
    "shards_indexed",
    "shards_removed",
    "documents_indexed",
    "documents_left_out",
    "duplicate_texts",
    "seconds",
)


def held_by(engine: Retriever) -> IndexState | None:
    """Return what the index holds; None without one that is whole."""
    try:
        return engine.state()
    except IndexMissing:
        return None


def require_documents(engine: Retriever, storage: Storage, missing: list[str]) -> None:
    """Refuse to empty an index since no registered shard has documents: it is the storage that is not
    there, as a disk that is not mounted. Raises dg.Failure."""
    held = held_by(engine)
    if held is not None and held.shards:
        raise dg.Failure(
            f"None of the {len(missing)} registered shards has documents in {storage.location}, and "
            f"the index holds {held.n_documents} of {len(held.shards)} shards: is that the right "
            "storage, and mounted? The index was left as it is. To empty it, delete the partitions.",
            allow_retries=False,
        )


def corpus_index(
    context: dg.AssetExecutionContext,
    dataset: Dataset,
    config: CorpusIndexConfig,
    retriever: Bm25Retriever,
    storage: Storage,
) -> dg.MaterializeResult:
    """Sync the BM25 index over the documents of all registered shards: the whole corpus.

    It *syncs*: only shards whose content changed are indexed again, shards that are no longer
    registered leave the index, the rest is left alone. `hard_negatives` of those shards alone are
    unsynced then whose negatives changed or are gone, or of which the corpus has outgrown theirs.

    **Engine:** Elasticsearch where `ELASTICSEARCH_URL` is set, else the embedded one; both give the
    same negatives.

    **Cost:** none, no model is asked. **Rerun** freely. **Resume** a sync that was stopped or killed
    by materializing again: what it had not finished is repaired, searches see the old index until then.
    """
    with failures_told():
        tables = storage.tables()
        registered = registered_shards(context.instance, dataset)
        with retriever.open() as engine:
            held = held_by(engine)
        held_shards = held.shards if held is not None else {}
        shards, missing, colliding = shards_to_index(tables, list(registered), held_shards)
        _warn_of_left_out(context, missing, colliding)
        analyzer = config.settled_analyzer(tables, retriever.engine)
        chosen = analyzer is None
        if analyzer is None:
            sample = sample_languages(tables, shards)
            analyzer, warning = choose_analyzer(sample, embedded=retriever.engine == "embedded")
            context.log.info(f"analyzer=auto: {analyzer}, by documents in {dict(sample.counts)}")
            if warning:
                context.log.warning(warning)
        with retriever.open() as engine:
            if missing and not shards:
                require_documents(engine, storage, missing)
            report = engine.sync(
                shards,
                # A sync reads a shard several times, and few of them.
                lru_cache(len(shards))(lambda shard: tables.load("documents", shard)),
                Bm25(config.k1, config.b, analyzer),
                throttled(context.log.info),
            )
            if chosen and shards:
                record_choice(tables, retriever.engine, analyzer)
            for warning in report.warnings:
                context.log.warning(warning)
            keep_state(tables, report.state)
            rejects = keep_rejects(tables, report)
            negatives = find_standing(tables, registered, engine, held, report.state)
        version = version_of(context.instance, dataset, held, report.state)
        report_unsynced(context.instance, dataset, negatives, version, report.state)
        said = _metadata(report, missing, rejects, negatives, config)
        made: dg.MaterializeResult = dg.MaterializeResult(metadata=said, data_version=version.now)
        return say_once(context, made)


def _warn_of_left_out(
    context: dg.AssetExecutionContext, missing: list[str], colliding: list[str]
) -> None:
    if colliding:
        context.log.warning(
            f"{len(colliding)} shards are not in the index, since an id of theirs stands for another "
            f"text in it: {', '.join(colliding[:10])}{', …' if len(colliding) > 10 else ''}. Their questions say which."
        )
    if missing:
        context.log.warning(
            f"{len(missing)} registered shards have no documents yet and are not in the index: "
            f"{', '.join(missing[:10])}{', …' if len(missing) > 10 else ''}. Materialize documents "
            "for them, then corpus_index again."
        )


def corpus_index_asset(dataset: Dataset, configs: Configs) -> dg.AssetsDefinition:
    """Return the asset of a dataset's index."""
    documents = dataset.key("documents")
    return dg.asset(
        key=dataset.key("corpus_index"),
        deps=[dg.AssetDep(documents, partition_mapping=dg.AllPartitionMapping())],
        group_name=dataset.named("rare_data"),
        owners=OWNERS,
        tags={"cost": "none"},
        # A sync is free and finds what a shard's own runs can't see: documents made anew since.
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(days=7), fail_window=timedelta(days=30)
        ),
        # No automation condition on it nor on what follows, which costs money: an update of the index
        # would request every shard again. The sensor `index_follows_documents` looks at what is stored.
        code_version="1",
        pool=dataset.pools["index"],
        io_manager_key=dataset.resource("io_manager"),
        metadata=code_reference(corpus_index),
    )(bind(corpus_index, dataset, configs))


def keep_state(tables: ParquetTables, state: IndexState) -> None:
    """Store which shards the index holds, and the content hash of each."""
    states = pl.DataFrame(
        {"shard": list(state.shards), "content_hash": list(state.shards.values())},
        schema={"shard": pl.String, "content_hash": pl.String},
    )
    tables.write_file(states, tables.root / "corpus_index" / "shards.parquet")


def keep_rejects(tables: ParquetTables, report: SyncReport) -> pl.DataFrame:
    """Store what the engine does not take, with the words of the sync that it was refused in."""
    path = tables.root / "corpus_index_rejects" / "rejects.parquet"
    try:
        before = tables.read_file(path)
    except FileNotFoundError:
        if report.rejects.is_empty():
            return report.rejects
        before = report.rejects.clear()
    except StorageDamaged:
        before = report.rejects.clear()
    told = before.filter(pl.col("detail").is_not_null()).unique(["shard", "doc_id"])
    rejects = report.rejects.join(
        told, on=["shard", "doc_id"], how="left", suffix="_before", maintain_order="left"
    ).select(
        "shard",
        "doc_id",
        reason=pl.when(pl.col("detail").is_null())
        .then(pl.coalesce("reason_before", "reason"))
        .otherwise("reason"),
        detail=pl.coalesce("detail", "detail_before"),
    )
    if not rejects.equals(before):
        tables.write_file(rejects, path)
    return rejects


def _metadata(
    report: SyncReport,
    missing: list[str],
    rejects: pl.DataFrame,
    negatives: Mapping[str, Negatives],
    config: CorpusIndexConfig,
) -> dict[str, Any]:
    state = report.state
    duplicates = report.duplicates.head(DUPLICATES_SHOWN)
    figures = {
        "dagster/row_count": state.n_documents,
        "shards": len(state.shards),
        "shards_without_documents": len(missing),
        "shards_indexed": len(report.indexed_shards),
        "shards_removed": len(report.removed_shards),
        "documents_indexed": report.n_indexed,
        "documents_removed": report.n_removed,
        "documents_left_out": report.n_rejects,
        "duplicate_texts": report.n_duplicates,
        "shards_to_mine_again": sum(not each.stand for each in negatives.values()),
        "seconds": report.seconds,
        "documents_per_second": report.n_indexed / report.seconds if report.seconds else 0.0,
        "engine": state.engine,
        "index_state": state.fingerprint,
        "k1": state.bm25.k1,
        "b": state.bm25.b,
        "analyzer": state.bm25.analyzer,
    }
    records = [
        dg.TableRecord(
            {
                "text_hash": row["text_hash"],
                "doc_ids": shortened(", ".join(row["doc_ids"]), PREVIEW_CHARS),
                "shards": shortened(", ".join(row["shards"]), PREVIEW_CHARS),
            }
        )
        for row in duplicates.iter_rows(named=True)
    ]
    columns = [dg.TableColumn(name) for name in ("text_hash", "doc_ids", "shards")]
    left_out = [
        dg.TableRecord(
            {name: shortened(str(value or ""), PREVIEW_CHARS) for name, value in row.items()}
        )
        for row in rejects.head(DUPLICATES_SHOWN).iter_rows(named=True)
    ]
    shown = {
        "left_out": dg.MetadataValue.table(
            left_out, schema=dg.TableSchema([dg.TableColumn(name) for name in REJECTS])
        ),
        "duplicates": dg.MetadataValue.table(records, schema=dg.TableSchema(columns)),
        "warnings": "\n".join(report.warnings) or None,
        "made_with": made_with({}, config),
    }
    return arranged(HEADLINES, figures, shown)
