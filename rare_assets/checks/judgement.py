"""What a check is, what it sees, and what it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import dagster as dg
import polars as pl

from rare_assets.resources.configurable import Bm25Retriever
from rare_assets.resources.tables import ParquetTables

EXAMPLES = 5
EXAMPLE_CHARS = 200


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

    @cached_property
    def options(self) -> dict[str, Any]:
        """The run's options that the table was made with, by name; empty if the file tells none."""
        provenance = self.tables.provenance(self.table, self.shard)
        options: dict[str, Any] = json.loads(
            (provenance.made_from if provenance else {}).get("options", "{}")
        )
        return options

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


def none_of(name: str, wrong: pl.Series, **measured: Any) -> Judgement:
    """The judgement on what must not occur: how many, and the first few by id."""
    return Judgement(
        wrong.is_empty(),
        {name: len(wrong), **measured, "threshold": 0, "examples": wrong.head(EXAMPLES).to_list()},
    )


def few_of(name: str, flagged: pl.DataFrame, judged: int, threshold: float) -> Judgement:
    """The judgement on what may occur now and then: a warning where its share is above a threshold.

    Args:
        name: of the flagged rows; the metadata has their number, and their share as `<name>_rate`.
        flagged: ids and texts of the rows flagged; the first few are the examples, shortened.
        judged: rows that could be judged at all.
    """
    rate = flagged.height / judged if judged else 0.0
    examples = flagged.head(EXAMPLES).with_columns(shortened(pl.col(pl.String)))
    return Judgement(
        rate <= threshold,
        {
            f"{name}_rate": rate,
            name: flagged.height,
            "judged": judged,
            "threshold": threshold,
            "examples": examples.to_dicts(),
        },
        dg.AssetCheckSeverity.WARN,
    )


def shortened(text: pl.Expr) -> pl.Expr:
    """A text for an example: cut to a length that metadata can carry."""
    cut = text.str.len_chars() > EXAMPLE_CHARS
    return pl.when(cut).then(text.str.head(EXAMPLE_CHARS - 1) + "…").otherwise(text)
