"""BM25 by an Elasticsearch server: an index behind an alias, kept in step with the shards.

The alias is the only name that readers know. It points to one concrete index `<alias>-<suffix>`,
marked in its mapping's `_meta` as made here; whatever else bears the alias' name is left alone.
Each document carries the version of the shard it came from (shard and content hash), so what an
index holds is read from the index itself and no record of it can be wrong.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any, NamedTuple

import polars as pl
from pydantic import SecretStr

from rare_assets.retriever.elasticsearch.bulk import Action, Bulk, Refusal
from rare_assets.retriever.elasticsearch.connection import (
    Connection,
    ElasticsearchError,
    batched,
)
from rare_assets.retriever.elasticsearch.index import MAX_TERMS, Alias, ConcreteIndex
from rare_assets.retriever.interface import (
    BEST_TERMS,
    HITS,
    REJECTS,
    SCORES,
    TEXTS,
    Bm25,
    IndexConflict,
    IndexState,
    ShardContent,
    SyncReport,
)
from rare_assets.text.titled import titled

MAX_HITS = 10_000  # what a server returns for one query by default (index.max_result_window)
MAX_TIES = 1_000  # hits looked through for ties at the depth asked for
REPORTED = 1_000  # duplicate texts that a report lists
LISTED = 100  # ids and shards listed for one of them
TERMS = 2_000  # terms sent in one query
TEXTS_AT_ONCE = 250  # documents whose texts are read in one request
COPIES = 50  # of them in other shards, for which there is room in that request
GROUPED_ROWS = 1_000_000  # rows whose ids are compared in memory at once
LEFT_OUT = 100  # documents without a text that a report lists
LONGEST_ID = 8_000  # bytes of an id that a keyword field holds for sure
COLLECTED_ROWS = 100_000  # rows whose ids and hashes are kept in memory for it

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
            compared = submit(partial(self._check, index, shards, send, changing, read))
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
        duplicates = self._duplicates(twins)
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
        return self._ranked(queries, depth, lambda _, texts, __: [_match(text) for text in texts])

    def search_like(self, texts: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus by what each text is about: QUERIES in, HITS out; see the interface.

        The server makes the terms and counts them; with several primary shards it counts in one of
        them.

        Raises:
            IndexMissing: there is no index yet.
            ValueError: `depth` is not within 1 and 10,000.
            ElasticsearchError: see the class.
        """
        return self._ranked(texts, depth, self._best_terms)

    def _best_terms(
        self, index: ConcreteIndex, texts: Sequence[str], stop: Event
    ) -> list[dict[str, Any]]:
        """For each text the query for its best terms."""
        asked = {"fields": ["text"], "term_statistics": True, "field_statistics": True}
        bare = dict.fromkeys(("positions", "offsets", "payloads"), False)
        answer = self._connection.ask(
            "find the best terms of documents",
            lambda: self._connection.client.mtermvectors(
                index=index.name, docs=[{"doc": {"text": text}, **asked, **bare} for text in texts]
            ),
            stop,
        )
        return [_any_of(_best(each)) for each in answer["docs"]]

    def _ranked(
        self,
        queries: pl.DataFrame,
        depth: int,
        bodies: Callable[[ConcreteIndex, Sequence[str], Event], list[dict[str, Any]]],
    ) -> pl.DataFrame:
        """HITS of QUERIES, each turned into the query that is sent, many at a time."""
        if not 1 <= depth <= MAX_HITS:
            raise ValueError(f"depth is {depth}: Elasticsearch returns 1 to {MAX_HITS} hits")
        index = self._alias.visible()

        names, texts = queries["question_id"].to_list(), queries["query"].to_list()

        def rank(batch: tuple[int, ...], stop: Event) -> _Hits:
            made = bodies(index, [texts[number] for number in batch], stop)
            sent = dict(zip(batch, made, strict=True))
            return self._rank(index, names, sent, depth, stop)

        found = _Hits([], [], [], [])
        batches = batched(range(len(queries)), self.batch_size)
        for some in self._connection.parallel(rank, batches):
            found.extend(some)
        schema = {field: HITS.get(field, pl.UInt32) for field in _Hits._fields}
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

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Score one document for each query: PAIRS in, SCORES out; see the interface.

        Raises:
            IndexMissing: there is no index yet.
            ElasticsearchError: see the class; a refused query is named by its question_id.
        """
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
        """TEXTS of the given documents, one row an id; those that the index lacks are absent.

        Raises:
            IndexMissing: there is no index yet.
        """
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

    def _check(
        self,
        index: str | None,
        shards: Mapping[str, ShardContent],
        send: Sequence[str],
        changing: Collection[str],
        read: Callable[[str], pl.LazyFrame],
        stop: Event,
    ) -> tuple[list[str], int]:
        """Compare what is to be sent with itself and with what stays in the index.

        Returns:
            Hashes of texts that would stand there several times (the first 1,000 by hash), and
            how many there are.

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

        # 8 bytes for each text that has a twin in what stays.
        elsewhere = pl.Series(dtype=pl.UInt64)
        if index:
            found = [elsewhere]
            for batch in rows.collect_batches(chunk_size=TERMS):
                for part_of_it in batch.iter_slices(TERMS):
                    hashes = self._twins(index, part_of_it, changing, read, stop)
                    found.append(pl.Series(sorted(hashes), dtype=pl.String).hash())
            elsewhere = pl.concat(found).unique()
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

    def _twins(
        self,
        index: str,
        batch: pl.DataFrame,
        changing: Collection[str],
        read: Callable[[str], pl.LazyFrame],
        stop: Event,
    ) -> set[str]:
        """Hashes of texts in `batch` that shards which stay in the index have, too."""
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

    def _duplicates(self, twins: Sequence[str]) -> pl.DataFrame:
        """Where these texts stand: a row each, with ids and shards."""
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

    def _rank(
        self,
        index: ConcreteIndex,
        names: Sequence[str],
        queries: Mapping[int, dict[str, Any]],
        depth: int,
        stop: Event,
    ) -> _Hits:
        """The best hits of some of the queries, by number; enough of each to choose `depth` from.

        A query is asked again for more hits while copies of a document take up places, or hits
        beyond those returned could tie with the last place.
        """
        found = _Hits([], [], [], [])
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
                    of_query = _Hits(
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


class _Hits(NamedTuple):
    """Hits of several queries by column; each query's stand together, best first, and may hold
    copies of a document. Not a row a hit: so many small objects would slow down their collector."""

    query: list[int]
    doc_id: list[str]
    text_hash: list[str]
    score: list[float]

    def extend(self, others: _Hits) -> None:
        self.query.extend(others.query)
        self.doc_id.extend(others.doc_id)
        self.text_hash.extend(others.text_hash)
        self.score.extend(others.score)

    def may_lack(self, depth: int, size: int) -> bool:
        """Whether more hits of this one query could change the best `depth` documents."""
        distinct = list(
            dict(zip(reversed(self.doc_id), reversed(self.score), strict=True)).values()
        )
        if len(distinct) < depth:
            return True
        # Equal to 5 digits are at most this far apart.
        tie = distinct[-depth] * (1 - 1e-4) <= self.score[-1]
        return tie and size < depth + MAX_TIES


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


def _best(answer: Mapping[str, Any]) -> list[str]:
    """The best terms in the term vectors of a text; see `Retriever.search_like`."""
    found = answer.get("term_vectors", {}).get("text")
    if found is None:
        return []
    n = found["field_statistics"]["doc_count"]
    weights = []
    for term, counts in found["terms"].items():
        if frequency := counts.get("doc_freq", 0):
            idf = math.log1p((n - frequency + 0.5) / (frequency + 0.5))
            weights.append((-round(counts["term_freq"] * idf, 6), term))
    return [term for _, term in sorted(weights)[:BEST_TERMS]]


def _any_of(terms: Sequence[str]) -> dict[str, Any]:
    if not terms:
        return {"match_none": {}}
    return {"bool": {"should": [{"term": {"text": term}} for term in terms]}}


def _match(query: str) -> dict[str, Any]:
    return {"match": {"text": {"query": query}}}


def _bare() -> dict[str, Any]:
    """What keeps an answer small, and the server from unpacking what it stores of each hit."""
    return {"stored_fields": "_none_", "track_total_hits": False}


def _score(hit: Mapping[str, Any], index: ConcreteIndex) -> float:
    """A hit's score in the interface's form; Elasticsearch multiplies by k1 + 1."""
    return float(hit["_score"]) / (index.bm25.k1 + 1)


def _conflict(
    doc_id: str, one: str, other: str, read: Callable[[str], pl.LazyFrame]
) -> IndexConflict:
    """The error for an id that stands for two texts, with both places as the shards name them."""

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
