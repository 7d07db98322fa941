"""BM25 by an Elasticsearch server: an index behind an alias, kept in step with the shards.

The alias is the only name that readers know. It points to one concrete index `<alias>-<suffix>`,
marked in its mapping's `_meta` as made here; whatever else bears the alias' name is left alone.
Each document carries the version of the shard it came from (shard and content hash), so what an
index holds is read from the index itself and no record of it can be wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

import polars as pl
from pydantic import SecretStr

from rare_assets.resources.retriever.interface import (
    HITS,
    SCORES,
    TEXTS,
    Bm25,
    IndexConflict,
    IndexMissing,
    IndexState,
    ShardContent,
    SyncReport,
)

FORMAT = 1  # of the concrete index; another number means another index
MAX_HITS = 10_000  # what a server returns for one query by default (index.max_result_window)
MAX_TIES = 1_000  # hits looked through for ties at the depth asked for
REPORTED = 1_000  # duplicate texts that a report lists
LISTED = 100  # ids and shards listed for one of them
TERMS = 2_000  # terms sent in one query
GROUPED_ROWS = 1_000_000  # rows whose ids are compared in memory at once
BULK_BYTES = 10 * 1024 * 1024
PASSING = frozenset({429, 502, 503, 504})
KEYWORDS = ("doc_id", "text_hash", "shard", "content_hash", "version")

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class ElasticsearchError(RuntimeError):
    """Elasticsearch refused something or is gone; the message says what and what to do.

    Attributes:
        status: HTTP status, 0 if there was no answer.
        kind: Elasticsearch's name for the error, as `index_not_found_exception`.
    """

    def __init__(self, message: str, status: int = 0, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    @property
    def not_offered(self) -> bool:
        """Whether this deployment, as a serverless one, does not let anybody do that."""
        return self.status in (405, 410) or "serverless" in str(self).lower()


class _Passing(Exception):
    """Part of a request failed in a way that another try may mend."""


class _Index(NamedTuple):
    """A concrete index of ours, as the server describes it."""

    name: str
    format: int
    bm25: Bm25
    number_of_shards: int  # asked for when it was made
    global_statistics: bool  # whether several primary shards have to share term statistics
    visible: bool  # the alias points to it
    hidden: frozenset[str]  # versions that the alias leaves out
    restore: Mapping[str, Any] | None  # settings to set after the first load
    closed: bool


class ElasticsearchRetriever:
    """A `Retriever` on one or more Elasticsearch nodes, version 9 or serverless.

    Scores are Lucene's BM25 as the interface defines it: Elasticsearch's own are `k1 + 1` times
    as high. With several primary shards, terms are counted over all of them before ranking, so
    results do not depend on their number.

    A concurrent reader sees the documents as they were before a sync until it switches to those
    after it, in one step: new versions of shards are loaded while the alias filters them out, old
    ones are removed after it does so with them. Only term statistics (so scores, a little) count
    hidden documents meanwhile, as they count removed ones until Lucene merges them away; syncs ask
    for that merge where more than a tenth of a segment is gone. Two syncs at once that want the
    same shards do no harm; of two that want different ones the last to finish checks what the
    index holds and fails if that is not what it wanted.

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
        number_of_shards: primary shards of a new index; another number than the index has means
            a full load into a new one.
        bulk_size: documents sent in one request.
        batch_size: queries sent in one request.
        threads: requests in flight.

    Raises:
        ValueError: the options contradict each other.
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
        number_of_shards: int = 1,
        bulk_size: int = 500,
        batch_size: int = 100,
        threads: int = 4,
    ) -> None:
        from elasticsearch import Elasticsearch

        hosts = [host.strip() for host in url.split(",") if host.strip()]
        if not hosts:
            raise ValueError("ELASTICSEARCH_URL is empty: give http(s)://host:port")
        if api_key and (username or password):
            raise ValueError(
                "give ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and _PASSWORD, not both"
            )
        if bool(username) != bool(password):
            raise ValueError(
                "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD go together: one is missing"
            )
        options: dict[str, Any] = {}
        if api_key:
            options["api_key"] = _reveal(api_key)
        if username and password:
            options["basic_auth"] = (username, _reveal(password))
        if ca_certs:
            if not all(host.startswith("https://") for host in hosts):
                raise ValueError(
                    "ELASTICSEARCH_CA_CERTS is set, but ELASTICSEARCH_URL is not https"
                )
            options["ca_certs"] = ca_certs
        self.url = ",".join(_without_user(host) for host in hosts)
        self.index = index
        self.wait_seconds = wait_seconds
        self.number_of_shards = number_of_shards
        self.bulk_size = bulk_size
        self.batch_size = batch_size
        self.threads = threads
        # Statuses are retried with back-off here; the client would repeat them at once.
        self._client = Elasticsearch(
            hosts,
            request_timeout=request_timeout,
            max_retries=len(hosts),
            retry_on_status=(),
            connections_per_node=threads + 1,
            **options,
        )

    def __repr__(self) -> str:
        return f"ElasticsearchRetriever({self.url!r}, index={self.index!r})"

    def sync(
        self,
        shards: Mapping[str, ShardContent],
        read: Callable[[str], pl.LazyFrame],
        bm25: Bm25,
        progress: Callable[[str], None] = _log.info,
    ) -> SyncReport:
        """Make the index hold exactly `shards`: see the interface.

        Safe to kill at any moment: the next sync finds out what is missing or left over. A shard
        without documents is not part of the index's state. The report's duplicates are texts of
        the shards indexed by this sync, wherever their twins stand; up to 100 ids and shards each.

        Raises:
            IndexConflict: one doc_id has two texts in different shards, or stands twice in one; or
                something else has the alias' name. Nothing was changed.
            ElasticsearchError: see the class; also if a shard has other rows than `shards` says, or
                another sync changed the index meanwhile.
        """
        started = time.monotonic()
        wanted = {_version(s, content.content_hash): s for s, content in shards.items()}
        target = self._target(bm25)
        self._refresh(target.name)
        held = self._inventory(target.name)
        send = [s for s, (content, n) in shards.items() if held.get((s, content), 0) != n]
        stale = {
            _version(*version): n for version, n in held.items() if _version(*version) not in wanted
        }
        removed = sorted({shard for shard, _ in held} - shards.keys())
        kept = len(shards) > len(send)
        changing = {*send, *removed}
        twins, n_twins = self._check(target.name if kept else None, shards, send, changing, read)

        fresh = {_version(s, shards[s].content_hash) for s in send} - {
            _version(*version) for version in held
        }
        if target.visible and fresh - target.hidden:
            self._show(target, target.hidden | fresh)
        n_indexed = self._load(target, shards, send, read, progress)
        if send:
            self._refresh(target.name)
            self._verify(target, shards, stale)
        if target.restore is not None:
            self._restore(target)
        if not target.visible or stale or target.hidden or fresh:
            self._show(target, frozenset(stale))
        n_removed = self._remove(target, stale)
        if stale:
            self._verify(target, shards)
            self._show(target, frozenset())
        if target.visible and (send or stale):
            self._expunge(target)
        self._delete_others(target)
        duplicates = self._duplicates(twins)
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
            n_indexed=n_indexed,
            n_removed=n_removed,
            n_duplicates=n_twins,
            duplicates=duplicates,
            seconds=time.monotonic() - started,
        )

    def state(self) -> IndexState:
        """What a search would see now. Raises IndexMissing."""
        index = self._visible()
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
        if not 1 <= depth <= MAX_HITS:
            raise ValueError(f"depth is {depth}: Elasticsearch returns 1 to {MAX_HITS} hits")
        index = self._visible()

        def rank(batch: pl.DataFrame, stop: Event) -> pl.DataFrame:
            names = batch["question_id"].to_list()
            found = self._rank(index, names, batch["query"].to_list(), depth, stop)
            rows = [
                (name, rank, doc_id, text_hash, score)
                for name, hits in zip(names, found, strict=True)
                for rank, (doc_id, text_hash, score) in enumerate(hits, 1)
            ]
            return pl.DataFrame(rows, schema=HITS, orient="row")

        batches = queries.iter_slices(self.batch_size)
        return pl.concat([pl.DataFrame(schema=HITS), *self._parallel(rank, batches)])

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Score one document for each query: PAIRS in, SCORES out; see the interface.

        Raises:
            IndexMissing: there is no index yet.
            ElasticsearchError: see the class; a refused query is named by its question_id.
        """
        index = self._visible()

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
            found = self._msearch(index, names, bodies, stop)
            scores = [_score(hits[0], index) if hits else None for hits in found]
            return batch.select("question_id", "doc_id", score=pl.Series(scores, dtype=pl.Float64))

        batches = pairs.iter_slices(self.batch_size)
        return pl.concat([pl.DataFrame(schema=SCORES), *self._parallel(score, batches)])

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        """TEXTS of the given documents, one row an id; those that the index lacks are absent.

        Raises:
            IndexMissing: there is no index yet.
        """
        self._visible()

        def texts(batch: tuple[str, ...], stop: Event) -> pl.DataFrame:
            body = {
                "query": {"bool": {"filter": {"terms": {"doc_id": batch}}}},
                "collapse": {"field": "doc_id"},
                "size": len(batch),
                "source": ["doc_id", "text"],
                "track_total_hits": False,
            }
            hits = self._search("read texts", self.index, body, stop)
            return pl.DataFrame([hit["_source"] for hit in hits], schema=TEXTS)

        batches = _batched(dict.fromkeys(doc_ids), self.batch_size)
        return pl.concat([pl.DataFrame(schema=TEXTS), *self._parallel(texts, batches)])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # Requests

    def _ask(self, what: str, call: Callable[[], Result], stop: Event | None = None) -> Result:
        """Send a request that may be repeated, for `wait_seconds` while the server can't answer."""
        from elastic_transport import ApiError, TlsError, TransportError

        stop = stop or Event()
        deadline = None
        for attempt in itertools.count():
            try:
                answer = call()
                if deadline:
                    _log.warning("Elasticsearch answers again: %s", what)
                return answer
            except _Passing as error:
                reason = str(error)
            except TlsError as error:
                if "EOF" not in str(error):  # which is how a server that dies ends a handshake
                    raise ElasticsearchError(
                        f"no secure connection to Elasticsearch at {self.url} to {what}: {error} "
                        "(ELASTICSEARCH_CA_CERTS names the CA file; is the URL's scheme right?)"
                    ) from error
                reason = str(error)
            except TransportError as error:
                reason = f"{type(error).__name__}: {error.message}"
            except ApiError as error:
                kind, detail = _reason(error.body)
                status = error.meta.status
                if status in (401, 403):
                    raise ElasticsearchError(
                        f"Elasticsearch at {self.url} lets nobody {what} with these credentials "
                        f"({status} {kind}: {detail}): check ELASTICSEARCH_API_KEY or "
                        "ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD, and their privileges "
                        f"on {self.index}*",
                        status,
                        kind,
                    ) from error
                # Closed means: another sync is setting k1 and b this very moment.
                if status not in PASSING and kind != "index_closed_exception":
                    raise ElasticsearchError(
                        f"Elasticsearch at {self.url} refused to {what}: {status} {kind}: {detail}",
                        status,
                        kind,
                    ) from error
                reason = f"{status} {kind}: {detail}"
            now = time.monotonic()
            if not deadline:
                deadline = now + self.wait_seconds
                _log.warning(
                    "Elasticsearch can't %s, waiting up to %g s: %s",
                    *(what, self.wait_seconds, reason),
                )
            delay = random.uniform(0.5, 1) * min(0.1 * 2**attempt, 5)
            if now >= deadline or stop.wait(min(delay, deadline - now)):
                raise ElasticsearchError(
                    f"Elasticsearch at {self.url} could not {what} for {self.wait_seconds:g} s, "
                    f"at last because of {reason}. What is done is kept: run again when it is back"
                )
        raise AssertionError("unreachable")

    def _optional(self, what: str, call: Callable[[], Any]) -> bool:
        """Whether a request that not every deployment offers was carried out."""
        try:
            self._ask(what, call)
        except ElasticsearchError as error:
            if not error.not_offered:
                raise
            _log.debug("left out, since not offered here: %s (%s)", what, error)
            return False
        return True

    def _parallel(
        self, work: Callable[[Item, Event], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Results in the items' order, taking items only as threads get free for them.

        An error ends the waiting of all threads, which they learn from the event.
        """
        stop = Event()
        pending: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="elasticsearch") as pool:
            try:
                for item in items:
                    pending.append(pool.submit(work, item, stop))
                    if len(pending) >= 2 * self.threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _search(
        self, what: str, index: str, body: Mapping[str, Any], stop: Event | None = None
    ) -> list[dict[str, Any]]:
        """Hits of one search that is whole: no shard was left out."""
        response = self._ask(
            what,
            lambda: self._client.search(index=index, allow_partial_search_results=False, **body),
            stop,
        )
        hits: list[dict[str, Any]] = response["hits"]["hits"]
        return hits

    def _msearch(
        self,
        index: _Index,
        names: Sequence[str],
        bodies: Sequence[Mapping[str, Any]],
        stop: Event,
    ) -> list[list[dict[str, Any]]]:
        """Hits of several searches; those that fail in passing are repeated, others named."""
        found: list[list[dict[str, Any]]] = [[] for _ in bodies]
        pending = list(range(len(bodies)))

        def once() -> None:
            nonlocal pending
            header = {"allow_partial_search_results": False}
            answer = self._client.msearch(
                index=self.index,
                searches=[part for i in pending for part in (header, bodies[i])],
                search_type="dfs_query_then_fetch" if index.global_statistics else None,
                filter_path=[
                    *("responses.status", "responses.error", "responses.timed_out"),
                    *("responses._shards.failed", "responses.hits.hits._score"),
                    "responses.hits.hits.fields",
                ],
            )
            again, reason = [], ""
            for i, item in zip(pending, answer["responses"], strict=True):
                status = item.get("status", 200)
                if "error" in item:
                    kind, detail = _reason(item)
                    if kind == "index_not_found_exception":
                        raise self._missing()
                    message = f"question {names[i]!r}: {status} {kind}: {detail}"
                    if status not in PASSING and kind != "index_closed_exception":
                        raise ElasticsearchError(
                            f"Elasticsearch at {self.url} refused the query of {message}",
                            *(status, kind),
                        )
                    again.append(i)
                    reason = reason or message
                elif item.get("timed_out") or item["_shards"]["failed"]:
                    again.append(i)
                    reason = reason or f"question {names[i]!r}: a part of the index did not answer"
                else:
                    found[i] = item.get("hits", {}).get("hits", [])
            pending = again
            if again:
                raise _Passing(reason)

        if bodies:
            self._ask("search", once, stop)
        return found

    def _bulk(self, actions: Sequence[dict[str, Any]], stop: Event) -> None:
        """Carry out bulk actions, each of which is checked and may be repeated."""
        from elasticsearch.helpers import streaming_bulk

        def name(action: Mapping[str, Any]) -> str:
            source = action.get("_source", action)
            return f"document {source.get('doc_id', action['_id'])!r} of shard {source['shard']!r}"

        rest = list(actions)

        def once() -> None:
            nonlocal rest
            again, reason = [], ""
            answers = streaming_bulk(
                self._client,
                # What an action is about goes along in it, beside what the server reads.
                ({k: v for k, v in action.items() if k != "shard"} for action in rest),
                chunk_size=len(rest),
                max_chunk_bytes=BULK_BYTES,
                raise_on_error=False,
                require_alias=True,
                filter_path=["errors", "items.*.status", "items.*.error"],
            )
            for action, (done, item) in zip(rest, answers, strict=True):
                ((operation, outcome),) = item.items()
                status = outcome["status"]
                if done or (operation == "delete" and status == 404 and "error" not in outcome):
                    continue
                kind, detail = _reason(outcome)
                message = f"{name(action)}: {status} {kind}: {detail}"
                if status not in PASSING:
                    raise ElasticsearchError(
                        f"Elasticsearch at {self.url} could not {operation} {message}",
                        *(status, kind),
                    )
                again.append(action)
                reason = reason or message
            rest = again
            if again:
                raise _Passing(reason)

        self._ask(f"write {len(actions)} documents from {name(actions[0])} on", once, stop)

    # Indices

    def _describe(self, names: str) -> dict[str, Any]:
        """Indices behind the names; names that nothing has are left out."""
        answer = self._ask(
            f"look up {names}",
            lambda: self._client.indices.get(
                index=names.split(","),
                ignore_unavailable=True,
                expand_wildcards=["open", "closed", "hidden"],
            ),
        )
        found: dict[str, Any] = answer.body
        return found

    def _parse(self, name: str, described: Mapping[str, Any]) -> _Index | None:
        """An index of ours under this alias, None if it is not; raises if it only claims to be."""
        mappings, settings = described["mappings"], described["settings"]["index"]
        mark = mappings.get("_meta", {}).get("rare_assets", {})
        if mark.get("index") != self.index:
            return None
        analyzer = mappings.get("properties", {}).get("text", {}).get("analyzer", "default")
        if mark["format"] == FORMAT and _shape(mappings) != _shape(_mappings(analyzer)):
            raise IndexConflict(
                f"the mapping of index {name!r} was changed: delete it, or set RARE_INDEX to "
                "another name"
            )
        similarity = settings.get("similarity", {}).get("default", {})
        alias = described["aliases"].get(self.index)
        hidden: set[str] = set()
        for clause in ((alias or {}).get("filter", {}).get("bool", {})).get("must_not", []):
            hidden.update(clause["terms"]["version"])
        return _Index(
            name=name,
            format=mark["format"],
            bm25=Bm25(float(similarity.get("k1", 1.2)), float(similarity.get("b", 0.75)), analyzer),
            number_of_shards=mark["number_of_shards"],
            global_statistics=settings.get("number_of_shards") != "1",
            visible=alias is not None,
            hidden=frozenset(hidden),
            restore=mark.get("restore"),
            closed=settings.get("verified_before_close") == "true",
        )

    def _ours(self) -> dict[str, _Index]:
        """Indices made here for this alias. Raises IndexConflict if the name is taken."""
        ours = {}
        for name, described in self._describe(f"{self.index},{self.index}-*").items():
            if index := self._parse(name, described):
                ours[name] = index
            elif self.index in described["aliases"] or not name.startswith(f"{self.index}-"):
                raise IndexConflict(
                    f"{self.index!r} is the name of index {name!r} at {self.url}, which rare_assets "
                    "did not make: it is left alone; set RARE_INDEX to another name"
                )
        if len(visible := [name for name, index in ours.items() if index.visible]) > 1:
            raise IndexConflict(
                f"alias {self.index!r} at {self.url} points to several indices ({visible}): "
                "take it from all but one"
            )
        return ours

    def _visible(self) -> _Index:
        """The index that the alias points to. Raises IndexMissing and IndexConflict."""
        described = self._describe(self.index)
        if not described:
            raise self._missing()
        found = [self._parse(name, index) for name, index in described.items()]
        if len(found) != 1 or found[0] is None:
            raise IndexConflict(
                f"{self.index!r} at {self.url} is the name of {sorted(described)}, which "
                "rare_assets did not make: set RARE_INDEX to another name"
            )
        return found[0]

    def _missing(self) -> IndexMissing:
        return IndexMissing(
            f"Elasticsearch at {self.url} has no index {self.index!r}: materialize corpus_index"
        )

    def _target(self, bm25: Bm25) -> _Index:
        """The index to sync: the visible one if it can rank so, else another, made if need be."""
        ours = self._ours()
        for index in ours.values():
            if index.closed:
                self._open(index.name)
        pinned: tuple[float, ...] = ()
        for index in ours.values():
            if not index.visible or not self._fits(index, bm25.analyzer):
                continue
            if self._set_bm25(index, bm25):
                return index._replace(bm25=bm25, closed=False)
            pinned = (bm25.k1, bm25.b)
        design = [FORMAT, bm25.analyzer, self.number_of_shards, *pinned]
        suffix = hashlib.blake2b(json.dumps(design).encode(), digest_size=4).hexdigest()
        name = f"{self.index}-{suffix}"
        if name not in ours:
            self._create(name, bm25)
        described = self._describe(name)
        made = self._parse(name, described[name]) if name in described else None
        if made is None:
            raise IndexConflict(
                f"index {name!r} at {self.url} was not made by rare_assets: it is left alone; set "
                "RARE_INDEX to another name"
            )
        if not self._set_bm25(made, bm25):
            raise ElasticsearchError(
                f"index {name} at {self.url} can't rank with k1={bm25.k1}, b={bm25.b}: delete it"
            )
        return made._replace(bm25=bm25, closed=False)

    def _fits(self, index: _Index, analyzer: str) -> bool:
        return (index.format, index.bm25.analyzer, index.number_of_shards) == (
            *(FORMAT, analyzer),
            self.number_of_shards,
        )

    def _create(self, name: str, bm25: Bm25) -> None:
        """Make an index, set for its first load; another sync may be faster."""
        settings = {
            "number_of_shards": self.number_of_shards,
            "similarity": {"default": _similarity(bm25)},
        }
        mark: dict[str, Any] = {
            "format": FORMAT,
            "index": self.index,
            "number_of_shards": self.number_of_shards,
        }

        def create() -> None:
            self._client.indices.create(
                index=name,
                settings={"index": settings},
                mappings={**_mappings(bm25.analyzer), "_meta": {"rare_assets": mark}},
                # Writing through an alias keeps a deleted index from coming back by itself.
                aliases={_write_alias(name): {"is_hidden": True}},
            )

        try:
            if not self._optional(f"create index {name} with a number of shards", create):
                del settings["number_of_shards"]
                self._ask(f"create index {name}", create)
        except ElasticsearchError as error:
            if error.kind != "resource_already_exists_exception":
                raise
            return
        given = self._describe(name).get(name, {}).get("settings", {}).get("index", {})
        loading = {"refresh_interval": "-1", "number_of_replicas": "0"}
        mark["restore"] = {setting: given.get(setting) for setting in loading}
        self._mark(name, mark)
        for setting, value in loading.items():
            self._set(name, {setting: value})

    def _restore(self, target: _Index) -> None:
        """Undo what `_create` set for the load."""
        for setting, value in (target.restore or {}).items():
            self._set(target.name, {setting: value})
        self._mark(
            target.name,
            {"format": FORMAT, "index": self.index, "number_of_shards": target.number_of_shards},
        )

    def _set(self, name: str, settings: Mapping[str, Any]) -> bool:
        return self._optional(
            f"set {settings} of {name}",
            lambda: self._client.indices.put_settings(index=name, settings={"index": settings}),
        )

    def _mark(self, name: str, mark: Mapping[str, Any]) -> None:
        self._ask(
            f"mark {name}",
            lambda: self._client.indices.put_mapping(index=name, meta={"rare_assets": mark}),
        )

    def _set_bm25(self, index: _Index, bm25: Bm25) -> bool:
        """Whether the index ranks so now; it is closed for the moment of a change."""
        if index.bm25 == bm25:
            return True
        name = index.name
        if not self._optional(
            f"close {name} to set k1 and b", lambda: self._client.indices.close(index=name)
        ):
            return False
        try:
            return self._set(name, {"similarity": {"default": _similarity(bm25)}})
        finally:
            self._open(name)

    def _show(self, target: _Index, hidden: Collection[str]) -> None:
        """Point the alias to this index alone, without these versions of shards."""
        add: dict[str, Any] = {"index": target.name, "alias": self.index}
        if hidden:
            must_not = [{"terms": {"version": part}} for part in _batched(sorted(hidden), MAX_HITS)]
            add["filter"] = {"bool": {"must_not": must_not}}
        remove = [
            {"remove": {"index": index.name, "alias": self.index}}
            for index in self._ours().values()
            if index.visible and index.name != target.name
        ]
        self._ask(
            f"point alias {self.index} to {target.name}",
            lambda: self._client.indices.update_aliases(actions=[*remove, {"add": add}]),
        )

    def _delete_others(self, target: _Index) -> None:
        """Delete the index that the alias pointed to before, and what a killed load left over."""
        for index in self._ours().values():
            if index.name != target.name and not index.visible:
                delete = partial(self._client.indices.delete, index=index.name)
                self._ask(f"delete {index.name}", partial(delete, ignore_unavailable=True))

    def _open(self, name: str) -> None:
        self._ask(f"open {name}", lambda: self._client.indices.open(index=name))

    def _refresh(self, name: str) -> None:
        self._ask(f"refresh {name}", lambda: self._client.indices.refresh(index=name))

    def _expunge(self, target: _Index) -> None:
        """Have removed documents merged away, which count in term statistics until then."""
        from elastic_transport import TransportError

        client = self._client.options(request_timeout=600, max_retries=0)
        try:
            self._optional(
                f"merge {target.name}",
                lambda: client.indices.forcemerge(index=target.name, only_expunge_deletes=True),
            )
        except (ElasticsearchError, TransportError) as error:
            _log.debug("the merge was left to the server: %s", error)

    # Content

    def _inventory(self, name: str) -> dict[tuple[str, str], int]:
        """Documents in an index (or behind the alias) by shard and content hash."""
        counts = {}
        versions: dict[str, Any] = {
            "size": 5_000,
            "sources": [
                {field: {"terms": {"field": field}}} for field in ("shard", "content_hash")
            ],
        }
        while True:
            answer = self._ask(
                f"count what {name} holds",
                lambda: self._client.search(
                    index=name,
                    size=0,
                    track_total_hits=False,
                    allow_partial_search_results=False,
                    aggs={"versions": {"composite": versions}},
                ),
            )
            page = answer["aggregations"]["versions"]
            for bucket in page["buckets"]:
                key = bucket["key"]
                counts[key["shard"], key["content_hash"]] = bucket["doc_count"]
            if "after_key" not in page:
                return counts
            versions["after"] = page["after_key"]

    def _verify(
        self,
        target: _Index,
        shards: Mapping[str, ShardContent],
        stale: Collection[str] = (),
    ) -> None:
        """Raise unless the index holds exactly these shards, and `stale` at most."""
        counts = {
            version: n
            for version, n in self._inventory(target.name).items()
            if _version(*version) not in stale
        }
        expected = {(s, content): n for s, (content, n) in shards.items() if n}
        if counts != expected:
            shard, _ = min(counts.items() ^ expected.items())[0]
            have = {content: n for (s, content), n in counts.items() if s == shard}
            raise ElasticsearchError(
                f"after the load, {target.name} at {self.url} holds {have} documents of shard "
                f"{shard!r}, not {shards.get(shard)}: another sync, or somebody, changed it "
                "meanwhile; materialize corpus_index again"
            )

    def _load(
        self,
        target: _Index,
        shards: Mapping[str, ShardContent],
        send: Sequence[str],
        read: Callable[[str], pl.LazyFrame],
        progress: Callable[[str], None],
    ) -> int:
        """Send these shards' documents; how many there were."""
        alias = _write_alias(target.name)

        def batches() -> Iterator[tuple[str, pl.DataFrame]]:
            for shard in send:
                rows = 0
                frame = read(shard).select("doc_id", "text", "text_hash")
                for chunk in frame.collect_batches(chunk_size=self.bulk_size):
                    rows += chunk.height
                    for batch in chunk.iter_slices(self.bulk_size):
                        yield shard, batch
                if rows != shards[shard].n_documents:
                    raise ElasticsearchError(
                        f"shard {shard!r} has {rows} documents, not the "
                        f"{shards[shard].n_documents} it was said to have: was it written again "
                        "meanwhile? Materialize corpus_index again"
                    )

        def index(item: tuple[str, pl.DataFrame], stop: Event) -> int:
            shard, batch = item
            content_hash = shards[shard].content_hash
            version = _version(shard, content_hash)
            actions = []
            for row in batch.iter_rows(named=True):
                key = f"{version}\0{row['doc_id']}".encode(errors="surrogatepass")
                row |= {"shard": shard, "content_hash": content_hash, "version": version}
                actions.append(
                    {
                        "_op_type": "index",
                        "_index": alias,
                        # The same wherever and whenever it is sent, so nothing is there twice.
                        "_id": hashlib.blake2b(key, digest_size=16).hexdigest(),
                        "_source": row,
                    }
                )
            self._bulk(actions, stop)
            return len(actions)

        done, told = 0, time.monotonic()
        total = sum(shards[shard].n_documents for shard in send)
        for n in self._parallel(index, (item for item in batches() if item[1].height)):
            done += n
            if time.monotonic() - told >= 5 or done == total:
                told = time.monotonic()
                progress(f"indexed {done:,} of {total:,} documents")
        return done

    def _remove(self, target: _Index, stale: Mapping[str, int]) -> int:
        """Remove these versions of shards; how many documents that were."""
        alias = _write_alias(target.name)
        removed = 0
        for versions in _batched(sorted(stale), TERMS):
            body = {
                "query": {"bool": {"filter": {"terms": {"version": versions}}}},
                "size": MAX_HITS,
                "source": False,
                "docvalue_fields": ["shard"],
                "track_total_hits": False,
                "sort": ["_doc"],
            }
            while hits := self._search("find removed documents", target.name, body):
                actions = [
                    {
                        "_op_type": "delete",
                        "_index": alias,
                        "_id": hit["_id"],
                        "shard": hit["fields"]["shard"][0],
                    }
                    for hit in hits
                ]
                for _ in self._parallel(self._bulk, _batched(actions, self.bulk_size)):
                    pass
                removed += len(hits)
                self._refresh(target.name)
        return removed

    def _check(
        self,
        index: str | None,
        shards: Mapping[str, ShardContent],
        send: Sequence[str],
        changing: Collection[str],
        read: Callable[[str], pl.LazyFrame],
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
                    hashes = self._twins(index, part_of_it, changing, read)
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
                        {"terms": {"shard": part}} for part in _batched(sorted(changing), MAX_HITS)
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
        while hits := self._search("compare documents", index, body):
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

        for hashes in _batched(twins, 100):
            texts = {
                **terms("text_hash", len(hashes)),
                "aggs": {field: terms(field, LISTED) for field in ("doc_id", "shard")},
            }
            answer = self._ask(
                "list duplicates",
                partial(
                    self._client.search,
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
        index: _Index,
        names: Sequence[str],
        queries: Sequence[str],
        depth: int,
        stop: Event,
    ) -> list[list[tuple[str, str, float]]]:
        """The best documents of each query as (doc_id, text_hash, score), distinct and in order.

        A query is asked again for more hits while copies of a document take up places, or hits
        beyond those returned could tie with the last place.
        """
        ranked: list[list[tuple[str, str, float]]] = [[] for _ in queries]
        todo = list(range(len(queries)))
        size = min(depth + max(2, depth // 10), MAX_HITS)
        while todo:
            again = []
            for part in _batched(todo, max(1, min(self.batch_size, 20 * MAX_HITS // size))):
                bodies = [
                    {
                        "query": _match(queries[i]),
                        "size": size,
                        "docvalue_fields": ["doc_id", "text_hash"],
                        **_bare(),
                    }
                    for i in part
                ]
                answers = self._msearch(index, [names[i] for i in part], bodies, stop)
                for i, hits in zip(part, answers, strict=True):
                    best: dict[str, tuple[str, str, float]] = {}
                    for hit in hits:
                        (doc_id,), (text,) = hit["fields"]["doc_id"], hit["fields"]["text_hash"]
                        best.setdefault(doc_id, (doc_id, text, _score(hit, index)))
                    ordered = sorted(best.values(), key=lambda row: (-_rounded(row[2]), row[0]))
                    ranked[i] = ordered[:depth]
                    if len(hits) == size < MAX_HITS and (
                        len(ordered) < depth
                        or (
                            size < depth + MAX_TIES
                            and _rounded(ordered[-1][2]) == _rounded(ordered[depth - 1][2])
                        )
                    ):
                        again.append(i)
            todo = again
            size = min(4 * size, MAX_HITS)
        return ranked


def _reveal(secret: str | SecretStr) -> str:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _version(shard: str, content_hash: str) -> str:
    return f"{shard}@{content_hash}"


def _write_alias(name: str) -> str:
    return f"{name}-write"


def _similarity(bm25: Bm25) -> dict[str, Any]:
    return {"type": "BM25", "k1": bm25.k1, "b": bm25.b}


def _mappings(analyzer: str) -> dict[str, Any]:
    return {
        "dynamic": "strict",
        "properties": {
            # BM25 needs no positions of terms.
            "text": {"type": "text", "analyzer": analyzer, "index_options": "freqs"},
            **{field: {"type": "keyword"} for field in KEYWORDS},
        },
    }


def _shape(mappings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What has to be equal for two mappings to hold the same documents."""
    fields = mappings.get("properties", {})
    return mappings.get("dynamic"), {name: field.get("type") for name, field in fields.items()}


def _match(query: str) -> dict[str, Any]:
    return {"match": {"text": {"query": query}}}


def _bare() -> dict[str, Any]:
    """What keeps an answer small."""
    return {"_source": False, "track_total_hits": False}


def _score(hit: Mapping[str, Any], index: _Index) -> float:
    """A hit's score in the interface's form; Elasticsearch multiplies by k1 + 1."""
    return float(hit["_score"]) / (index.bm25.k1 + 1)


def _rounded(score: float) -> float:
    return float(f"{score:.4e}")


def _reason(body: object) -> tuple[str, str]:
    """Kind and reason of an error answer, the innermost there is."""
    error = body.get("error") if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "", str(error)[:500]
    for inner in [*error.get("root_cause", []), error.get("caused_by")]:
        if isinstance(inner, Mapping) and inner.get("type"):
            return str(inner["type"]), str(inner.get("reason"))[:500]
    return str(error.get("type", "")), str(error.get("reason"))[:500]


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


def _batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
