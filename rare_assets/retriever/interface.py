"""What every retriever offers, whichever engine ranks: sync the index with the shards, and search it.

Engines give the same results: BM25 in Lucene's form, `idf * tf / (tf + k1 * (1 - b + b * dl / avgdl))`
without a factor `k1 + 1`, over title and text together, with the terms of Lucene's analyzer of the name.

Source: S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, and
C. Kamphuis et al., "Which BM25 Do You Mean?", 2020, for the variants.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import polars as pl

# Queries' input and search's output, by name and type; `rank` counts from 1.
QUERIES = {"question_id": pl.String, "query": pl.String}
PAIRS = {"question_id": pl.String, "query": pl.String, "doc_id": pl.String}
HITS = {
    "question_id": pl.String,
    "rank": pl.Int64,
    "doc_id": pl.String,
    "text_hash": pl.String,
    "score": pl.Float64,
}
SCORES = {"question_id": pl.String, "doc_id": pl.String, "score": pl.Float64}
# `reason` is the server's word for it, `detail` what it said.
REJECTS = dict.fromkeys(("shard", "doc_id", "reason", "detail"), pl.String)
TEXTS = {"doc_id": pl.String, "text": pl.String, "title": pl.String}
# Terms of a document that `search_like` looks for.
BEST_TERMS = 12


class Bm25(NamedTuple):
    """How an index ranks.

    Attributes:
        k1: how slowly a term that repeats stops to count more, at least 0.
        b: how much the length of a document counts, within 0 and 1.
        analyzer: makes the terms, one of `Analyzer`.

    The defaults of k1 and b are those of Anserini.

    >>> Bm25(analyzer="german").fingerprint
    'k1=0.9 b=0.4 german titled'
    """

    k1: float = 0.9
    b: float = 0.4
    analyzer: str = "english"

    @property
    def fingerprint(self) -> str:
        """The three as one short text, with a note that titles are searched, too."""
        return f"k1={self.k1} b={self.b} {self.analyzer} titled"


class ShardContent(NamedTuple):
    """What a shard of documents holds: a hash of its content, and how many documents."""

    content_hash: str
    n_documents: int


@dataclass(frozen=True)
class IndexState:
    """What an index holds, and how it ranks.

    Attributes:
        engine: `embedded` or `elasticsearch`.
        bm25: how it ranks.
        shards: content hash of each shard that it holds.
        n_documents: in all shards together.
    """

    engine: str
    bm25: Bm25
    shards: Mapping[str, str]
    n_documents: int

    @cached_property
    def fingerprint(self) -> str:
        """A short hash that changes whenever a result of a search could change."""
        content = json.dumps(
            [*self.bm25, "titled", sorted(self.shards.items())], separators=(",", ":")
        )
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class SyncReport(NamedTuple):
    """What a sync did.

    Attributes:
        state: what the index holds now.
        indexed_shards: shards that are new or changed.
        removed_shards: shards that it held before and holds no more.
        n_indexed, n_removed: documents, those of earlier versions of shards included.
        n_duplicates: texts that stand under several ids or in several shards.
        duplicates: the first 1,000 of them, with `text_hash`, `doc_ids` and `shards` (lists of strings).
        seconds: that the sync took.
        warnings: sentences for the user.
        n_rejects: documents that the engine does not take, also from earlier syncs. They count among the
            documents, and no search finds them.
        rejects: the first 100 of them, as REJECTS.
    """

    state: IndexState
    indexed_shards: list[str]
    removed_shards: list[str]
    n_indexed: int
    n_removed: int
    n_duplicates: int
    duplicates: pl.DataFrame
    seconds: float
    warnings: tuple[str, ...] = ()
    n_rejects: int = 0
    rejects: pl.DataFrame = pl.DataFrame(schema=REJECTS)


class IndexMissing(Exception):
    """There is no index of that name yet."""


class IndexDamaged(IndexMissing):
    """The files of the index are not what was written; the next sync makes it again."""


class IndexConflict(Exception):
    """The index can't be synced without losing a document or another index; the message names both places."""


class NoAnalyzer(ValueError):
    """The engine lacks the analyzer; the message says which engine has it."""


class Retriever(Protocol):
    """BM25 over the whole corpus."""

    def sync(
        self,
        shards: Mapping[str, ShardContent],
        read: Callable[[str], pl.LazyFrame],
        bm25: Bm25,
        progress: Callable[[str], None] = ...,
    ) -> SyncReport:
        """Make the index hold exactly `shards`, at a cost proportional to what changed.

        Args:
            shards: every shard that the index is to hold, by name.
            read: returns a shard's documents (`doc_id`, `text`, `title`, `text_hash`, ...), read lazily;
                called for shards that are new or changed.
            bm25: how the index is to rank.
            progress: called now and then with a line for the log.

        Raises:
            IndexConflict: one doc_id has two texts, or an index of that name was not made here.
            NoAnalyzer: the engine lacks `bm25.analyzer`.
        """

    def state(self) -> IndexState:
        """Return what the index holds now. Raises IndexMissing."""

    def search(self, queries: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus for each query.

        Args:
            queries: QUERIES.
            depth: most hits of a query, at least 1.

        Returns:
            HITS in the queries' order, best first; scores that are equal to 5 significant digits are sorted
            by doc_id. Documents that share no term with the query are not hits.
        """

    def search_like(self, texts: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus by what each text is about.

        The query is made of the text's BEST_TERMS best terms, each once: those with the highest tf * idf,
        with BM25's idf, and of equal ones the first by alphabet.

        Args:
            texts: QUERIES, with a text in place of each query.
            depth: most hits of a text, at least 1.

        Returns:
            HITS, as `search` returns them.
        """

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Score one document for each query.

        Args:
            pairs: PAIRS.

        Returns:
            SCORES, a row for each pair in the same order. A score is 0.0 if query and document share no
            term, or the engine did not take the document, and null if the index lacks the document.
        """

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        """Return the TEXTS of documents, in any order.

        Documents that the index lacks are absent; the text of one that the engine did not take is empty.
        """

    def close(self) -> None:
        """Close connections and files."""
