"""Searches of an index: rankings, scores and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple

import polars as pl

from rare_assets.retriever.elasticsearch.best_terms import BestTerms
from rare_assets.retriever.elasticsearch.connection import (
    Connection,
    batched,
)
from rare_assets.retriever.elasticsearch.index import Alias, ConcreteIndex
from rare_assets.retriever.interface import (
    HITS,
    SCORES,
    TEXTS,
)

MAX_HITS = 10_000  # what a server returns for one query by default (index.max_result_window)
MAX_TIES = 1_000  # hits looked through for ties at the depth asked for
TEXTS_AT_ONCE = 250  # documents whose texts are read in one request
COPIES = 50  # of them in other shards, for which there is room in that request


# Texts as the queries that are sent; the event ends what waits for the server meanwhile.
AsQueries = Callable[[Sequence[str], Event], list[dict[str, Any]]]


class Searches:
    """Asks what an alias shows: the reading half of `ElasticsearchRetriever`.

    Args:
        batch_size: queries sent in one request.
    """

    def __init__(self, connection: Connection, alias: Alias, index: str, batch_size: int) -> None:
        self._connection = connection
        self._alias = alias
        self.index = index
        self.batch_size = batch_size
        self._best_terms: BestTerms | None = None

    def search(self, queries: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """See `ElasticsearchRetriever.search`."""
        return self._ranked(queries, depth, lambda _: _matches)

    def search_like(self, texts: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """See `ElasticsearchRetriever.search_like`."""
        return self._ranked(texts, depth, self._by_best_terms)

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """See `ElasticsearchRetriever.score`."""
        index = self._alias.visible()

        def score(batch: pl.DataFrame, stop: Event) -> pl.DataFrame:
            names = batch["question_id"].to_list()
            bodies = [
                {
                    "query": {
                        "bool": {
                            "filter": {"term": {"doc_id": doc_id}},
                            "should": _match(query),
                        }
                    },
                    "size": 1,
                    **_bare(),
                }
                for query, doc_id in batch.select("query", "doc_id").iter_rows()
            ]
            found = self._connection.msearch(
                names, bodies, stop, global_statistics=index.global_statistics
            )
            scores = [_score(hits[0], index) if hits else None for hits in found]
            return batch.select("question_id", "doc_id", score=pl.Series(scores, dtype=pl.Float64))

        batches = pairs.iter_slices(self.batch_size)
        return pl.concat([pl.DataFrame(schema=SCORES), *self._connection.parallel(score, batches)])

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        """See `ElasticsearchRetriever.texts`."""
        self._alias.visible()

        def texts(batch: tuple[str, ...], stop: Event) -> dict[str, tuple[str, str | None]]:
            body: dict[str, Any] = {
                "query": {"bool": {"filter": {"terms": {"doc_id": batch}}}},
                "size": len(batch) + COPIES,
                "track_total_hits": False,
            }
            # The whole source, in the order in which it lies there, is what costs a server least.
            in_order = {**body, "sort": ["_doc"]}
            hits = self._connection.search("read texts", self.index, in_order, stop)
            if len(hits) == body["size"]:  # more copies than there is room for
                body["collapse"] = {"field": "doc_id"}
                hits = self._connection.search("read texts", self.index, body, stop)
            sources = [hit["_source"] for hit in hits]
            return {
                source["doc_id"]: (
                    source.get("text", ""),
                    source.get("heading", source.get("title")),
                )
                for source in sources
            }

        batches = batched(dict.fromkeys(doc_ids), TEXTS_AT_ONCE)
        found: dict[str, tuple[str, str | None]] = {}
        for some in self._connection.parallel(texts, batches):
            found.update(some)
        rows = [(doc_id, *document) for doc_id, document in found.items()]
        return pl.DataFrame(rows, schema=TEXTS, orient="row")

    def _by_best_terms(self, index: ConcreteIndex) -> AsQueries:
        """Return what turns texts into queries for their best terms."""
        known = self._best_terms
        if known is None or known.index != index:
            known = self._best_terms = BestTerms(self._connection, index)
        return lambda texts, stop: [_any_of(terms) for terms in known.of(texts, stop)]

    def _ranked(
        self,
        queries: pl.DataFrame,
        depth: int,
        asking: Callable[[ConcreteIndex], AsQueries],
    ) -> pl.DataFrame:
        """HITS of QUERIES; what `asking` returns for the index turns them into what is sent, many at a time."""
        if not 1 <= depth <= MAX_HITS:
            raise ValueError(f"depth is {depth}: Elasticsearch returns 1 to {MAX_HITS} hits")
        index = self._alias.visible()
        as_queries = asking(index)
        names, texts = queries["question_id"].to_list(), queries["query"].to_list()

        def rank(batch: tuple[int, ...], stop: Event) -> Hits:
            made = as_queries([texts[number] for number in batch], stop)
            sent = dict(zip(batch, made, strict=True))
            return self._rank(index, names, sent, depth, stop)

        found = Hits([], [], [], [])
        batches = batched(range(len(queries)), self.batch_size)
        for some in self._connection.parallel(rank, batches):
            found.extend(some)
        schema = {field: HITS.get(field, pl.UInt32) for field in Hits._fields}
        hits = (
            pl.DataFrame(found._asdict(), schema=schema)
            .with_columns(pl.col("score") / (index.bm25.k1 + 1))
            .unique(["query", "doc_id"], keep="first", maintain_order=True)
            .sort(
                ["query", pl.col("score").round_sig_figs(5), "doc_id"],
                descending=[False, True, False],
            )
            .with_columns(rank=pl.int_range(1, pl.len() + 1).over("query"))
            .filter(pl.col("rank") <= depth)
        )
        return hits.with_columns(question_id=queries["question_id"].gather(hits["query"])).select(
            *HITS
        )

    def _rank(
        self,
        index: ConcreteIndex,
        names: Sequence[str],
        queries: Mapping[int, dict[str, Any]],
        depth: int,
        stop: Event,
    ) -> Hits:
        """Return the best hits of some of the queries, by number; enough of each to choose `depth` from.

        A query is asked again for more hits while copies of a document take up places, or hits
        beyond those returned could tie with the last place.
        """
        found = Hits([], [], [], [])
        todo = list(queries)
        size = min(depth + max(2, depth // 10), MAX_HITS)
        while todo:
            again = []
            for part in batched(todo, max(1, min(self.batch_size, 20 * MAX_HITS // size))):
                bodies = [
                    {
                        "query": queries[number],
                        "size": size,
                        "docvalue_fields": ["doc_id", "text_hash"],
                        **_bare(),
                    }
                    for number in part
                ]
                answers = self._connection.msearch(
                    [names[number] for number in part],
                    bodies,
                    stop,
                    global_statistics=index.global_statistics,
                )
                for number, hits in zip(part, answers, strict=True):
                    fields = [hit["fields"] for hit in hits]
                    of_query = Hits(
                        [number] * len(hits),
                        [field["doc_id"][0] for field in fields],
                        [field["text_hash"][0] for field in fields],
                        [hit["_score"] for hit in hits],
                    )
                    if len(hits) == size < MAX_HITS and of_query.may_lack(depth, size):
                        again.append(number)
                    else:
                        found.extend(of_query)
            todo = again
            size = min(4 * size, MAX_HITS)
        return found


class Hits(NamedTuple):
    """Hits of several queries by column; each query's stand together, best first, and may hold
    copies of a document. Not a row a hit: so many small objects would slow down their collector."""

    query: list[int]
    doc_id: list[str]
    text_hash: list[str]
    score: list[float]

    def extend(self, others: Hits) -> None:
        self.query.extend(others.query)
        self.doc_id.extend(others.doc_id)
        self.text_hash.extend(others.text_hash)
        self.score.extend(others.score)

    def may_lack(self, depth: int, size: int) -> bool:
        """Return whether more hits of this one query could change the best `depth` documents."""
        distinct = list(
            dict(zip(reversed(self.doc_id), reversed(self.score), strict=True)).values()
        )
        if len(distinct) < depth:
            return True
        # Equal to 5 digits are at most this far apart.
        tie = distinct[-depth] * (1 - 1e-4) <= self.score[-1]
        return tie and size < depth + MAX_TIES


def _any_of(terms: Sequence[str]) -> dict[str, Any]:
    if not terms:
        return {"match_none": {}}
    # Half the work of a clause a term to write and read; no analyzer leaves white space in a term.
    return {"match": {"text": {"query": " ".join(terms), "analyzer": "whitespace"}}}


def _matches(texts: Sequence[str], _: Event) -> list[dict[str, Any]]:
    return [_match(text) for text in texts]


def _match(query: str) -> dict[str, Any]:
    return {"match": {"text": {"query": query}}}


def _bare() -> dict[str, Any]:
    """Return what keeps an answer small, and the server from unpacking what it stores of each hit."""
    return {"stored_fields": "_none_", "track_total_hits": False}


def _score(hit: Mapping[str, Any], index: ConcreteIndex) -> float:
    """Return a hit's score in the interface's form; Elasticsearch multiplies by k1 + 1."""
    return float(hit["_score"]) / (index.bm25.k1 + 1)
