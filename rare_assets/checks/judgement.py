"""What a rule and a check are, what they see, and what they find."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import dagster as dg
import polars as pl

from rare_assets.resources.configurable import Bm25Retriever
from rare_assets.resources.dataset import UNNAMED, Dataset
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables, TableDamaged, TableMissing, with_later_columns
from rare_assets.text.shown import cut

EXAMPLES = 5
EXAMPLE_CHARS = 200
# What a rule meets on a table that lacks a column, or its rejects.
UNJUDGEABLE = (pl.exceptions.PolarsError, TableDamaged, TableMissing)


class StoredShard:
    """A shard as the rules see it: its table's rows and rejects, and the tables around it.

    Args:
        table: one of `schemas.TABLES`.
        shard: its key.
        tables: the storage.
        retriever: the index; None where only rules that need none are judged.
        dataset: whose thresholds hold.
    """

    def __init__(
        self,
        table: str,
        shard: str,
        tables: ParquetTables,
        retriever: Bm25Retriever | None = None,
        dataset: Dataset = UNNAMED,
    ) -> None:
        self.table = table
        self.shard = shard
        self.tables = tables
        self.threshold = dataset.threshold
        self._retriever = retriever
        self._others: dict[str, pl.LazyFrame] = {}

    @property
    def retriever(self) -> Bm25Retriever:
        """What opens the index."""
        assert self._retriever is not None, "a rule that needs the index is to say so"
        return self._retriever

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The table's rows."""
        return self.tables.load(self.table, self.shard).collect()

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
        """Read the same shard of another table; columns that came after it was written are null."""
        if table not in self._others:
            scanned = self.tables.scan(table, self.shard)
            self._others[table] = with_later_columns(scanned, TABLES[table].schema)
        return self._others[table]


class Judgement(NamedTuple):
    """What a rule found. A failure is WARN (never blocks) or ERROR.

    `metadata` begins with the measured value; `sentence` says it all in one line, where the rule's
    own words would not; `shown` is for the UI alone.
    """

    passed: bool
    metadata: dict[str, Any]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    sentence: str | None = None
    shown: Mapping[str, dg.MetadataValue] = {}

    @property
    def measured(self) -> dict[str, Any]:
        """The metadata without examples and threshold."""
        return {k: v for k, v in self.metadata.items() if k not in ("examples", "threshold")}


class Rule(NamedTuple):
    """One property of a table, by name.

    `holds` says what holds, `otherwise` why it may not and what to do then; `setting` is the
    environment variable of its threshold. Where a paying step looks at a table made by an earlier
    run, rules that need the index are left out: it may be away, and the step does without.
    """

    name: str
    holds: str
    otherwise: str
    judge: Callable[[StoredShard], Judgement]
    setting: str | None = None
    needs_index: bool = False

    @property
    def description(self) -> str:
        """What holds, what to do if not, and which setting is the threshold."""
        threshold = f" Threshold: {self.setting}." if self.setting else ""
        return f"{self.holds} If not: {self.otherwise}{threshold}"


class Finding(NamedTuple):
    """What a check found in a shard: the judgement of each of its rules, in order."""

    judged: tuple[tuple[Rule, Judgement], ...]

    @property
    def failing(self) -> list[tuple[Rule, Judgement]]:
        """The rules that do not hold."""
        return [(rule, judgement) for rule, judgement in self.judged if not judgement.passed]

    @property
    def passed(self) -> bool:
        """Whether all of them hold."""
        return not self.failing

    @property
    def severity(self) -> dg.AssetCheckSeverity:
        """ERROR if any rule fails with an error."""
        error, warning = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
        return error if any(each.severity is error for _, each in self.failing) else warning

    @property
    def is_error(self) -> bool:
        """Whether it is a failure that stops what follows, if its check is blocking."""
        return not self.passed and self.severity is dg.AssetCheckSeverity.ERROR

    @property
    def sentence(self) -> str:
        """What does not hold, and what to do: one line a rule; empty if all of them hold."""
        return "\n".join(_sentence(rule, judgement) for rule, judgement in self.failing)


class Check(NamedTuple):
    """What the UI shows as one check of a table: rules that are judged together."""

    name: str
    description: str
    blocking: bool
    rules: tuple[Rule, ...]

    def judge(self, stored: StoredShard, *, with_index: bool = True) -> Finding:
        """Judge every rule. Where the first one (the schema, say) fails, a later one that can't be
        judged on such a table is no news, and left out.

        Args:
            with_index: whether to judge the rules that need the index, too.
        """
        judged: list[tuple[Rule, Judgement]] = []
        for rule in self.rules:
            if rule.needs_index and not with_index:
                continue
            try:
                judged.append((rule, rule.judge(stored)))
            except UNJUDGEABLE:
                if not judged or judged[0][1].passed:
                    raise
        return Finding(tuple(judged))


def no_rows(name: str, wrong: pl.Series, **measured: Any) -> Judgement:
    """Judge what must not occur: an error if any row does, with the first few by id.

    Args:
        name: of the rows; the metadata has their number under it.
        wrong: ids of the rows.
        measured: further figures for the metadata.
    """
    return Judgement(
        wrong.is_empty(),
        {name: len(wrong), **measured, "threshold": 0, "examples": wrong.head(EXAMPLES).to_list()},
    )


def rate_below(name: str, flagged: pl.DataFrame, judged: int, threshold: float) -> Judgement:
    """Judge what may occur now and then: warn where its share of rows is above a threshold.

    Args:
        name: of the flagged rows; the metadata has their number, and their share as `<name>_rate`.
        flagged: ids and texts of the rows flagged; the first few are the examples, shortened.
        judged: rows that could be judged at all.
        threshold: largest share that passes, from 0 to 1.
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
    """Cut a text for an example to a length that metadata can carry."""
    return text.map_elements(lambda whole: cut(whole, EXAMPLE_CHARS), return_dtype=pl.String)


def figures(measured: Mapping[str, Any]) -> str:
    """Return measured values in one line: `lost 3`, `quoting_rate 0.2, quoting 2, judged 10`."""
    return ", ".join(f"{name} {_figure(value)}" for name, value in measured.items())


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        # Of what is counted by name, the names that occur.
        return f"({figures({k: v for k, v in value.items() if v})})"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sentence(rule: Rule, judgement: Judgement) -> str:
    if judgement.sentence:
        return judgement.sentence
    ids = [each for each in judgement.metadata.get("examples", []) if isinstance(each, str)]
    named = f": {', '.join(ids)}" if ids else ""
    remedy = rule.otherwise[:1].upper() + rule.otherwise[1:]
    return f"{rule.name} does not hold ({figures(judgement.measured)}{named}). {remedy}"
