"""How a table shows in Dagster's catalog: columns, lineage, previews, the metadata of a run.

Everything is made from the table's schema class, so the UI can't say something else than what is
stored. Lineage is also written into each column's description, since the open-source UI shows the
column lineage as JSON only.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import dagster as dg
import dataframely as dy
import polars as pl

from rare_assets.catalog.worked_example import shortened, worked_example
from rare_assets.resources.dataset import Dataset
from rare_assets.resources.io_manager import ShardTable
from rare_assets.schemas import TABLES, Produced
from rare_assets.storage.footers import content_hash
from rare_assets.text.shown import closed, isolated
from rare_assets.text.words import number_of_words

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

_MADE = ("rows", "rejects", "reject_rate")
_ASKED = ("cost_usd", "all_time_cost_usd", "requests", "seconds")
# Files come and go for weeks without a new one: told long before it is taken for a fault.
FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=datetime.timedelta(days=7), fail_window=datetime.timedelta(days=30)
)
# The figures that a person looks at first, and over shards and time.
HEADLINES = {
    "documents": (*_MADE, "words", "seconds"),
    "questions": (*_MADE, *_ASKED),
    "hard_negatives": (
        *_MADE,
        "negatives_per_question",
        "questions_without_negatives",
        "mean_gold_rank",
        "gold_first_rate",
        "seconds",
    ),
    "reasoning": (*_MADE, *_ASKED, "answer_correct_rate", "gold_used_rate"),
}


def table_schema(schema: type[dy.Schema]) -> dg.TableSchema:
    """Return a table's columns for the UI, with description, lineage and constraints."""
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


def column_lineage(schema: type[dy.Schema], dataset: Dataset) -> dg.TableColumnLineage:
    """Return which upstream columns each column is computed from, by its schema's `from`."""
    return dg.TableColumnLineage(
        {
            name: [
                dg.TableColumnDep(dataset.key(source.split(".")[0]), source.split(".")[1])
                for source in _sources(column)
            ]
            for name, column in schema.columns().items()
            if _sources(column)
        }
    )


def definition_metadata(table: str, dataset: Dataset) -> dict[str, Any]:
    """Return what the catalog shows of a table before anything has run."""
    schema = TABLES[table].schema
    return {
        "dagster/column_schema": table_schema(schema),
        "dagster/column_lineage": column_lineage(schema, dataset),
        "dagster/table_name": f"{dataset.named('rare')}.{table}",
    }


def preview(table: str, rows: pl.DataFrame) -> dg.MetadataValue:
    """Return the first rows as a small table: the columns to look at, long texts shortened."""
    head = rows.select(PREVIEW_COLUMNS[table]).head(PREVIEW_ROWS)
    records = [
        dg.TableRecord({name: _cell(value) for name, value in row.items()})
        for row in head.iter_rows(named=True)
    ]
    columns = [dg.TableColumn(name, str(dtype)) for name, dtype in head.schema.items()]
    return dg.MetadataValue.table(records=records, schema=dg.TableSchema(columns))


def first_rejects(table: str, rejects: pl.DataFrame) -> dg.MetadataValue:
    """Return the first rejects of a table: which row or question, why, how the raw answer
    begins."""
    if rejects.is_empty():
        # An empty table takes as much of the event log as one of three rows.
        return dg.MetadataValue.text("none")
    place = pl.format("{}:{}", "file", "row") if table == "documents" else pl.col("question_id")
    head = rejects.head(PREVIEW_ROWS).select(place.alias("place"), "reason", "detail")
    records = [
        dg.TableRecord({name: _cell(value) for name, value in row.items()})
        for row in head.iter_rows(named=True)
    ]
    columns = [dg.TableColumn(name) for name in head.columns]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def reasons(rejects: pl.DataFrame) -> str:
    """Return how many rejects have which reason, most often first: `15 not_json, 3 empty`.

    A number of its own for each would be a key that is there on some runs only.
    """
    counts = rejects["reason"].value_counts(name="rejects")
    ordered = counts.sort("rejects", "reason", descending=[True, False])
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered.iter_rows()) or "none"


def arranged(
    headlines: tuple[str, ...], figures: Mapping[str, Any], shown: Mapping[str, Any]
) -> dict[str, Any]:
    """Arrange a materialization's metadata as people read it: a few figures, what to look at, the
    rest.

    The UI plots every number that has a key of its own, so only those of `headlines` have one; the
    others are rows of the one table `details`. Each is said once: dagster-openai's names (`openai.
    <model>.calls`, ...) would be a second key of the same number, and one that no plot over two models
    could have.

    Args:
        headlines: the figures to begin with, in order; one that is not there is left out.
        figures: numbers and short texts by name; fractions are rounded.
        shown: pictures, examples, tables, between the two.
    """
    rounded = {name: _rounded(name, value) for name, value in figures.items()}
    details = [
        dg.TableRecord({"figure": name, "value": value})
        for name, value in rounded.items()
        if name not in headlines
    ]
    columns = [dg.TableColumn("figure"), dg.TableColumn("value")]
    return {
        **{name: rounded[name] for name in headlines if name in rounded},
        **shown,
        "details": dg.MetadataValue.table(details, schema=dg.TableSchema(columns)),
    }


def say_once(
    context: dg.AssetExecutionContext, result: dg.MaterializeResult[Any]
) -> dg.MaterializeResult[Any]:
    """Move a result's metadata to the materialization alone.

    Dagster stores those of a result in the event of the step's output, too, which no page shows: a
    third of a run's event log.
    """
    context.add_asset_metadata(result.metadata or {}, asset_key=result.asset_key)
    return dg.MaterializeResult(
        asset_key=result.asset_key,
        value=result.value,
        data_version=result.data_version,
        check_results=result.check_results,
        tags=result.tags,
    )


def _rounded(name: str, value: Any) -> Any:
    places = 6 if name.endswith("_usd") else 4
    return round(value, places) if isinstance(value, float) else value


def materialized(
    table: str,
    produced: Produced,
    made_from: Mapping[str, str],
    metadata: Mapping[str, Any],
    *,
    seconds: float,
    chart: dg.MetadataValue,
    options: dg.Config | None = None,
    documents: pl.LazyFrame | None = None,
) -> dg.MaterializeResult[ShardTable]:
    """Return an asset's result: the shard for storage, its data version, and metadata.

    The same keys on every run, so that plots over runs and partitions mean something; what could
    not be measured is null.

    Args:
        table: one of `schemas.TABLES`.
        produced: the table's rows and rejects.
        made_from: see `rare_assets.stages.provenance`.
        metadata: what this asset says besides.
        seconds: that making it took.
        chart: a picture of the rows.
        options: of this run.
        documents: the shard's documents, where the rows lack the texts that an example shows.
    """
    rows, rejects = produced
    total = rows.height + rejects.height
    version = content_hash(rows, TABLES[table].identity_of(rows))
    return dg.MaterializeResult(
        value=ShardTable(rows, rejects, made_from),
        data_version=dg.DataVersion(version),
        metadata=arranged(
            HEADLINES[table],
            {
                "rows": rows.height,
                "rejects": rejects.height,
                "reject_rate": rejects.height / total if total else 0.0,
                **metadata,
                "seconds": seconds,
                "rows_per_second": total / seconds if seconds else 0.0,
                "content_hash": version,
            },
            {
                # Dagster's own name, by which the catalog shows it; all shards' is corpus_report's.
                "dagster/partition_row_count": rows.height,
                "rejects_by_reason": reasons(rejects),
                "first_rejects": first_rejects(table, rejects),
                "chart": chart,
                "example": worked_example(table, rows, documents),
                "preview": preview(table, rows),
                "made_with": made_with(made_from, options),
            },
        ),
    )


def made_with(made_from: Mapping[str, str], options: dg.Config | None) -> dg.MetadataValue:
    """Return what decided how a shard was made, besides its inputs: the model, the fingerprints of
    the prompts, and every option of the run."""
    prompts = {name: value for name, value in made_from.items() if name.endswith("prompt")}
    model = made_from.get("teacher") or made_from.get("judge")
    return dg.MetadataValue.json(
        {
            **({"model": model} if model else {}),
            **prompts,
            "options": options.model_dump() if options else {},
        }
    )


def n_words(texts: pl.Series) -> pl.Series:
    """Return the number of words of each text."""
    return pl.select(number_of_words(pl.lit(texts))).to_series()


def spread(name: str, values: pl.Series) -> dict[str, float | None]:
    """Return mean, median and 95th percentile of some values as `mean_<name>`, `<name>_p50` and
    `<name>_p95`, null without values."""
    return {
        f"mean_{name}": round(float(values.sum()) / len(values), 2) if len(values) else None,
        f"{name}_p50": values.quantile(0.5, "linear"),
        f"{name}_p95": values.quantile(0.95, "linear"),
    }


def share(flags: pl.Series) -> float:
    """Return the share of true values, from 0 to 1; 0 without values."""
    return float(flags.sum()) / len(flags) if len(flags) else 0.0


def _constraints(name: str, column: dy.Column) -> list[str]:
    """Return what else holds for a column's values, as `min 1` or `not blank`."""
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
    if isinstance(value, list):
        return closed(shortened(f"{len(value)}: {' | '.join(map(isolated, value))}", PREVIEW_CHARS))
    return isolated(shortened(str(value), PREVIEW_CHARS))
