"""Count, send, verify and remove the documents in an Elasticsearch index, by the version of their shard.

If the server refuses a document, all but its text is stored, so that its shard is whole and no search finds it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import Any

import polars as pl

from rare_assets.retriever.elasticsearch.bulk import Action, Bulk, Refusal
from rare_assets.retriever.elasticsearch.connection import Connection, batched
from rare_assets.retriever.elasticsearch.index import Alias, ConcreteIndex
from rare_assets.retriever.elasticsearch.searches import MAX_HITS
from rare_assets.retriever.elasticsearch.versions import (
    Held,
    of_versions,
    shard_and_hash,
    version_name,
)
from rare_assets.retriever.interface import IndexConflict, ShardContent
from rare_assets.text.titled import titled

LEFT_OUT = 100  # documents without a text that a report lists
LONGEST_ID = 8_000  # bytes of an id that a keyword field holds for sure
# What documents that were refused leave in the index: each other one has its text.
TEXTLESS = {"bool": {"must_not": {"exists": {"field": "text"}}}}


class Documents:
    """The documents of one retriever's indexes.

    Args:
        connection: to the server.
        alias: of the indexes.
        bulk_size: documents sent in one request.
    """

    def __init__(self, connection: Connection, alias: Alias, bulk_size: int) -> None:
        self._connection = connection
        self._alias = alias
        self._bulk_size = bulk_size

    def inventory(self, name: str) -> dict[tuple[str, str], int]:
        """Return the number of documents in an index, or behind the alias, by shard and content hash."""
        counts = {}
        versions: dict[str, Any] = {
            "size": 5_000,
            "sources": [{"version": {"terms": {"field": "version"}}}],
        }
        while True:
            answer = self._connection.ask(
                f"count what {name} holds",
                lambda: self._connection.client.search(
                    index=name,
                    size=0,
                    track_total_hits=False,
                    allow_partial_search_results=False,
                    aggs={"versions": {"composite": versions}},
                ),
            )
            page = answer["aggregations"]["versions"]
            for bucket in page["buckets"]:
                counts[shard_and_hash(bucket["key"]["version"])] = bucket["doc_count"]
            if len(page["buckets"]) < versions["size"]:
                return counts
            versions["after"] = page["after_key"]

    def left_out(self, name: str | None, stop: Event) -> list[tuple[str, dict[str, Any]]]:
        """Return the first 100 documents that stand in an index without their text.

        Args:
            name: of the index; None if there is none.
            stop: ends the waiting when another thread sets it.

        Returns:
            For each document, the version of its shard and its row of REJECTS.
        """
        body = {
            "query": TEXTLESS,
            "size": LEFT_OUT,
            "source": False,
            "docvalue_fields": ["doc_id", "shard", "version"],
            "track_total_hits": False,
            "sort": ["_doc"],
        }
        if name is None:
            return []
        hits = self._connection.search("list what is left out", name, body, stop)
        fields = [hit["fields"] for hit in hits]
        return [
            (
                field["version"][0],
                {
                    "shard": field["shard"][0],
                    "doc_id": field["doc_id"][0],
                    "reason": "refused_before",
                    "detail": None,
                },
            )
            for field in fields
        ]

    def grown(self, name: str, held: Held, wanted: Collection[str]) -> bool:
        """Return whether an index holds more unwanted documents than it did.

        Args:
            name: of the index.
            held: what it held, by version of a shard.
            wanted: versions that it is to hold.
        """
        return any(
            n > held.get(version, 0)
            for version, n in self.inventory(name).items()
            if version_name(*version) not in wanted
        )

    def verify(
        self,
        name: str,
        shards: Mapping[str, ShardContent],
        send: Collection[str],
        stale: Collection[str],
    ) -> None:
        """Raise ElasticsearchError unless an index holds all documents of the shards, and else only stale ones.

        Two counts tell, of what was sent and of all that is not stale, so the cost does not grow with the
        corpus.

        Args:
            name: of the index.
            shards: what it is to hold.
            send: those of the shards that were sent.
            stale: versions that may still be there.
        """

        def require(what: str, query: dict[str, Any], wanted: Iterable[ShardContent]) -> None:
            have, n = self._connection.count(name, query), sum(each.n_documents for each in wanted)
            if have != n:
                raise self._connection.concurrent_sync_error(
                    f"holds {have} {what} after the load, not {n}"
                )

        sent = {version_name(s, shards[s].content_hash) for s in send}
        require("of the documents sent", of_versions(sent), (shards[s] for s in send))
        without_stale = {"bool": {"must_not": of_versions(stale)}}
        require("documents", without_stale, shards.values())

    def load(
        self,
        target: ConcreteIndex,
        shards: Mapping[str, ShardContent],
        send: Sequence[str],
        read: Callable[[str], pl.LazyFrame],
        progress: Callable[[str], None],
    ) -> tuple[int, list[Refusal]]:
        """Send the documents of shards; returns their number, and those that the server refused.

        Args:
            target: the index, claimed by this sync.
            shards: what it is to hold.
            send: those of the shards that are sent.
            read: returns a shard's documents.
            progress: called every 5 seconds with a line for the log.

        Raises:
            IndexConflict: a shard has other rows than `shards` says.
            ElasticsearchError: the server takes none of them, or is gone.
        """
        bulk = Bulk(self._connection, _without_text)

        def documents() -> Iterator[dict[str, Any]]:
            for shard in send:
                content_hash, n_documents = shards[shard]
                version = version_name(shard, content_hash)
                rows = 0
                frame = read(shard)
                if "title" not in frame.collect_schema():
                    frame = frame.with_columns(title=pl.lit(None, pl.String))
                frame = frame.select("doc_id", "text", "text_hash", "title")
                for chunk in frame.collect_batches(chunk_size=self._bulk_size):
                    rows += chunk.height
                    for row in chunk.iter_rows(named=True):
                        row |= {"shard": shard, "content_hash": content_hash, "version": version}
                        yield _with_heading(row)
                if rows != n_documents:
                    raise IndexConflict(
                        f"shard {shard!r} has {rows} documents, not the {n_documents} it was said "
                        "to have: was it written again meanwhile? Materialize corpus_index again"
                    )

        def index(batch: Sequence[dict[str, Any]], stop: Event) -> tuple[int, list[Refusal]]:
            actions = [_indexing(target.write_alias, row) for row in batch]
            return len(actions), bulk.write(actions, stop)

        refused: list[Refusal] = []
        done, told = 0, time.monotonic()
        total = sum(shards[shard].n_documents for shard in send)
        for n, wrong in self._connection.parallel(index, batched(documents(), self._bulk_size)):
            done += n
            refused += wrong
            if time.monotonic() - told >= 5 or done == total:
                told = time.monotonic()
                progress(f"indexed {done:,} of {total:,} documents")
        return done, refused

    def remove(self, target: ConcreteIndex, versions: Collection[str]) -> None:
        """Remove the documents of these versions of shards."""
        if not versions:
            return
        body = {
            "query": of_versions(versions),
            "size": MAX_HITS,
            "source": False,
            "docvalue_fields": ["shard"],
            "track_total_hits": False,
            "sort": ["_doc"],
        }
        while hits := self._connection.search("find removed documents", target.name, body):
            actions = [
                {
                    "_op_type": "delete",
                    "_index": target.write_alias,
                    "_id": hit["_id"],
                    "shard": hit["fields"]["shard"][0],
                }
                for hit in hits
            ]
            write = Bulk(self._connection).write
            for _ in self._connection.parallel(write, batched(actions, self._bulk_size)):
                pass
            self._alias.refresh(target.name)
            if len(hits) < MAX_HITS:
                break


def _indexing(index: str, row: dict[str, Any]) -> Action:
    key = f"{row['version']}\0{row['doc_id']}".encode(errors="surrogatepass")
    return {
        "_op_type": "index",
        "_index": index,
        # The same wherever and whenever it is sent, so nothing is there twice.
        "_id": hashlib.blake2b(key, digest_size=16).hexdigest(),
        "_source": row,
    }


def _without_text(action: Action) -> Action:
    """Return the stand-in for a refused document: all but its text, with a shortened id if it is too long."""
    left_out = ("text", "heading", "title")
    source = {field: value for field, value in action["_source"].items() if field not in left_out}
    doc_id = source["doc_id"]
    if len(doc_id.encode(errors="surrogatepass")) > LONGEST_ID:
        source["doc_id"] = f"{doc_id[:100]}… ({action['_id']})"
    return {**action, "_source": source}


def _with_heading(row: dict[str, Any]) -> dict[str, Any]:
    """Return a document as it is sent.

    Its title becomes the `heading`, which is searched; it stays the `title` if the text begins with it.
    """
    title = row.pop("title")
    if title is None:
        return row
    return row | {("title" if titled(title, row["text"]) == row["text"] else "heading"): title}
