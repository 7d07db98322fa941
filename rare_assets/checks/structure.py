"""What holds for every table: its schema and key, few rejects, no row lost, none out of date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import dagster as dg
import polars as pl

from rare_assets.catalog.metadata import first_rejects, reasons
from rare_assets.checks.judgement import Judgement, StoredShard, no_rows
from rare_assets.operators.read_documents import FILE_REASONS
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import TableDamaged
from rare_assets.text.shown_url import shown

FEW_REJECTS = 5
# A file that can't be read is judged by a check of its own.
NO_FAILURE = ("too_short", "unsuitable_document", "wrong_answer_retried", *FILE_REASONS)


def schema_holds(stored: StoredShard) -> Judgement:
    """Require that the file is what was written: every column is there, of its type, and every
    constraint of the schema class holds."""
    schema = TABLES[stored.table].schema
    try:
        rows = stored.rows
    except TableDamaged as damaged:
        return Judgement(False, {"damaged": True}, sentence=str(damaged))
    missing = [name for name in schema.column_names() if name not in rows.columns]
    types = {
        name: str(rows.schema[name])
        for name, column in schema.columns().items()
        if name in rows.columns and not column.validate_dtype(rows.schema[name])
    }
    if missing or types:
        return Judgement(False, {"missing_columns": missing, "wrong_types": types})
    # To tell rows and rules apart takes twice as long.
    if schema.is_valid(rows):
        return Judgement(True, {"failed_rows": 0, "failures_by_rule": {}})
    _, failures = schema.filter(rows)
    counts = failures.counts()
    return Judgement(False, {"failed_rows": len(failures), "failures_by_rule": counts})


def key_is_unique(key: str) -> Callable[[StoredShard], Judgement]:
    """Return a check that no value of the key column stands twice in the shard."""

    def judge(stored: StoredShard) -> Judgement:
        repeated = stored.rows.filter(pl.col(key).is_duplicated())[key].unique(maintain_order=True)
        return no_rows("repeated", repeated)

    return judge


def columns_have_text(*columns: str) -> Callable[[StoredShard], Judgement]:
    """Return a check that none of the columns is null or blank in any row."""

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
    """Warn over `max_reject_rate`, and fail over `block_reject_rate`, which blocks.

    A handful of rejects in a small shard says little, so fewer than five never block. Rows that the
    options leave out on purpose, and answers that a later one replaced, are no failures.
    """
    warns_above = stored.threshold("max_reject_rate")
    blocks_above = stored.threshold("block_reject_rate")
    failed = stored.rejects.filter(~pl.col("reason").is_in(NO_FAILURE))
    total = stored.rows.height + failed.height
    rate = failed.height / total if total else 0.0
    by_reason = dict(stored.rejects["reason"].value_counts(sort=True).iter_rows())
    unsuitable = by_reason.get("unsuitable_document", 0)
    error = rate > blocks_above and failed.height >= FEW_REJECTS
    limit = blocks_above if error else warns_above
    path = shown(stored.tables.rejects_path(stored.table, stored.shard))
    return Judgement(
        rate <= warns_above and not error,
        {
            "reject_rate": rate,
            "rejects": failed.height,
            "reasons": by_reason,
            **({"unsuitable_documents": unsuitable} if unsuitable else {}),
            "threshold": warns_above,
            "blocking_threshold": blocks_above,
        },
        dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        f"{failed.height:,} of {total:,} {_unused(stored)} ({reasons(failed)}), "
        f"limit {100 * limit:.4g} %; see {path}",
        {
            "first_rejects": first_rejects(stored.table, stored.rejects),
            "rejects_path": dg.MetadataValue.path(path),
        },
    )


def _unused(stored: StoredShard) -> str:
    """Name what a table's rejects are, to stand after their number."""
    options = stored.options
    if stored.table == "documents":
        return "rows of the source could not be used"
    if stored.table == "questions":
        several = options.get("num_questions", 1) > 1
        return "questions could not be used" if several else "documents have no usable question"
    if stored.table == "hard_negatives":
        return "questions could not be given negatives"
    several = options.get("n", 1) > 1 or options.get("rejection_samples", 0) > 0
    return "answers could not be used" if several else "questions have no usable reasoning"


def every_row_accounted_for(upstream: str, key: str) -> Callable[[StoredShard], Judgement]:
    """Return a check that each upstream row led to a row or a reject: nothing was lost."""

    def judge(stored: StoredShard) -> Judgement:
        seen = pl.concat([stored.rows.select(key), stored.rejects.select(key)]).lazy()
        lost = stored.other(upstream).select(key).join(seen, on=key, how="anti").collect()[key]
        return no_rows("lost", lost)

    return judge


class Upstream(NamedTuple):
    """A table that rows were made from: the key that finds its row, and what a column equals there."""

    table: str
    key: str
    columns: Mapping[str, pl.Expr]


def rows_as_stored(*upstream: Upstream) -> Callable[[StoredShard], Judgement]:
    """Return a check that columns of a row hold what the tables upstream hold now."""

    def judge(stored: StoredShard) -> Judgement:
        rows = stored.rows.lazy()
        same: dict[str, pl.Expr] = {}
        for table, key, columns in upstream:
            there = {f"{table}.{name}": value for name, value in columns.items()}
            rows = rows.join(stored.other(table).select(key, **there), on=key, how="left")
            same |= {name: pl.col(name).eq_missing(pl.col(f"{table}.{name}")) for name in columns}
        flags = rows.select("question_id", **same).collect()
        wrong = flags.filter(~pl.all_horizontal(same.keys()))["question_id"]
        by_column = {name: int((~flags[name]).sum()) for name in same}
        return no_rows("differing", wrong.unique().sort(), by_column=by_column)

    return judge
