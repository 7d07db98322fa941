"""Asset checks: the properties that the tables promise, judged per shard on what is stored.

A check is a plain function from a stored shard to a judgement, named for the property that holds.
Those that guard money downstream are blocking: in the same run, nothing after them starts.
Each carries its measured value and threshold as metadata.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import dagster as dg
import polars as pl

from rare_assets.assets.corpus_index import corpus_index, shards_to_index
from rare_assets.assets.documents import documents
from rare_assets.assets.hard_negatives import hard_negatives
from rare_assets.assets.questions import questions
from rare_assets.assets.reasoning import reasoning
from rare_assets.partitions import document_shards
from rare_assets.resources.configurable import Bm25Retriever, Storage
from rare_assets.resources.retriever.interface import IndexMissing, ShardContent
from rare_assets.resources.tables import ParquetTables
from rare_assets.schemas import TABLES
from rare_assets.settings import Settings

FEW_REJECTS = 5
NO_FAILURE = ("too_short", "wrong_answer_retried")


class StoredShard:
    """A shard as the checks see it: its table's rows and rejects, and the tables around it."""

    def __init__(
        self, table: str, shard: str, tables: ParquetTables, retriever: Bm25Retriever
    ) -> None:
        self.table = table
        self.shard = shard
        self.tables = tables
        self.retriever = retriever

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The table's rows."""
        return self.tables.scan(self.table, self.shard).collect()

    @cached_property
    def rejects(self) -> pl.DataFrame:
        """What the table's asset could not use."""
        return self.tables.scan_rejects(self.table, self.shard).collect()

    def other(self, table: str) -> pl.LazyFrame:
        """The same shard of another table."""
        return self.tables.scan(table, self.shard)


class Judgement(NamedTuple):
    """What a check found. A failure is WARN (never blocks) or ERROR."""

    passed: bool
    metadata: dict[str, Any]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


class Check(NamedTuple):
    """One property of a table, by name, with what to do when it does not hold."""

    name: str
    description: str
    blocking: bool
    judge: Callable[[StoredShard], Judgement]


def schema_holds(stored: StoredShard) -> Judgement:
    """Every column is there, of its type, and every constraint of the schema class holds."""
    schema = TABLES[stored.table].schema
    missing = [name for name in schema.column_names() if name not in stored.rows.columns]
    types = {
        name: str(stored.rows.schema[name])
        for name, column in schema.columns().items()
        if name in stored.rows.columns and not column.validate_dtype(stored.rows.schema[name])
    }
    if missing or types:
        return Judgement(False, {"missing_columns": missing, "wrong_types": types})
    _, failures = schema.filter(stored.rows)
    counts = failures.counts()
    return Judgement(not counts, {"failed_rows": len(failures), "failures_by_rule": counts})


def key_is_unique(key: str) -> Callable[[StoredShard], Judgement]:
    """A check that no value of the key column stands twice in the shard."""

    def judge(stored: StoredShard) -> Judgement:
        repeated = stored.rows.filter(pl.col(key).is_duplicated())[key].unique(maintain_order=True)
        return Judgement(
            repeated.is_empty(),
            {"repeated": len(repeated), "threshold": 0, "examples": repeated.head(5).to_list()},
        )

    return judge


def columns_have_text(*columns: str) -> Callable[[StoredShard], Judgement]:
    """A check that none of the columns is null or blank in any row."""

    def judge(stored: StoredShard) -> Judgement:
        blank = {
            column: stored.rows.select(
                (pl.col(column).fill_null("").str.strip_chars().str.len_chars() == 0).sum()
            ).item()
            for column in columns
        }
        return Judgement(not any(blank.values()), {"blank": blank, "threshold": 0})

    return judge


def reject_rate_below_threshold(stored: StoredShard) -> Judgement:
    """Over RARE_MAX_REJECT_RATE a warning; over RARE_BLOCK_REJECT_RATE an error, which blocks.

    A handful of rejects in a small shard says little, so fewer than five never block. Rows that the
    options leave out on purpose, and answers that a later one replaced, are no failures.
    """
    settings = Settings()
    failed = stored.rejects.filter(~pl.col("reason").is_in(NO_FAILURE))
    total = stored.rows.height + failed.height
    rate = failed.height / total if total else 0.0
    reasons = dict(stored.rejects["reason"].value_counts(sort=True).iter_rows())
    error = rate > settings.block_reject_rate and failed.height >= FEW_REJECTS
    return Judgement(
        rate <= settings.max_reject_rate and not error,
        {
            "reject_rate": rate,
            "rejects": failed.height,
            "reasons": reasons,
            "threshold": settings.max_reject_rate,
            "blocking_threshold": settings.block_reject_rate,
        },
        dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
    )


def every_row_accounted_for(upstream: str, key: str) -> Callable[[StoredShard], Judgement]:
    """A check that each upstream row led to a row or a reject: nothing was lost."""

    def judge(stored: StoredShard) -> Judgement:
        seen = pl.concat([stored.rows.select(key), stored.rejects.select(key)]).lazy()
        lost = stored.other(upstream).select(key).join(seen, on=key, how="anti").collect()[key]
        return Judgement(
            lost.is_empty(), {"lost": len(lost), "threshold": 0, "examples": lost.head(5).to_list()}
        )

    return judge


def gold_not_in_negatives(stored: StoredShard) -> Judgement:
    """No negative is the gold document, by id or by text."""
    gold = stored.other("documents").select("doc_id", "text")
    leaks = (
        stored.rows.lazy()
        .join(gold, on="doc_id", how="left")
        .filter(
            pl.col("hard_negatives").list.contains(pl.col("text"))
            | pl.col("negatives")
            .list.eval(pl.element().struct.field("doc_id"))
            .list.contains(pl.col("doc_id"))
        )
        .select("question_id")
        .collect()["question_id"]
    )
    return Judgement(
        leaks.is_empty(), {"leaks": len(leaks), "threshold": 0, "examples": leaks.head(5).to_list()}
    )


def negatives_distinct(stored: StoredShard) -> Judgement:
    """No text stands twice among the negatives of one question."""
    repeated = stored.rows.filter(
        pl.col("hard_negatives").list.n_unique() != pl.col("hard_negatives").list.len()
    )["question_id"]
    return Judgement(
        repeated.is_empty(),
        {"repeated": len(repeated), "threshold": 0, "examples": repeated.head(5).to_list()},
    )


def negatives_exist_in_corpus(stored: StoredShard) -> Judgement:
    """Every negative is a document that the index holds, with that very text."""
    said = (
        stored.rows.select(
            doc_id=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
            text=pl.col("hard_negatives"),
        )
        .filter(pl.col("doc_id").list.len() > 0)
        .explode("doc_id", "text")
        .unique()
    )
    with stored.retriever.open() as engine:
        held = engine.texts(said["doc_id"].unique().to_list())
    unknown = said.join(held, on=["doc_id", "text"], how="anti")["doc_id"]
    return Judgement(
        unknown.is_empty(),
        {
            "negatives": said.height,
            "unknown": len(unknown),
            "threshold": 0,
            "examples": unknown.head(5).to_list(),
        },
    )


def num_negatives_found(stored: StoredShard) -> Judgement:
    """Every question has as many negatives as were asked for; a small corpus may not have them."""
    provenance = stored.tables.provenance("hard_negatives", stored.shard)
    wanted = _option(provenance.made_from if provenance else {}, "num_neg")
    found = stored.rows["hard_negatives"].list.len()
    counts = found.value_counts(sort=True, name="questions").sort("hard_negatives")
    short = int((found < wanted).sum())
    share = short / len(found) if len(found) else 0.0
    threshold = Settings().max_short_of_negatives_rate
    return Judgement(
        share <= threshold,
        {
            "num_neg": wanted,
            "questions_with_fewer": short,
            "share_with_fewer": share,
            "threshold": threshold,
            "questions_by_number_found": {
                str(number): questions for number, questions in counts.iter_rows()
            },
        },
        dg.AssetCheckSeverity.WARN,
    )


def gold_position_points_at_gold(stored: StoredShard) -> Judgement:
    """`context_doc_ids[gold_position]` is the gold document, in every row."""
    wrong = stored.rows.filter(
        pl.col("context_doc_ids")
        .list.get(pl.col("gold_position"), null_on_oob=True)
        .ne_missing(pl.col("doc_id"))
    )["question_id"]
    return Judgement(
        wrong.is_empty(), {"wrong": len(wrong), "threshold": 0, "examples": wrong.head(5).to_list()}
    )


SCHEMA_HOLDS = Check(
    "schema_holds",
    "Every column is there, of its type, within its constraints. If not: the file was written by "
    "something else or another version; materialize this shard again.",
    True,
    schema_holds,
)
REJECT_RATE = Check(
    "reject_rate_below_threshold",
    "The share of rejects is small. If not: read the reasons in the rejects file beside the table. "
    "Thresholds: RARE_MAX_REJECT_RATE (warning), RARE_BLOCK_REJECT_RATE (error, stops what follows).",
    True,
    reject_rate_below_threshold,
)
CHECKS: dict[str, list[Check]] = {
    "documents": [
        SCHEMA_HOLDS,
        Check(
            "doc_ids_unique",
            "No doc_id stands twice in the shard. If not: materialize the shard again.",
            True,
            key_is_unique("doc_id"),
        ),
        Check(
            "text_not_empty",
            "No document is blank: each would be paid for. If not: materialize the shard again.",
            True,
            columns_have_text("text"),
        ),
        REJECT_RATE,
    ],
    "questions": [
        SCHEMA_HOLDS,
        Check(
            "question_ids_unique",
            "No question_id stands twice. If not: materialize the shard again (answers are stored, "
            "it costs nothing).",
            True,
            key_is_unique("question_id"),
        ),
        Check(
            "question_and_scenario_present",
            "Every row has a question and a scenario. If not: materialize the shard again.",
            True,
            columns_have_text("question", "scenario"),
        ),
        Check(
            "every_document_accounted_for",
            "Each document has a question or a reject. If not: documents were made anew since; "
            "materialize the shard's questions again (only new documents are asked about).",
            True,
            every_row_accounted_for("documents", "doc_id"),
        ),
        REJECT_RATE,
    ],
    "hard_negatives": [
        SCHEMA_HOLDS,
        Check(
            "gold_not_in_negatives",
            "No negative is the gold document or has its text: a model would be trained against the "
            "truth. If not: materialize corpus_index, then the shard again.",
            True,
            gold_not_in_negatives,
        ),
        Check(
            "negatives_distinct",
            "No text stands twice among a question's negatives. If not: materialize the shard again.",
            True,
            negatives_distinct,
        ),
        Check(
            "negatives_exist_in_corpus",
            "Every negative is a document of the index. If not: the corpus has changed since; "
            "materialize the shard again.",
            True,
            negatives_exist_in_corpus,
        ),
        Check(
            "every_question_accounted_for",
            "Each question has a row or a reject. If not: materialize the shard again.",
            True,
            every_row_accounted_for("questions", "question_id"),
        ),
        Check(
            "num_negatives_found",
            "Questions have num_neg negatives. If not: the corpus is small, or range_max and "
            "relative_margin leave too few. Threshold: RARE_MAX_SHORT_OF_NEGATIVES_RATE.",
            False,
            num_negatives_found,
        ),
        REJECT_RATE,
    ],
    "reasoning": [
        SCHEMA_HOLDS,
        Check(
            "reasoning_present",
            "Every row has a reasoning. If not: materialize the shard again.",
            True,
            columns_have_text("reasoning"),
        ),
        Check(
            "gold_position_points_at_gold",
            "The gold document stands where gold_position says. If not: materialize the shard again.",
            True,
            gold_position_points_at_gold,
        ),
        Check(
            "every_question_accounted_for",
            "Each question has a reasoning or a reject. If not: questions were made anew since; "
            "materialize hard_negatives and reasoning of the shard again.",
            True,
            every_row_accounted_for("questions", "question_id"),
        ),
        REJECT_RATE,
    ],
}


def table_checks(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    """All checks of one table as one step per shard, so that the shard is read once."""
    table = asset.key.path[-1]
    checks = {check.name: check for check in CHECKS[table]}
    with warnings.catch_warnings():
        # Partitioned checks are a preview in this Dagster; without them a check of one shard would
        # load all shards, and the UI would show one status for all.
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                check.name,
                asset=asset,
                description=check.description,
                blocking=check.blocking,
                partitions_def=document_shards,
            )
            for check in checks.values()
        ]

    @dg.multi_asset_check(
        name=f"{table}_checks",
        specs=specs,
        can_subset=True,
    )
    def judge_table(
        context: dg.AssetCheckExecutionContext, storage: Storage, retriever: Bm25Retriever
    ) -> Iterator[dg.AssetCheckResult]:
        stored = StoredShard(table, context.partition_key, storage.tables(), retriever)
        for key in context.selected_asset_check_keys:
            judgement = checks[key.name].judge(stored)
            yield dg.AssetCheckResult(
                passed=judgement.passed,
                asset_key=key.asset_key,
                check_name=key.name,
                severity=judgement.severity,
                metadata=judgement.metadata,
            )

    return judge_table


def shards_behind(
    wanted: Mapping[str, ShardContent], held: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Shards that the index lacks or holds with other content, and shards that it should not hold."""
    behind = [shard for shard, content in wanted.items() if held.get(shard) != content.content_hash]
    return behind, [shard for shard in held if shard not in wanted]


@dg.asset_check(
    asset=corpus_index,
    description="The index holds every registered shard that has documents, as they are stored now, "
    "and no other. If not: materialize corpus_index again.",
)
def index_holds_every_shard(
    context: dg.AssetCheckExecutionContext, storage: Storage, retriever: Bm25Retriever
) -> dg.AssetCheckResult:
    """Compares the index's own state with the files' footers."""
    registered = context.instance.get_dynamic_partitions(document_shards.name or "")
    wanted, _ = shards_to_index(storage.tables(), list(registered))
    with retriever.open() as engine:
        try:
            held = engine.state().shards
        except IndexMissing:
            held = {}
    behind, surplus = shards_behind(wanted, held)
    return dg.AssetCheckResult(
        passed=not behind and not surplus,
        metadata={
            "shards": len(wanted),
            "behind": len(behind),
            "surplus": len(surplus),
            "threshold": 0,
            "examples": [*behind[:5], *surplus[:5]],
        },
    )


@dg.asset_check(
    asset=corpus_index,
    description="No text stands in the corpus under two ids or in two shards. Such twins are never "
    "each other's negatives, but each is asked about and paid for: remove one from the source.",
)
def texts_distinct_across_shards(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Judges what the sync of this run found."""
    event = context.instance.get_latest_materialization_event(corpus_index.key)
    found = event.asset_materialization if event else None
    count = found.metadata["duplicate_texts"].value if found else 0
    return dg.AssetCheckResult(
        passed=not count,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"duplicate_texts": count, "threshold": 0},
    )


def _option(made_from: Any, name: str) -> int:
    return int(json.loads(made_from["options"])[name])


asset_checks = [
    *(table_checks(asset) for asset in (documents, questions, hard_negatives, reasoning)),
    index_holds_every_shard,
    texts_distinct_across_shards,
]
