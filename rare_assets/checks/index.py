"""What holds for the index: it has every shard as stored now, no text stands in the corpus twice, and
its analyzer is for the language of the documents."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import dagster as dg
import polars as pl

from rare_assets.catalog.worked_example import shortened
from rare_assets.checks.judgement import EXAMPLE_CHARS, EXAMPLES, rate_below
from rare_assets.checks.near_duplicates import near_duplicates
from rare_assets.checks.question_quality import NEAR_DUPLICATE
from rare_assets.checks.wording import word_set
from rare_assets.corpus.languages import fitting_analyzer, sample_languages, unfitting
from rare_assets.resources.configurable import Bm25Retriever, Storage
from rare_assets.resources.dataset import Dataset, bind
from rare_assets.resources.failures import failures_told
from rare_assets.resources.partitions import registered_shards
from rare_assets.retriever import IndexDamaged, IndexMissing, ShardContent
from rare_assets.stages.corpus_index import shards_to_index
from rare_assets.storage.footers import UNREADABLE

MOST_QUESTIONS = 200_000


class Lag(NamedTuple):
    """Where an index is not what the documents are: shards it lacks, shards whose documents were made
    anew since, shards it should not hold."""

    missing: list[str]
    changed: list[str]
    surplus: list[str]


def index_lag(wanted: Mapping[str, ShardContent], held: Mapping[str, str]) -> Lag:
    """Compare what the index is to hold (shard -> content) with what it holds (shard -> hash)."""
    return Lag(
        [shard for shard in wanted if shard not in held],
        [s for s, content in wanted.items() if s in held and held[s] != content.content_hash],
        [shard for shard in held if shard not in wanted],
    )


def index_holds_every_shard(
    context: dg.AssetCheckExecutionContext,
    dataset: Dataset,
    storage: Storage,
    retriever: Bm25Retriever,
) -> dg.AssetCheckResult:
    """Require that the index holds what the files' footers say, whatever the clocks say."""
    with failures_told():
        registered = registered_shards(context.instance, dataset)
        with retriever.open() as engine:
            try:
                held = engine.state().shards
                damage: dict[str, str] = {}
            except IndexDamaged as error:
                held, damage = {}, {"damaged": str(error)}
            except IndexMissing:
                held, damage = {}, {}
        wanted = shards_to_index(storage.tables(), list(registered), held).contents
    lag = index_lag(wanted, held)
    event = context.instance.get_latest_materialization_event(dataset.key("corpus_index"))
    synced = {"synced": dg.MetadataValue.timestamp(event.timestamp)} if event else {}
    return dg.AssetCheckResult(
        passed=not any(lag),
        metadata={
            "shards": len(wanted),
            **{kind: len(shards) for kind, shards in lag._asdict().items()},
            "threshold": 0,
            "examples": {kind: shards[:EXAMPLES] for kind, shards in lag._asdict().items()},
            **synced,
            **damage,
        },
    )


def analyzer_fits_language(
    context: dg.AssetCheckExecutionContext,
    dataset: Dataset,
    storage: Storage,
    retriever: Bm25Retriever,
) -> dg.AssetCheckResult:
    """Expect the analyzer to fit the languages of documents from several shards."""
    tables = storage.tables()
    registered = registered_shards(context.instance, dataset)
    with retriever.open() as engine:
        try:
            state = engine.state()
        except IndexMissing:
            return dg.AssetCheckResult(
                passed=True, severity=dg.AssetCheckSeverity.WARN, metadata={"judged": 0}
            )
    analyzer = state.bm25.analyzer
    indexed = shards_to_index(tables, list(registered), state.shards).contents
    sample = sample_languages(tables, indexed)
    flagged = unfitting(analyzer, sample)
    threshold = dataset.threshold("max_other_language_rate")
    rate = len(flagged) / sample.counts.total() if flagged else 0.0
    return dg.AssetCheckResult(
        passed=rate <= threshold,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "analyzer": analyzer,
            "fitting_analyzer": fitting_analyzer(sample),
            "other_language_rate": rate,
            "judged": sample.counts.total(),
            "threshold": threshold,
            "languages": dict(sample.counts.most_common()),
            "examples": [
                {"text": shortened(text, EXAMPLE_CHARS), "language": language}
                for text, language in flagged[:EXAMPLES]
            ],
        },
    )


def texts_distinct_across_shards(
    context: dg.AssetCheckExecutionContext, dataset: Dataset
) -> dg.AssetCheckResult:
    """Expect no text to stand in two shards, by what the sync of this run found."""
    event = context.instance.get_latest_materialization_event(dataset.key("corpus_index"))
    found = event.asset_materialization if event else None
    count = found.metadata["duplicate_texts"].value if found else 0
    return dg.AssetCheckResult(
        passed=not count,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"duplicate_texts": count, "threshold": 0},
    )


def questions_distinct_across_shards(
    context: dg.AssetCheckExecutionContext, dataset: Dataset, storage: Storage
) -> dg.AssetCheckResult:
    """Expect no question to stand in two shards, by the stored questions of all of them."""
    tables = storage.tables()
    read: list[pl.DataFrame] = []
    left = MOST_QUESTIONS
    unreadable = 0
    for shard in registered_shards(context.instance, dataset):
        if left <= 0 or not tables.exists("questions", shard):
            continue
        try:
            asked_of = tables.scan("questions", shard).select("question_id", "question").head(left)
            read.append(asked_of.collect().with_columns(shard=pl.lit(shard)))
        except UNREADABLE:
            # A damaged table is its own shard's fault, told where it is read and made again.
            unreadable += 1
            continue
        left -= read[-1].height
    columns = ("question_id", "question", "shard")
    asked = pl.concat([pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), *read])
    found = near_duplicates(
        asked.with_columns(words=word_set(pl.col("question"))), NEAR_DUPLICATE
    ).drop("words")
    repeated = asked.with_row_index("repeats").rename(
        {"question_id": "repeats_id", "question": "repeated", "shard": "in_shard"}
    )
    across = (
        found.join(repeated, on="repeats", maintain_order="left")
        .filter(pl.col("shard") != pl.col("in_shard"))
        .select("question_id", "question", "repeats_id", "repeated")
    )
    judged = rate_below(
        "near_duplicates", across, asked.height, dataset.threshold("max_near_duplicate_rate")
    )
    return dg.AssetCheckResult(
        passed=judged.passed,
        severity=judged.severity,
        metadata={**judged.metadata, "shards_unreadable": unreadable},
    )


# What holds, and what to do if not, by the function that looks.
_DESCRIPTIONS: dict[Callable[..., dg.AssetCheckResult], str] = {
    index_holds_every_shard: "The index holds every registered shard that has documents, as they are stored now, "
    "and no other: no shard's documents are newer than it. If not: materialize corpus_index again, it "
    "takes only what changed. Run this check by itself at any time, it costs nothing.",
    analyzer_fits_language: "The index' analyzer is for the language of the documents, judged by a sample of 200: "
    "another one's endings and stop words make negatives that share no word with the question. If "
    "not: set `analyzer` of corpus_index to what `fitting_analyzer` names, or to auto. Threshold: "
    "RARE_MAX_OTHER_LANGUAGE_RATE.",
    texts_distinct_across_shards: "No text stands in the corpus under two ids or in two shards. Such twins are never "
    "each other's negatives, but each is asked about and paid for: remove one from the source.",
    questions_distinct_across_shards: "Few questions repeat one of another shard: four fifths of their words in common. If not: "
    "remove near-duplicates from the source. Judged are the first 200,000 questions that are stored. "
    "Threshold: RARE_MAX_NEAR_DUPLICATE_RATE.",
}


def index_checks(dataset: Dataset) -> list[dg.AssetChecksDefinition]:
    """Return the checks of a dataset's index."""
    return [
        dg.asset_check(asset=dataset.key("corpus_index"), description=description)(
            bind(judge, dataset)
        )
        for judge, description in _DESCRIPTIONS.items()
    ]
