"""What every retriever offers, whichever engine ranks: sync the index with the shards, search it.

Engines give the same results: BM25 in Lucene's form (`idf * tf / (tf + k1 * (1 - b + b * dl / avgdl))`,
no `k1 + 1` factor) over title and text together, terms as Lucene's analyzer of the name makes them.
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
    """How an index ranks."""

    k1: float = 0.9
    b: float = 0.4
    analyzer: str = "english"

    @property
    def fingerprint(self) -> str:
        """The three as one short text, and that titles are searched, too."""
        return f"k1={self.k1} b={self.b} {self.analyzer} titled"


class ShardContent(NamedTuple):
    """What a shard of the documents table holds, as its file tells without reading the rows."""

    content_hash: str
    n_documents: int


@dataclass(frozen=True)
class IndexState:
    """What an index holds: shard -> content hash, and how it ranks."""

    engine: str
    bm25: Bm25
    shards: Mapping[str, str]
    n_documents: int

    @cached_property
    def fingerprint(self) -> str:
        """One short hash that changes whenever a result could change."""
        content = json.dumps(
            [*self.bm25, "titled", sorted(self.shards.items())], separators=(",", ":")
        )
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class SyncReport(NamedTuple):
    """What a sync did. `rejects` has a row a document that the engine does not take: REJECTS; the
    first 100 of `n_rejects`, with those of earlier syncs that are still so. They count among the
    documents, and no search finds them. `duplicates` has a row a text that stands under several ids or in several
    shards: `text_hash`, `doc_ids: list[str]`, `shards: list[str]`; the first 1,000 of `n_duplicates`.
    `warnings` are for the user.
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
    """There is no index of that name yet; materialize `corpus_index`."""


class IndexDamaged(IndexMissing):
    """The index is there and its files are not what was written; the next sync makes it anew."""


class IndexConflict(Exception):
    """The index can't be synced without losing something; the message names both places."""


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
            shards: every shard that the index is to hold.
            read: a shard's documents (`doc_id`, `text`, `title`, `text_hash`, ...), read lazily.
            bm25: how the index is to rank.
            progress: called now and then with a line for the log.

        Raises:
            IndexConflict: one doc_id has two texts in different shards, or the index is not ours.
            NoAnalyzer: the engine lacks `bm25.analyzer`.
        """

    def state(self) -> IndexState:
        """What the index holds now. Raises IndexMissing."""

    def search(self, queries: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus for each query: QUERIES in, HITS out, at most `depth` rows a query.

        In the queries' order, best first; equal scores (to 5 significant digits) are ordered by
        doc_id. Documents that share no term with the query are not hits.
        """

    def search_like(self, texts: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus by what each text is about: QUERIES in, with a text as the query, HITS out.

        What is looked for are the text's BEST_TERMS best terms, each once: those of which tf * idf is
        highest, with BM25's idf; of equal ones the first in the order of their letters.
        """

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Score one document for each query: PAIRS in, SCORES out, one row a pair in the same order.

        0.0 if query and document share no term (as a document that the engine does not take shares
        none), null if the index lacks the document.
        """

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        """TEXTS of the given documents, in any order; documents the index lacks are absent, the text
        of one that the engine does not take is empty."""

    def close(self) -> None:
        """Let go of connections and files."""
