"""How many mined negatives are relevant, and how hard they are, for each setting of the miner.

    python -m rare_assets_tests.benchmarks.false_negatives FOLDER...

A folder holds a judged collection: corpus.jsonl, queries.jsonl, qrels.tsv (or qrels/test.tsv). Each
relevant document of a query is taken for the gold document once; every other document judged
relevant for that query is a false negative if the miner chooses it. What nobody judged counts as
not relevant, so figures of collections with few judgments are too low.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from rich.console import Console
from rich.table import Table

from rare_assets.operators.bm25_hard_neg import bm25_hard_neg
from rare_assets.retriever.embedded.engine import EmbeddedRetriever
from rare_assets.retriever.interface import HITS, SCORES, Bm25, Retriever, ShardContent
from rare_assets_tests.benchmarks.corpora import Judged, read_judged

PLAIN: dict[str, Any] = {"relative_margin": 0, "range_min": 0}
NUM_NEG = 3
WITHIN = 10
DEPTH = 10_000
LIKE_DEPTH = 200

STRICT = PLAIN | {"near_duplicate_threshold": 0, "fallback_range_min": None}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain top 3": PLAIN,
    **{f"range_min={first}": PLAIN | {"range_min": first} for first in (5, 10, 20, 30)},
    **{
        f"relative_margin={margin}": STRICT | {"relative_margin": margin}
        for margin in (0.05, 0.1, 0.2, 0.3)
    },
    **{
        f"relative_margin={margin}, range_min={first}": STRICT
        | {"relative_margin": margin, "range_min": first}
        for margin, first in ((0.05, 5), (0.05, 10), (0.1, 10), (0.2, 10))
    },
    **{
        f"near_duplicate_threshold={threshold}": PLAIN | {"near_duplicate_threshold": threshold}
        for threshold in (0.8, 0.6, 0.4)
    },
    **{
        f"random within {first} to {last}": PLAIN
        | {"range_min": first, "range_max": last, "sampling_strategy": "random"}
        for first, last in ((0, 50), (10, 50), (0, 100), (10, 100))
    },
    **{
        f"relative_margin={margin}, fallback_range_min={first}": STRICT
        | {"relative_margin": margin, "fallback_range_min": first}
        for margin, first in ((0.1, 20), (0.2, 10), (0.2, 20), (0.2, 30), (0.3, 20))
    },
    "defaults": {},
    **{f"query={query}": {"query": query} for query in ("gold", "fused")},
    **{
        f"query={query}, relative_margin=0": STRICT | {"query": query}
        for query in ("gold", "fused")
    },
}


class Figures(NamedTuple):
    """What a setting came to, means over questions or negatives; None where there were none.

    `false` is the share of the negatives that are relevant, `false_by_slot` of the first, second
    and third of a question; `whole` the share of questions with all their negatives; `gap` how far
    a negative scores below the gold, as a share of the gold's score; `trivial` the median rank of a
    negative in a search with the gold's own text: the higher, the less it has to do with the subject.
    """

    questions: int
    false: float | None
    false_by_slot: list[float | None]
    found: float | None
    whole: float | None
    rank: float | None
    gap: float | None
    trivial: float | None


class RankedOnce:
    """Rankings of some queries by another retriever, kept in memory for many minings."""

    def __init__(self, retriever: Retriever, queries: pl.Series) -> None:
        asked = queries.unique(maintain_order=True)
        hits = retriever.search(pl.DataFrame({"question_id": asked, "query": asked}), depth=DEPTH)
        self._hits = hits.rename({"question_id": "query"})
        self._retriever = retriever
        self._like: dict[str, pl.DataFrame] = {}

    def search(self, queries: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        hits = self._hits.filter(pl.col("rank") <= depth)
        found = queries.join(hits, on="query", maintain_order="left_right")
        return found.select(HITS.keys())

    def search_like(self, texts: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        new = texts.filter(~pl.col("query").is_in(list(self._like))).unique("query")
        if not new.is_empty():
            asked = new.select(question_id="query", query="query")
            hits = self._retriever.search_like(asked, depth=LIKE_DEPTH)
            for (text,), found in hits.group_by(["question_id"], maintain_order=True):
                self._like[str(text)] = found.drop("question_id")
        found = [
            self._like[query]
            .head(depth)
            .with_columns(question_id=pl.lit(question_id))
            .select(list(HITS))
            for question_id, query in texts.select("question_id", "query").iter_rows()
            if query in self._like
        ]
        return pl.concat([pl.DataFrame(schema=HITS), *found]).select(HITS.keys())

    def place(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """The pairs with rank and score of each document, null for those ranked nowhere."""
        return pairs.join(self._hits, on=["query", "doc_id"], how="left", maintain_order="left")

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        return self.place(pairs).select(SCORES.keys()).with_columns(pl.col("score").fill_null(0.0))

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        return self._retriever.texts(doc_ids)


def measure(collection: Judged, within: int | None = None) -> Iterator[tuple[str, Figures]]:
    """Figures of each setting; with `within` only for golds that BM25 ranks so high."""
    with tempfile.TemporaryDirectory() as folder:
        retriever = EmbeddedRetriever(folder)
        shards = {"all": ShardContent("1", len(collection.documents))}
        retriever.sync(shards, lambda _: collection.documents.lazy(), Bm25(), lambda _: None)
        ranked = RankedOnce(retriever, collection.queries["query"])
        questions = (
            collection.relevant.join(collection.queries, on="query_id", maintain_order="left")
            .join(collection.documents, on="doc_id", maintain_order="left")
            .with_columns(
                question_id=pl.concat_str("query_id", "doc_id", separator=" "), question="query"
            )
        )
        if within is not None:
            questions = questions.filter(ranked.place(questions)["rank"] <= within)
        by_text = ranks_by_text(retriever, questions)
        for name, options in SETTINGS.items():
            mined = bm25_hard_neg(questions, ranked, num_neg=NUM_NEG, **options).produced.rows
            yield name, figures(mined, questions, collection.relevant, by_text)


def ranks_by_text(retriever: Retriever, questions: pl.DataFrame) -> pl.DataFrame:
    """`gold, doc_id, by_text`: how a search with each gold's whole text ranks the corpus."""
    golds = questions.unique("doc_id", maintain_order=True)
    asked = golds.select(question_id="doc_id", query="text")
    hits = retriever.search(asked, depth=DEPTH)
    return hits.select(gold="question_id", doc_id="doc_id", by_text="rank")


def figures(
    mined: pl.DataFrame,
    questions: pl.DataFrame,
    relevant: pl.DataFrame,
    by_text: pl.DataFrame,
) -> Figures:
    """Figures of `schemas.HardNegatives`; `questions` tell each row's query_id, `relevant` the
    documents judged relevant for it, `by_text` how each gold's text ranks the corpus."""
    chosen = (
        mined.join(questions.select("question_id", "query_id"), on="question_id")
        .select(
            "query_id",
            "gold_score",
            gold="doc_id",
            slot=pl.int_ranges(pl.col("negatives").list.len()),
            negative="negatives",
        )
        .explode("slot", "negative", empty_as_null=False)
        .unnest("negative")
        .join(relevant.with_columns(false=True), on=["query_id", "doc_id"], how="left")
        .join(by_text, on=["gold", "doc_id"], how="left")
        .with_columns(pl.col("false").fill_null(False))
    )
    n = mined["negatives"].list.len()
    gap = 1 - pl.col("score") / pl.col("gold_score")
    return Figures(
        len(mined),
        chosen["false"].mean(),
        [chosen.filter(slot=slot)["false"].mean() for slot in range(NUM_NEG)],
        n.mean(),
        (n == NUM_NEG).mean(),
        chosen["rank"].mean(),
        chosen.filter(pl.col("gold_score") > 0).select(gap).to_series().mean(),
        chosen["by_text"].fill_null(DEPTH).median(),
    )


def table(title: str, rows: Iterable[tuple[str, Figures]]) -> Table:
    """The figures as a table, a row a setting."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("setting", no_wrap=True)
    slots = [f"slot {slot}" for slot in range(1, NUM_NEG + 1)]
    for column in (
        "questions",
        "false",
        *slots,
        "negatives",
        f"all {NUM_NEG}",
        "rank",
        "gap",
        "by text",
    ):
        shown.add_column(column, justify="right")

    def formatted(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for name, f in rows:
        shown.add_row(
            name,
            str(f.questions),
            *(formatted(share, ".1%") for share in (f.false, *f.false_by_slot)),
            formatted(f.found, ".2f"),
            formatted(f.whole, ".1%"),
            formatted(f.rank, ".1f"),
            formatted(f.gap, "+.2f"),
            formatted(f.trivial, ".0f"),
        )
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Print two tables for each folder: of all golds, and of those that BM25 ranks well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", type=Path)
    console = Console(width=None if sys.stdout.isatty() else 140)
    for folder in parser.parse_args(arguments).folder:
        collection = read_judged(folder)
        n = len(collection.documents)
        for within, golds in (
            (None, "every relevant document"),
            (WITHIN, f"those in the top {WITHIN}"),
        ):
            console.print(
                table(
                    f"{collection.name}, {n:,} documents, gold: {golds}",
                    measure(collection, within),
                )
            )


if __name__ == "__main__":
    main()
