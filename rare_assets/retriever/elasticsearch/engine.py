"""BM25 by an Elasticsearch server: an index behind an alias, kept in step with the shards.

The alias is the only name that readers know. It points to one concrete index `<alias>-<suffix>`,
marked in its mapping's `_meta` as made here; any other index of the alias' name is left alone.
Each document carries the version of the shard that it came from (shard and content hash), so what an
index holds is read from the index itself and no record of it can be wrong.

A sync may be killed after any request, while readers search and other syncs run, because of the order of
its steps:

1. Claim: from here on a sync that wants other shards fails at its next change, and readers do not see the
   versions of shards that are about to be sent.
2. Check: one id for each text, before a document is written.
3. Load: send what is missing, and count what is there.
4. Show: the alias lets readers see the new versions and hides the old ones, in one request.
5. Clear: remove the old versions, which nobody sees any more.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import polars as pl
from pydantic import SecretStr

from rare_assets.retriever.elasticsearch.bulk import Refusal
from rare_assets.retriever.elasticsearch.comparison import Comparison
from rare_assets.retriever.elasticsearch.connection import Connection
from rare_assets.retriever.elasticsearch.documents import LEFT_OUT, TEXTLESS, Documents
from rare_assets.retriever.elasticsearch.errors import ElasticsearchError
from rare_assets.retriever.elasticsearch.index import Alias, ConcreteIndex
from rare_assets.retriever.elasticsearch.searches import Searches
from rare_assets.retriever.elasticsearch.versions import (
    Changes,
    changes,
    of_versions,
    purpose_of,
    version_name,
)
from rare_assets.retriever.interface import (
    REJECTS,
    Bm25,
    IndexState,
    ShardContent,
    SyncReport,
)

_log = logging.getLogger(__name__)


class ElasticsearchRetriever:
    """A `Retriever` on one or more Elasticsearch nodes, of version 9 or serverless.

    Scores are Lucene's BM25 as `Retriever` defines it; Elasticsearch's own are `k1 + 1` times as high. With
    several primary shards, terms are counted over all of them before ranking, so that results do not depend
    on their number.

    A reader sees the documents as they were before a sync, until the alias switches to those after it, in one
    step. `sync` returns after the switch. What readers don't see any more is then removed in the background,
    by the time that `settle` or `close` returns, or else by the next sync.

    Term statistics, and so scores, by a little, count hidden documents meanwhile. They also count removed
    documents until Lucene merges them away: a server keeps them for half a minute at least, and each sync has
    those of earlier syncs merged away where they are more than a tenth of a segment.

    Two syncs at the same time that want the same shards do no harm. Of two that want different shards, the
    later takes over the index, and the next change of the earlier one fails without effect.

    If the server refuses a document while it takes others, since it is too large, say, the document is left
    out: all but its text is stored, so that the shard is whole and no search finds the document.

    Needs the privilege `manage` on `<index>*`.

    Args:
        url: of a node, or of several with commas between them (a node that is down is left out); or the
            cloud id of a hosted deployment.
        index: name of the alias.
        api_key: for the server; in place of `username` and `password`.
        username, password: for the server.
        ca_certs: CA file that the server's certificate is checked with. Default: the system's.
        request_timeout: seconds until a request counts as lost.
        wait_seconds: for how long a request is repeated while the server can't answer.
        first_wait_seconds: for how long to wait for a server that this process has never reached. Default:
            `wait_seconds`.
        number_of_shards: primary shards of a new index; if the index has another number, a new one is
            loaded.
        bulk_size: documents sent in one request.
        batch_size: queries sent in one request.
        threads: requests in flight.

    Raises:
        ElasticsearchSettingError: the options contradict each other or are no address.
        ElasticsearchError: raised by every method if the server refuses a request or can't be reached.

    Example:
        with contextlib.closing(ElasticsearchRetriever("http://localhost:9200", "an-index")) as retriever:
            retriever.sync(shards, read, Bm25())
            hits = retriever.search(queries, depth=10)
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
        self._documents = Documents(self._connection, self._alias, bulk_size)
        self._searches = Searches(self._connection, self._alias, index, batch_size)
        self._comparison = Comparison(self._connection, index)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="elasticsearch-clearing")
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
        """Make the index hold exactly `shards`; see `Retriever.sync`.

        A kill at any moment does no harm: the next sync finds what is missing or left over, and opens the
        index if it was closed to change k1 or b. A shard without documents is not part of the state. The
        report's duplicates are texts of the shards that this sync indexed, up to 100 ids and shards each.

        Raises:
            IndexConflict: one doc_id has two texts, or stands twice in a shard; a shard has other rows than
                `shards` says; or another index has the alias' name. Readers see what they saw before.
            ElasticsearchError: see the class; also if another sync changed the index meanwhile.
        """
        started = time.monotonic()
        self._settle_or_warn()
        target = self._target(bm25, progress)
        held = self._documents.inventory(target.name)
        change = changes(shards, held)
        # What only reads runs while the claim waits for the server's disk.
        with self._connection.background_worker() as submit:
            kept = target.name if len(shards) > len(change.send) else None
            changing = {*change.send, *change.removed}
            check = partial(self._comparison.check, kept, shards, change.send, changing, read)
            compared = submit(check)
            listed = submit(partial(self._documents.left_out, target.name if held else None))
            if change.send or change.stale or target.hidden or not target.visible:
                target = self._alias.claim(target, purpose_of(change.wanted), change.fresh)
                self._alias.refresh(target.name)
                if self._documents.grown(target.name, held, change.wanted):
                    # Another sync wrote until then: what it left is to be looked at, too.
                    return self.sync(shards, read, bm25, progress)
            twins, n_twins = compared.result()
            left_out = listed.result()
        n_sent, refused = self._load(target, shards, change, read, progress)
        if not target.visible or change.stale or target.hidden or change.fresh:
            self._alias.show(target, change.stale)
        changed = bool(change.send or change.stale)
        self._clearing = self._background.submit(self._clear, target, change.stale, changed)
        duplicates = self._comparison.duplicates(twins)
        rejects, n_rejects = self._rejected(refused, left_out, change.kept(shards))
        return SyncReport(
            state=_state(shards, bm25),
            indexed_shards=change.send,
            removed_shards=change.removed,
            n_indexed=n_sent - len(refused),
            n_removed=sum(n for each, n in held.items() if version_name(*each) in change.stale),
            n_duplicates=n_twins,
            duplicates=duplicates,
            seconds=time.monotonic() - started,
            warnings=_warnings(rejects, n_rejects),
            n_rejects=n_rejects,
            rejects=rejects,
        )

    def _target(self, bm25: Bm25, progress: Callable[[str], None]) -> ConcreteIndex:
        """Return the index to sync, refreshed so that all that was written to it can be counted."""
        target = self._alias.target(bm25)
        if not target.visible:
            progress(f"making {target.name}: no index of this version ranks so yet")
        self._alias.refresh(target.name)
        return target

    def _load(
        self,
        target: ConcreteIndex,
        shards: Mapping[str, ShardContent],
        change: Changes,
        read: Callable[[str], pl.LazyFrame],
        progress: Callable[[str], None],
    ) -> tuple[int, list[Refusal]]:
        """Bring all wanted documents into a claimed index, and make sure that they are there.

        Returns how many documents were sent, and which of them the server refused.
        """
        self._documents.remove(target, change.overfull)
        n_sent, refused = self._documents.load(target, shards, change.send, read, progress)
        if change.send:
            self._alias.refresh(target.name)
            self._documents.verify(target.name, shards, change.send, change.stale)
        if target.restore is not None:
            self._alias.restore(target)
        return n_sent, refused

    def state(self) -> IndexState:
        """Return what a search sees now. Raises IndexMissing."""
        index = self._alias.visible()
        hashes: dict[str, list[str]] = defaultdict(list)
        n_documents = 0
        for (shard, content_hash), n in self._documents.inventory(self.index).items():
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

        Terms are counted over all primary shards; each of them once in this process, until the
        index changes.

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
        """Wait until the documents that the last sync removed are gone from the server, too.

        Raises:
            ElasticsearchError: they could not be removed, and stay hidden until the next sync.
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
            self._background.shutdown(wait=False, cancel_futures=True)

    def _settle_or_warn(self) -> None:
        try:
            self.settle()
        except ElasticsearchError as error:
            _log.warning(
                "Removed documents stay hidden in the index until the next sync: %s", error
            )

    def _rejected(
        self,
        refused: Sequence[Refusal],
        before: Sequence[tuple[str, dict[str, Any]]],
        stays: Collection[str],
    ) -> tuple[pl.DataFrame, int]:
        """Return the REJECTS of this sync and of the versions that stay, and how many there are.

        Args:
            refused: by this sync.
            before: the first documents left out by earlier syncs, each with its version.
            stays: versions that this sync does not send.
        """
        kept_out = [row for version, row in before if version in stays]
        n_rejects = len(refused) + len(kept_out)
        if len(before) == LEFT_OUT:
            n_rejects = self._connection.count(self.index, TEXTLESS)
        return _rejects(refused, kept_out), n_rejects

    def _clear(self, target: ConcreteIndex, stale: Collection[str], changed: bool) -> None:
        """Remove what readers don't see any more: versions of shards, other indexes, deleted documents."""
        if stale:
            self._documents.remove(target, stale)
            if left := self._connection.count(target.name, of_versions(stale)):
                raise self._connection.concurrent_sync_error(
                    f"still holds {left} documents that were removed"
                )
            self._alias.unhide(target)
        if target.visible and changed:
            self._alias.expunge(target)
        self._alias.delete_others(target)


def _state(shards: Mapping[str, ShardContent], bm25: Bm25) -> IndexState:
    """Return what an index holds that holds these shards; one without documents leaves no trace in it."""
    return IndexState(
        engine="elasticsearch",
        bm25=bm25,
        shards={s: content for s, (content, n) in shards.items() if n},
        n_documents=sum(n for _, n in shards.values()),
    )


def _rejects(refused: Sequence[Refusal], before: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return the first 100 REJECTS: those of this sync, then those from before."""
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
