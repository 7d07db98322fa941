"""What is stored, counted over all shards: one shard in memory at a time, and only what is counted of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from rare_assets.schemas import TABLES
from rare_assets.storage.footers import UNREADABLE
from rare_assets.storage.tables import ParquetTables, TableDamaged, TableMissing
from rare_assets.text.language import language_of

EXAMPLES = 50
WORST = 20
# Telling a language takes a millisecond: so many in all, and one of each shard at least.
LANGUAGES_TOLD = 2000
# Of free words, such as types of question: so many values by themselves.
_MOST_VALUES = 20
NOT_FOUND = "none"


class Measure(NamedTuple):
    """Something that every row of a table has, counted in parts from edge to edge.

    `edges` are the lowest values of the parts after the first, which begins at `lowest` if anywhere;
    without edges, `values` are words.
    """

    title: str
    table: str
    columns: tuple[str, ...]
    values: pl.Expr
    edges: tuple[int, ...] = ()
    lowest: int | None = None


_BEST = pl.col("negatives").list.eval(pl.element().struct.field("score")).list.max()
_CHARS = (100, 200, 400, 800, 1600, 3200, 6400)
MEASURES = (
    Measure(
        "Words in a document",
        "documents",
        ("n_words",),
        pl.col("n_words"),
        (50, 100, 200, 400, 800, 1600),
        lowest=1,
    ),
    Measure(
        "Characters in a question",
        "questions",
        ("question",),
        pl.col("question").str.len_chars(),
        (50, 100, 200, 400, 800),
        lowest=1,
    ),
    Measure(
        "Answers asked for until a question could be used",
        "questions",
        ("attempts",),
        pl.col("attempts"),
        (2, 3, 4, 6),
        lowest=1,
    ),
    Measure("Type of question", "questions", ("question_type",), pl.col("question_type")),
    Measure("Length asked for", "questions", ("length",), pl.col("length")),
    Measure("Wording asked for", "questions", ("wording",), pl.col("wording")),
    Measure("Origin of a question", "questions", ("origin",), pl.col("origin")),
    Measure(
        "BM25 rank of the gold document",
        "hard_negatives",
        ("gold_rank",),
        pl.col("gold_rank"),
        (2, 3, 4, 6, 11, 21, 51, 101),
        lowest=1,
    ),
    Measure(
        "Best negative's score below the gold's, in percent",
        "hard_negatives",
        ("gold_score", "negatives"),
        100 * (pl.col("gold_score") - _BEST) / pl.col("gold_score"),
        (0, 10, 20, 30, 40, 50, 60, 80),
    ),
    Measure(
        "Hard negatives of a question",
        "hard_negatives",
        ("hard_negatives",),
        pl.col("hard_negatives").list.len(),
        (1, 2, 3, 4, 5, 8, 16),
        lowest=0,
    ),
    Measure(
        "Characters in a reasoning",
        "reasoning",
        ("reasoning",),
        pl.col("reasoning").str.len_chars(),
        _CHARS,
        lowest=1,
    ),
    Measure(
        "Agrees with the reference answer",
        "reasoning",
        ("answer_correct",),
        pl.col("answer_correct").cast(pl.String),
    ),
    Measure(
        "Gold document used, as the teacher says",
        "reasoning",
        ("gold_used",),
        pl.col("gold_used").cast(pl.String),
    ),
)


class Distribution(NamedTuple):
    """How many rows fall into each part of a measure; `NOT_FOUND` counts nulls."""

    title: str
    counts: dict[str, int]


class Stage(NamedTuple):
    """Rows of a table and its rejects by reason, all shards together."""

    table: str
    shards: int
    rows: int
    rejects: dict[str, int]


class ShardFigures(NamedTuple):
    """A shard with rejects: rows and rejects of the stages that ask the teacher, together."""

    shard: str
    rows: int
    rejects: int
    reasons: str

    @property
    def rate(self) -> float:
        """Share of rejects."""
        return self.rejects / (self.rows + self.rejects)


class Figures(NamedTuple):
    """All that the page shows of the tables."""

    n_shards: int
    stages: list[Stage]
    distributions: list[Distribution]
    languages: dict[str, int]
    worst: list[ShardFigures]
    examples: list[dict[str, Any]]
    unreadable: list[str]


def gather(tables: ParquetTables, shards: Sequence[str]) -> Figures:
    """Count what is stored of these shards. Reads the tables, and asks nobody.

    A shard's table that can't be read is named in `unreadable`, and counts nowhere.

    Raises:
        StorageError: the storage can't be read.
    """
    # A few of every shard, however many there are.
    counting = _Counting(tables, max(1, LANGUAGES_TOLD // max(len(shards), 1)))
    for shard in shards:
        for table in TABLES:
            try:
                with tables.reading(table, shard):
                    counting.add(table, shard)
            except (TableDamaged, *UNREADABLE):
                counting.unreadable.append(f"{table}, shard {shard}")
    return Figures(
        len(shards),
        [
            Stage(table, counting.shards[table], counting.rows[table], dict(rejects.most_common()))
            for table, rejects in counting.rejects.items()
        ],
        [
            Distribution(measure.title, _in_order(measure, counts))
            for measure in MEASURES
            if set(counts := counting.counts[measure.title]) - {NOT_FOUND}
        ],
        dict(counting.languages.most_common()),
        counting.worst(),
        list(_examples(tables, counting.chosen(), counting.unreadable)),
        counting.unreadable,
    )


class _Counting:
    """Counts shard after shard."""

    def __init__(self, tables: ParquetTables, languages_told: int) -> None:
        self._tables = tables
        self._languages_told = languages_told
        self.shards: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.rejects: dict[str, Counter[str]] = {table: Counter() for table in TABLES}
        self.counts: dict[str, Counter[str]] = {each.title: Counter() for each in MEASURES}
        self.languages: Counter[str] = Counter()
        self.unreadable: list[str] = []
        self._asked: dict[str, tuple[int, Counter[str]]] = {}
        self._examples = pl.DataFrame(
            schema={"order": pl.UInt64, "shard": pl.String, "question_id": pl.String}
        )

    def add(self, table: str, shard: str) -> None:
        """Count a shard's table, if there is one."""
        stored = self._tables.provenance(table, shard)
        if stored is None:
            return
        rows = self._tables.scan(table, shard)
        there = set(rows.collect_schema().names())
        found = {
            measure.title: _counts(rows, measure)
            for measure in MEASURES
            if measure.table == table and there.issuperset(measure.columns)
        }
        reasons: Counter[str] = Counter()
        if stored.n_rejects:
            rejects = self._tables.scan_rejects(table, shard)
            reasons.update(dict(rejects.group_by("reason").len().collect().iter_rows()))
        if table == "questions":
            step = max(1, stored.n_rows // self._languages_told)
            spread = rows.select("question").gather_every(step).head(self._languages_told)
            texts = spread.collect()["question"]
            self.languages.update(language_of(text) or "not sure" for text in texts)
        if table == "reasoning":
            self._choose(rows, shard)
        self.shards[table] += 1
        self.rows[table] += stored.n_rows
        self.rejects[table] += reasons
        if table in ("questions", "reasoning"):
            n_rows, before = self._asked.get(shard, (0, Counter()))
            self._asked[shard] = (n_rows + stored.n_rows, before + reasons)
        for title, counts in found.items():
            self.counts[title] += counts

    def worst(self) -> list[ShardFigures]:
        """Return the shards with the largest shares of rejects, the largest first."""
        found = [
            ShardFigures(
                shard,
                rows,
                reasons.total(),
                ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3)),
            )
            for shard, (rows, reasons) in self._asked.items()
            if reasons
        ]
        return sorted(found, key=lambda each: (-each.rate, each.shard))[:WORST]

    def chosen(self) -> list[tuple[str, str]]:
        """Return shard and question of the rows that stand as examples."""
        return list(self._examples.select("shard", "question_id").iter_rows())

    def _choose(self, rows: pl.LazyFrame, shard: str) -> None:
        """Keep the questions with the smallest hashes: the same sample however the shards are cut."""
        ids = rows.select("question_id").unique().collect()
        some = ids.with_columns(order=pl.col("question_id").hash(seed=17), shard=pl.lit(shard))
        both = pl.concat([self._examples, some.select(self._examples.columns)])
        self._examples = both.sort("order").head(EXAMPLES)


def _counts(rows: pl.LazyFrame, measure: Measure) -> Counter[str]:
    part = measure.values
    if measure.edges:
        known = part.cast(pl.Float64).fill_nan(None)
        # The part's number is how many edges lie at or below the value.
        number = pl.sum_horizontal(known >= edge for edge in measure.edges)
        part = pl.when(known.is_not_null()).then(number).cast(pl.Int64)
    found = rows.select(part=part).group_by("part").len().collect(engine="streaming")
    names = dict(enumerate(_labels(measure))) if measure.edges else {}
    return Counter(
        {
            NOT_FOUND if value is None else names.get(value, value): count
            for value, count in found.iter_rows()
        }
    )


def _labels(measure: Measure) -> list[str]:
    """Name the parts of a measure as people write them: `1`, `50 to 99`, `100 or more`."""
    edges = measure.edges
    first = f"below {edges[0]:,}"
    if measure.lowest is not None:
        first = _between(measure.lowest, edges[0])
    between = [_between(low, high) for low, high in itertools.pairwise(edges)]
    return [first, *between, f"{edges[-1]:,} or more"]


def _between(low: int, high: int) -> str:
    return f"{low:,}" if low + 1 == high else f"{low:,} to {high - 1:,}"


def _in_order(measure: Measure, counts: Counter[str]) -> dict[str, int]:
    if not measure.edges:
        found = dict(counts.most_common(_MOST_VALUES))
        left = counts.total() - sum(found.values())
        return {**found, **({"others": left} if left else {})}
    names = [*_labels(measure), NOT_FOUND]
    return {name: counts[name] for name in names if counts[name] or name != NOT_FOUND}


def _examples(
    tables: ParquetTables, chosen: Iterable[tuple[str, str]], unreadable: list[str]
) -> Iterator[dict[str, Any]]:
    """Return the rows of the chosen questions, one sample of each, in the order chosen.

    Shards whose rows can't be read are added to `unreadable`.
    """
    by_shard: dict[str, list[str]] = {}
    order = {}
    for place, (shard, question_id) in enumerate(chosen):
        by_shard.setdefault(shard, []).append(question_id)
        order[question_id] = place
    found = []
    for shard, ids in by_shard.items():
        try:
            with tables.reading("reasoning", shard):
                rows = tables.scan("reasoning", shard).filter(pl.col("question_id").is_in(ids))
                kept = rows.collect().unique("question_id", keep="first", maintain_order=True)
        except TableMissing:
            continue
        except (TableDamaged, *UNREADABLE):
            if (named := f"reasoning, shard {shard}") not in unreadable:
                unreadable.append(named)
            continue
        found += [{**row, "shard": shard} for row in kept.iter_rows(named=True)]
    yield from sorted(found, key=lambda row: order[row["question_id"]])
