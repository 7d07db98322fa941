"""Compare the documents to be sent with each other and with what stays in the index."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any

import polars as pl

from rare_assets.retriever.elasticsearch.connection import (
    Connection,
    batched,
)
from rare_assets.retriever.elasticsearch.index import MAX_TERMS
from rare_assets.retriever.interface import (
    IndexConflict,
    ShardContent,
)

REPORTED = 1_000  # duplicate texts that a report lists
LISTED = 100  # ids and shards listed for one of them
TERMS = 2_000  # terms sent in one query
GROUPED_ROWS = 1_000_000  # rows whose ids are compared in memory at once
COLLECTED_ROWS = 100_000  # rows whose ids and hashes are kept in memory for it


class Comparison:
    """Find ids that stand for two texts, and texts that stand under several ids.

    Args:
        connection: to the server.
        index: name of the alias, by which `duplicates` asks.
    """

    def __init__(self, connection: Connection, index: str) -> None:
        self._connection = connection
        self.index = index

    def check(
        self,
        index: str | None,
        shards: Mapping[str, ShardContent],
        send: Sequence[str],
        changing: Collection[str],
        read: Callable[[str], pl.LazyFrame],
        stop: Event,
    ) -> tuple[list[str], int]:
        """Compare the shards to be sent with each other and with what stays in the index.

        Args:
            index: holds what stays; None if nothing does.
            shards: all that the index is to hold.
            send: those of the shards that are sent.
            changing: shards whose documents in the index don't stay.
            read: returns a shard's documents, `doc_id` and `text_hash` among their columns.
            stop: ends the waiting for the server.

        Returns:
            Hashes of the texts that will stand in the index more than once (the first 1,000, sorted), and
            how many such texts there are.

        Raises:
            IndexConflict: one doc_id would stand for two texts, or twice in a shard.
        """
        if not send:
            return [], 0
        rows = pl.concat([read(s).select("doc_id", "text_hash", shard=pl.lit(s)) for s in send])
        total = sum(shards[s].n_documents for s in send)
        if total <= COLLECTED_ROWS:  # to open many small files once is most of the work
            rows = rows.collect().lazy()
        parts = max(1, -(-total // GROUPED_ROWS))
        _require_one_text_an_id(rows, parts, read)
        elsewhere = pl.Series(dtype=pl.UInt64)
        if index:
            elsewhere = self._twins_in_index(index, rows, changing, read, stop)
        return _repeated_texts(rows, parts, elsewhere)

    def _twins_in_index(
        self,
        index: str,
        rows: pl.LazyFrame,
        changing: Collection[str],
        read: Callable[[str], pl.LazyFrame],
        stop: Event,
    ) -> pl.Series:
        """Return a number for each text of `rows` that stays in the index, too: 8 bytes a text."""
        found = [pl.Series(dtype=pl.UInt64)]
        for batch in rows.collect_batches(chunk_size=TERMS):
            for part_of_it in batch.iter_slices(TERMS):
                hashes = self._twins(index, part_of_it, changing, read, stop)
                found.append(pl.Series(sorted(hashes), dtype=pl.String).hash())
        return pl.concat(found).unique()

    def _twins(
        self,
        index: str,
        batch: pl.DataFrame,
        changing: Collection[str],
        read: Callable[[str], pl.LazyFrame],
        stop: Event,
    ) -> set[str]:
        """Return the hashes of those texts in `batch` that stay in the index, too. Raises IndexConflict."""
        mine = {doc_id: (text, shard) for doc_id, text, shard in batch.iter_rows()}
        texts = set(batch["text_hash"])
        body: dict[str, Any] = {
            "query": {
                "bool": {
                    "should": [
                        {"terms": {"doc_id": list(mine)}},
                        {"terms": {"text_hash": list(texts)}},
                    ],
                    "minimum_should_match": 1,
                    "must_not": [
                        {"terms": {"shard": part}} for part in batched(sorted(changing), MAX_TERMS)
                    ],
                }
            },
            "size": 5_000,
            "source": False,
            "docvalue_fields": ["doc_id", "text_hash", "shard"],
            "track_total_hits": False,
            "sort": ["doc_id", "shard", "content_hash"],
        }
        found = set()
        while hits := self._connection.search("compare documents", index, body, stop):
            for hit in hits:
                doc_id, text, shard = (
                    hit["fields"][field][0] for field in ("doc_id", "text_hash", "shard")
                )
                if doc_id in mine and mine[doc_id][0] != text:
                    raise _conflict(doc_id, shard, mine[doc_id][1], read)
                if text in texts:
                    found.add(text)
            body["search_after"] = hits[-1]["sort"]
        return found

    def duplicates(self, twins: Sequence[str]) -> pl.DataFrame:
        """Return a row for each of these texts: its hash, and the first 100 ids and shards that have it.

        Args:
            twins: hashes of texts.

        Returns:
            `text_hash`, `doc_ids` and `shards` (lists, sorted).
        """
        rows = []

        def terms(field: str, size: int) -> dict[str, Any]:
            return {"terms": {"field": field, "size": size, "order": {"_key": "asc"}}}

        for hashes in batched(twins, 100):
            texts = {
                **terms("text_hash", len(hashes)),
                "aggs": {field: terms(field, LISTED) for field in ("doc_id", "shard")},
            }
            answer = self._connection.ask(
                "list duplicates",
                partial(
                    self._connection.client.search,
                    index=self.index,
                    size=0,
                    allow_partial_search_results=False,
                    query={"bool": {"filter": {"terms": {"text_hash": hashes}}}},
                    aggs={"texts": texts},
                ),
            )
            for bucket in answer["aggregations"]["texts"]["buckets"]:
                ids, places = (
                    [inner["key"] for inner in bucket[field]["buckets"]]
                    for field in ("doc_id", "shard")
                )
                rows.append((bucket["key"], ids, places))
        schema: dict[str, pl.DataType | type[pl.DataType]] = {
            "text_hash": pl.String,
            "doc_ids": pl.List(pl.String),
            "shards": pl.List(pl.String),
        }
        return pl.DataFrame(rows, schema=schema, orient="row")


def _require_one_text_an_id(
    rows: pl.LazyFrame, parts: int, read: Callable[[str], pl.LazyFrame]
) -> None:
    """Raise IndexConflict if an id has two texts or stands twice in a shard; a part of the ids at a time."""
    for part in range(parts):
        bad = (
            rows.filter(pl.col("doc_id").hash() % parts == part)
            .group_by("doc_id")
            .agg("text_hash", "shard")
            .filter(
                (pl.col("text_hash").list.n_unique() > 1)
                | (pl.col("shard").list.n_unique() < pl.col("shard").list.len())
            )
            .sort("doc_id")
            .head(1)
            .collect()
        )
        for doc_id, hashes, places in bad.iter_rows():
            other = next((i for i, text in enumerate(hashes) if text != hashes[0]), 1)
            raise _conflict(doc_id, places[0], places[other], read)


def _repeated_texts(rows: pl.LazyFrame, parts: int, elsewhere: pl.Series) -> tuple[list[str], int]:
    """Return texts that stand twice in `rows`, or once and `elsewhere`: the first hashes and their number."""
    twins: list[str] = []
    n_twins = 0
    for part in range(parts):
        several = (
            rows.filter(pl.col("text_hash").hash() % parts == part)
            .group_by("text_hash")
            .len()
            .filter((pl.col("len") > 1) | pl.col("text_hash").hash().is_in(elsewhere.implode()))
            .select("text_hash")
            .collect()
            .to_series()
        )
        n_twins += several.len()
        twins = sorted([*twins, *several.sort().head(REPORTED)])[:REPORTED]
    return twins, n_twins


def _conflict(
    doc_id: str, one: str, other: str, read: Callable[[str], pl.LazyFrame]
) -> IndexConflict:
    """Return the error for an id that stands for two texts, with both places as the shards name them."""

    def sources(shard: str) -> list[str]:
        frame = read(shard).filter(pl.col("doc_id") == doc_id)
        if "source" not in frame.collect_schema():
            return []
        found: list[str] = frame.select("source").collect().to_series().to_list()
        return found

    places = " and ".join(
        f"shard {shard!r}" + "".join(f" ({source})" for source in sources(shard))
        for shard in dict.fromkeys((one, other))
    )
    what = "stands twice in" if one == other else "has two different texts, in"
    return IndexConflict(
        f"doc_id {doc_id!r} {what} {places}: give each text an id of its own, or remove one. "
        "Nothing was indexed"
    )
