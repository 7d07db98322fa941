"""How a table shows in Dagster's catalog: columns, lineage, previews, the metadata of a run.

Everything is made from the table's schema class, so the UI can't say something else than what is
stored. Lineage is also written into each column's description, since the open-source UI shows the
column lineage as JSON only.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import indent, wrap
from typing import Any

import dagster as dg
import dataframely as dy
import polars as pl

from rare_assets.resources.io_manager import ShardTable
from rare_assets.resources.tables import content_hash
from rare_assets.schemas import TABLES, Produced

OWNERS = ["team:data-platform"]
PREVIEW_ROWS = 5
PREVIEW_CHARS = 90
# The UI gives a table little width and cuts what goes beyond it.
PREVIEW_COLUMNS = {
    "documents": ("doc_id", "text", "source"),
    "questions": ("question_id", "scenario", "question"),
    "hard_negatives": ("question_id", "query", "hard_negatives"),
    "reasoning": ("question_id", "question", "reasoning"),
}
EXAMPLE_CHARS = 1500
EXAMPLE_WIDTH = 100


def table_schema(schema: type[dy.Schema]) -> dg.TableSchema:
    """A table's columns for the UI, with description, lineage and constraints."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=name,
                type=str(column.dtype),
                description=_description(column),
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable,
                    unique=column.primary_key and len(schema.primary_key()) == 1,
                    other=_constraints(name, column),
                ),
            )
            for name, column in schema.columns().items()
        ]
    )


def column_lineage(schema: type[dy.Schema]) -> dg.TableColumnLineage:
    """Which upstream columns each column is computed from."""
    return dg.TableColumnLineage(
        {
            name: [
                dg.TableColumnDep(asset_key=source.split(".")[0], column_name=source.split(".")[1])
                for source in _sources(column)
            ]
            for name, column in schema.columns().items()
            if _sources(column)
        }
    )


def definition_metadata(table: str) -> dict[str, Any]:
    """What the catalog shows of a table before anything has run."""
    schema = TABLES[table].schema
    return {
        "dagster/column_schema": table_schema(schema),
        "dagster/column_lineage": column_lineage(schema),
        "dagster/table_name": f"rare.{table}",
    }


def preview(table: str, rows: pl.DataFrame) -> dg.MetadataValue:
    """The first rows as a small table: the columns to look at, long texts shortened."""
    head = rows.select(PREVIEW_COLUMNS[table]).head(PREVIEW_ROWS)
    records = [
        dg.TableRecord({name: _cell(value) for name, value in row.items()})
        for row in head.iter_rows(named=True)
    ]
    columns = [dg.TableColumn(name, str(dtype)) for name, dtype in head.schema.items()]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns))


def example(rows: pl.DataFrame) -> dg.MetadataValue:
    """The first row whole, as Markdown.

    Values stand in code blocks: no formatting, link or image in a text of the corpus is rendered.
    """
    if rows.is_empty():
        return dg.MetadataValue.md("No rows.")
    parts = []
    for name, value in rows.row(0, named=True).items():
        texts = [str(part) for part in value] if isinstance(value, list) else [str(value)]
        short = _short("\n\n".join(texts), EXAMPLE_CHARS)
        lines = [part for line in short.splitlines() for part in wrap(line, EXAMPLE_WIDTH) or [""]]
        parts += [f"**{name}**", indent("\n".join(lines), " " * 4, lambda _: True)]
    return dg.MetadataValue.md("\n\n".join(parts))


def materialized(
    table: str, produced: Produced, made_from: Mapping[str, str], metadata: Mapping[str, Any]
) -> dg.MaterializeResult[ShardTable]:
    """The result of an asset: the shard for storage, its data version, and metadata.

    The same keys on every run, so that plots over runs and partitions mean something.
    """
    rows, rejects = produced
    total = rows.height + rejects.height
    version = content_hash(rows, TABLES[table].identity)
    return dg.MaterializeResult(
        value=ShardTable(rows, rejects, made_from),
        data_version=dg.DataVersion(version),
        metadata={
            "dagster/partition_row_count": rows.height,
            "rows": rows.height,
            "rejects": rejects.height,
            "reject_rate": rejects.height / total if total else 0.0,
            **{
                f"rejects/{reason}": count
                for reason, count in rejects["reason"].value_counts(sort=True).iter_rows()
            },
            "content_hash": version,
            **metadata,
            "preview": preview(table, rows),
            "example": example(rows),
        },
    )


def mean_words(texts: pl.Series) -> float:
    """Mean number of words, split at white space; 0 without texts."""
    return float(texts.str.count_matches(r"\S+").sum()) / len(texts) if len(texts) else 0.0


def share(flags: pl.Series) -> float:
    """Share of true values; 0 without values."""
    return float(flags.sum()) / len(flags) if len(flags) else 0.0


def _constraints(name: str, column: dy.Column) -> list[str]:
    """What else holds for a column's values, as `min 1` or `not blank`."""
    rules = set(column.validation_rules(pl.col(name))) - {"nullability", "nan", "inf"}
    return sorted(
        f"{rule.replace('_', ' ')} {getattr(column, rule)}"
        if hasattr(column, rule)
        else rule.removeprefix("check__").replace("_", " ")
        for rule in rules
        if not rule.startswith("inner")
    )


def _sources(column: dy.Column) -> list[str]:
    return list((column.metadata or {}).get("from", []))


def _description(column: dy.Column) -> str:
    sources = _sources(column)
    lineage = f" (from {', '.join(f'`{source}`' for source in sources)})" if sources else ""
    return f"{column.description}{lineage}"


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = f"{len(value)}: {' | '.join(value)}" if isinstance(value, list) else str(value)
    return _short(text, PREVIEW_CHARS)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
