"""BM25 by an Elasticsearch server: an index behind an alias, kept in step with the shards.

The alias is the only name that readers know. It points to one concrete index `<alias>-<suffix>`,
marked in its mapping's `_meta` as made here; whatever else bears the alias' name is left alone.
Each document carries the version of the shard it came from (shard and content hash), so what an
index holds is read from the index itself and no record of it can be wrong.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any

import polars as pl
from pydantic import SecretStr

from rare_assets.retriever.elasticsearch.bulk import Action, Bulk, Refusal
from rare_assets.retriever.elasticsearch.comparison import Comparison
from rare_assets.retriever.elasticsearch.connection import (
    Connection,
    ElasticsearchError,
    batched,
)
from rare_assets.retriever.elasticsearch.index import MAX_TERMS, Alias, ConcreteIndex
from rare_assets.retriever.elasticsearch.searches import MAX_HITS, Searches
from rare_assets.retriever.interface import (
    REJECTS,
    Bm25,
    IndexConflict,
    IndexState,
    ShardContent,
    SyncReport,
)
from rare_assets.text.titled import titled

LEFT_OUT = 100  # documents without a text that a report lists
LONGEST_ID = 8_000  # bytes of an id that a keyword field holds for sure

_log = logging.getLogger(__name__)


class ElasticsearchRetriever:
    """A `Retriever` on one or more Elasticsearch nodes, version 9 or serverless.

    Scores are Lucene's BM25 as the interface defines it: Elasticsearch's own are `k1 + 1` times
    as high. With several primary shards, terms are counted over all of them before ranking, so
    results do not depend on their number.

    A concurrent reader sees the documents as they were before a sync until it switches to those
    after it, in one step: new versions of shards are loaded while the alias filters them out, old
    ones are removed after it does so with them. `sync` returns after the switch; what readers don't
    see any more is removed behind it, by the time of `settle` or `close`, else by the next sync.
    Only term statistics (so scores, a little) count hidden documents meanwhile, as they count
    removed ones until Lucene merges them away: a server keeps them for half a minute at least, and
    each sync has those of earlier syncs merged away where they are more than a tenth of a segment.
    Two syncs at once that want the same shards do no harm; of two that want different ones the
    later takes over the index, and the earlier fails at its next change, which does nothing.

    A document that the server refuses while it takes others (too large for it, say) is left out:
    what stands in its place has all but the text, so that the shard is whole and no search finds it.

    Needs the privilege `manage` on `<index>*`.

    Args:
        url: node, or several separated by commas (a node that is down is left out).
        index: name of the alias.
        api_key: for the server; or
        username: with
        password: for the server.
        ca_certs: CA file to check the server's certificate with, instead of the system's.
        request_timeout: seconds after which a request counts as lost.
        wait_seconds: how long a request is repeated while the server is gone or overloaded.
        first_wait_seconds: how long to wait for a server that this process has never had a
            connection to, if that is not to be `wait_seconds`.
        number_of_shards: primary shards of a new index; another number than the index has means
            a full load into a new one.
        bulk_size: documents sent in one request.
        batch_size: queries sent in one request.
        threads: requests in flight.

    Raises:
        ElasticsearchSettingError: the options contradict each other.
        ElasticsearchError: from every method, if the server refuses something or is gone.
    """

    def __init__(
        self,
        url: str,
        index: str = "rare-documents",
        *,
        api_key: str | SecretStr | None = None,
        username: str | None = None,
        password: str | SecretStr | None = None,
        ca_certs: str | None = None,
        request_timeout: float = 60.0,
        wait_seconds: float = 120.0,
        first_wait_seconds: float | None = None,
        number_of_shards: int = 1,
        bulk_size: int = 500,
        batch_size: int = 100,
        threads: int = 4,
    ) -> None:
        self._connection = Connection(
            url,
            index,
            api_key=api_key,
            username=username,
            password=password,
            ca_certs=ca_certs,
            request_timeout=request_timeout,
            wait_seconds=wait_seconds,
            first_wait_seconds=first_wait_seconds,
            threads=threads,
        )
        self._alias = Alias(self._connection, number_of_shards)
        self.index = index
        self.bulk_size = bulk_size
        self.batch_size = batch_size
        self._searches = Searches(self._connection, self._alias, index, batch_size)
        self._comparison = Comparison(self._connection, index)
        self._behind = ThreadPoolExecutor(1, thread_name_prefix="elasticsearch-clearing")
        self._clearing: Future[None] | None = None

    def __repr__(self) -> str:
        return f"ElasticsearchRetriever({self._connection.url!r}, index={self.index!r})"

    def sync(
        self,
        shards: Mapping[str, ShardContent],
        read: Callable[[str], pl.LazyFrame],
        bm25: Bm25,
        progress: Callable[[str], None] = _log.info,
    ) -> SyncReport:
        """Make the index hold exactly `shards`: see the interface.

        Safe to kill at any moment: the next sync finds out what is missing or left over, and opens
        the index if it was closed, as it is for the moment that k1 or b change. A shard
        without documents is not part of the index's state. The report's duplicates are texts of
        the shards indexed by this sync, wherever their twins stand; up to 100 ids and shards each.

        Raises:
            IndexConflict: one doc_id has two texts in different shards, or stands twice in one; a
                shard has other rows than `shards` says; or something else has the alias' name.
                Readers see what they saw before.
            ElasticsearchError: see the class; also if another sync changed the index meanwhile.
        """
        started = time.monotonic()
        self._settle_or_warn()
        wanted = {_version(s, content.content_hash) for s, content in shards.items()}
        target = self._alias.target(bm25)
        if not target.visible:
            progress(f"making {target.name}: no index of this version ranks so yet")
        self._alias.refresh(target.name)
        held = self._inventory(target.name)
        send = [s for s, (content, n) in shards.items() if held.get((s, content), 0) != n]
        stale = {_version(*version) for version in held} - wanted
        overfull = {
            _version(s, content)
            for s, (content, n) in shards.items()
            if held.get((s, content), 0) > n
        }
        removed = sorted({shard for shard, _ in held} - shards.keys())
        kept = len(shards) > len(send)
        changing = {*send, *removed}
        fresh = {_version(s, shards[s].content_hash) for s in send} - {
            _version(*version) for version in held
        }
        # What only reads goes along beside what waits for the server's disk.
        with self._connection.beside() as submit:
            index = target.name if kept else None
            compared = submit(partial(self._comparison.check, index, shards, send, changing, read))
            listed = submit(partial(self._left_out, target.name if held else None))
            if send or stale or target.hidden or not target.visible:
                target = self._alias.claim(target, _purpose(wanted), fresh)
                self._alias.refresh(target.name)
                if self._grown(target.name, held, wanted):
                    # Another sync wrote until then: what it left is to be looked at, too.
                    return self.sync(shards, read, bm25, progress)
            twins, n_twins = compared.result()
            left_out = listed.result()
        self._remove(target, overfull)
        n_sent, refused = self._load(target, shards, send, read, progress)
        if send:
            self._alias.refresh(target.name)
            self._verify(target.name, shards, send, stale)
        if target.restore is not None:
            self._alias.restore(target)
        if not target.visible or stale or target.hidden or fresh:
            self._alias.show(target, stale)
        self._clearing = self._behind.submit(self._clear, target, stale, bool(send or stale))
        duplicates = self._comparison.duplicates(twins)
        stays = wanted - {_version(s, shards[s].content_hash) for s in send}
        kept_out = [row for version, row in left_out if version in stays]
        n_rejects = len(refused) + len(kept_out)
        if len(left_out) == LEFT_OUT:
            n_rejects = self._connection.count(self.index, _TEXTLESS)
        rejects = _rejects(refused, kept_out)
        state = IndexState(
            engine="elasticsearch",
            bm25=bm25,
            shards={s: content for s, (content, n) in shards.items() if n},
            n_documents=sum(n for _, n in shards.values()),
        )
        return SyncReport(
            state=state,
            indexed_shards=send,
            removed_shards=removed,
            n_indexed=n_sent - len(refused),
            n_removed=sum(n for version, n in held.items() if _version(*version) in stale),
            n_duplicates=n_twins,
            duplicates=duplicates,
            seconds=time.monotonic() - started,
            warnings=_warnings(rejects, n_rejects),
            n_rejects=n_rejects,
            rejects=rejects,
        )

    def state(self) -> IndexState:
        """What a search would see now. Raises IndexMissing."""
        index = self._alias.visible()
        hashes: dict[str, list[str]] = defaultdict(list)
        n_documents = 0
        for (shard, content_hash), n in self._inventory(self.index).items():
            hashes[shard].append(content_hash)
            n_documents += n
        return IndexState(
            engine="elasticsearch",
            bm25=index.bm25,
            # Two versions at once are no version that a shard ever had.
            shards={shard: "+".join(sorted(found)) for shard, found in hashes.items()},
            n_documents=n_documents,
        )

    def search(self, queries: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus for each query: QUERIES in, HITS out; see the interface.

        Hits are distinct by doc_id. Ties at `depth` are looked through for up to 1,000 hits, so
        a wider tie may be cut anywhere.

        Raises:
            IndexMissing: there is no index yet.
            ValueError: `depth` is not within 1 and 10,000.
            ElasticsearchError: see the class; a refused query is named by its question_id.
        """
        return self._searches.search(queries, depth=depth)

    def search_like(self, texts: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus by what each text is about: QUERIES in, HITS out; see the interface.

        The server makes the terms and counts them; with several primary shards it counts in one of
        them.

        Raises:
            IndexMissing: there is no index yet.
            ValueError: `depth` is not within 1 and 10,000.
            ElasticsearchError: see the class.
        """
        return self._searches.search_like(texts, depth=depth)

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Score one document for each query: PAIRS in, SCORES out; see the interface.

        Raises:
            IndexMissing: there is no index yet.
            ElasticsearchError: see the class; a refused query is named by its question_id.
        """
        return self._searches.score(pairs)

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        """TEXTS of the given documents, one row an id; those that the index lacks are absent.

        Raises:
            IndexMissing: there is no index yet.
        """
        return self._searches.texts(doc_ids)

    def settle(self) -> None:
        """Wait until what the last sync removed is gone from the server, too.

        Raises:
            ElasticsearchError: it could not be removed, and stays hidden until the next sync.
        """
        clearing, self._clearing = self._clearing, None
        if clearing is not None:
            clearing.result()

    def close(self) -> None:
        """Settle, and close the connections."""
        try:
            self._settle_or_warn()
        finally:
            self._connection.close()
            self._behind.shutdown(wait=False, cancel_futures=True)

    def _settle_or_warn(self) -> None:
        try:
            self.settle()
        except ElasticsearchError as error:
            _log.warning(
                "Removed documents stay hidden in the index until the next sync: %s", error
            )

    def _clear(self, target: ConcreteIndex, stale: Collection[str], changed: bool) -> None:
        """Remove what readers don't see any more: versions of shards, indexes, merged documents."""
        if stale:
            self._remove(target, stale)
            if left := self._connection.count(target.name, _of_versions(stale)):
                raise self._connection.overtaken(f"still holds {left} documents that were removed")
            self._alias.unhide(target)
        if target.visible and changed:
            self._alias.expunge(target)
        self._alias.delete_others(target)

    def _inventory(self, name: str) -> dict[tuple[str, str], int]:
        """Documents in an index (or behind the alias) by shard and content hash."""
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
                counts[_shard_and_hash(bucket["key"]["version"])] = bucket["doc_count"]
            if len(page["buckets"]) < versions["size"]:
                return counts
            versions["after"] = page["after_key"]

    def _left_out(self, name: str | None, stop: Event) -> list[tuple[str, dict[str, Any]]]:
        """Documents in an index that stand there without their text, the first 100: the version of
        the shard, and a row of REJECTS."""
        body = {
            "query": _TEXTLESS,
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

    def _grown(
        self, name: str, held: Mapping[tuple[str, str], int], wanted: Collection[str]
    ) -> bool:
        """Whether an index holds more that is not wanted than it did."""
        return any(
            n > held.get(version, 0)
            for version, n in self._inventory(name).items()
            if _version(*version) not in wanted
        )

    def _verify(
        self,
        name: str,
        shards: Mapping[str, ShardContent],
        send: Collection[str],
        stale: Collection[str],
    ) -> None:
        """Raise unless an index holds what these shards have, and `stale` at most.

        What was sent is counted, and all that is not stale: the cost does not grow with the corpus.
        """

        def require(what: str, query: dict[str, Any], wanted: Iterable[ShardContent]) -> None:
            have, n = self._connection.count(name, query), sum(each.n_documents for each in wanted)
            if have != n:
                raise self._connection.overtaken(f"holds {have} {what} after the load, not {n}")

        sent = {_version(s, shards[s].content_hash) for s in send}
        require("of the documents sent", _of_versions(sent), (shards[s] for s in send))
        without_stale = {"bool": {"must_not": _of_versions(stale)}}
        require("documents", without_stale, shards.values())

    def _load(
        self,
        target: ConcreteIndex,
        shards: Mapping[str, ShardContent],
        send: Sequence[str],
        read: Callable[[str], pl.LazyFrame],
        progress: Callable[[str], None],
    ) -> tuple[int, list[Refusal]]:
        """Send these shards' documents; how many there were, and which of them the server refused."""
        bulk = Bulk(self._connection, _without_text)

        def documents() -> Iterator[dict[str, Any]]:
            for shard in send:
                content_hash, n_documents = shards[shard]
                version = _version(shard, content_hash)
                rows = 0
                frame = read(shard)
                if "title" not in frame.collect_schema():
                    frame = frame.with_columns(title=pl.lit(None, pl.String))
                frame = frame.select("doc_id", "text", "text_hash", "title")
                for chunk in frame.collect_batches(chunk_size=self.bulk_size):
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
            actions = []
            for row in batch:
                key = f"{row['version']}\0{row['doc_id']}".encode(errors="surrogatepass")
                actions.append(
                    {
                        "_op_type": "index",
                        "_index": target.write_alias,
                        # The same wherever and whenever it is sent, so nothing is there twice.
                        "_id": hashlib.blake2b(key, digest_size=16).hexdigest(),
                        "_source": row,
                    }
                )
            return len(actions), bulk.write(actions, stop)

        refused: list[Refusal] = []
        done, told = 0, time.monotonic()
        total = sum(shards[shard].n_documents for shard in send)
        for n, wrong in self._connection.parallel(index, batched(documents(), self.bulk_size)):
            done += n
            refused += wrong
            if time.monotonic() - told >= 5 or done == total:
                told = time.monotonic()
                progress(f"indexed {done:,} of {total:,} documents")
        return done, refused

    def _remove(self, target: ConcreteIndex, versions: Collection[str]) -> None:
        """Remove the documents of these versions of shards."""
        if not versions:
            return
        body = {
            "query": _of_versions(versions),
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
            for _ in self._connection.parallel(write, batched(actions, self.bulk_size)):
                pass
            self._alias.refresh(target.name)
            if len(hits) < MAX_HITS:
                break


# What documents that were refused leave in the index: each other one has its text.
_TEXTLESS = {"bool": {"must_not": {"exists": {"field": "text"}}}}


def _without_text(action: Action) -> Action:
    """What stands for a document that is refused: all but its text, and no id that is too long."""
    left_out = ("text", "heading", "title")
    source = {field: value for field, value in action["_source"].items() if field not in left_out}
    doc_id = source["doc_id"]
    if len(doc_id.encode(errors="surrogatepass")) > LONGEST_ID:
        source["doc_id"] = f"{doc_id[:100]}… ({action['_id']})"
    return {**action, "_source": source}


def _rejects(refused: Sequence[Refusal], before: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """REJECTS of those refused now and those refused before, the first 100."""
    now = [
        {
            "shard": action["_source"]["shard"],
            "doc_id": action["_source"]["doc_id"],
            "reason": problem.kind or str(problem.status),
            "detail": str(problem),
        }
        for action, problem in refused
    ]
    return pl.DataFrame([*now, *before][:LEFT_OUT], schema=REJECTS)


def _warnings(rejects: pl.DataFrame, n_rejects: int) -> tuple[str, ...]:
    if not n_rejects:
        return ()
    shard, doc_id, reason, detail = rejects.row(0)
    warning = (
        f"{n_rejects:,} documents are left out of the index, since Elasticsearch does not take them, "
        f"and no search finds them: the first is {doc_id!r:.300} of shard {shard!r} "
        f"({detail or reason}). All are in the rejects of corpus_index"
    )
    return (warning,)


def _shard_and_hash(version: str) -> tuple[str, str]:
    """What `_version` was made from."""
    shard, _, content_hash = version.rpartition("@")
    return shard, content_hash


def _version(shard: str, content_hash: str) -> str:
    return f"{shard}@{content_hash}"


def _of_versions(versions: Collection[str]) -> dict[str, Any]:
    """A query for all documents of these versions of shards."""
    # Without a clause it would be for all documents there are.
    parts = list(batched(sorted(versions), MAX_TERMS)) or [()]
    return {
        "bool": {"filter": [{"bool": {"should": [{"terms": {"version": part}} for part in parts]}}]}
    }


def _purpose(wanted: Collection[str]) -> str:
    """A short name of what a sync wants, the same for all that want the same."""
    versions = "\0".join(sorted(wanted)).encode(errors="surrogatepass")
    return hashlib.blake2b(versions, digest_size=8).hexdigest()


def _with_heading(row: dict[str, Any]) -> dict[str, Any]:
    """A document as it is sent: its title is searched as `heading`, and kept as `title` where the text
    begins with it."""
    title = row.pop("title")
    if title is None:
        return row
    return row | {("title" if titled(title, row["text"]) == row["text"] else "heading"): title}
