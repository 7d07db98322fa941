"""Rank by BM25 in this process, over an index on disk, without a server.

Scores are those of Elasticsearch: the same terms, document lengths rounded as Lucene rounds them, statistics
over all rows. Each query computes them from postings that hold no statistics, so that a change of one shard
leaves the others' postings as they are.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from rare_assets.files.stored_bytes import StorageError, explained
from rare_assets.retriever.analyzers import refusal
from rare_assets.retriever.embedded.build import build
from rare_assets.retriever.embedded.folder import IndexFolder
from rare_assets.retriever.embedded.search import Snapshot
from rare_assets.retriever.embedded.segment import read_arrow
from rare_assets.retriever.interface import (
    HITS,
    SCORES,
    TEXTS,
    Bm25,
    IndexState,
    NoAnalyzer,
    ShardContent,
    SyncReport,
)

# Above this many passages Elasticsearch is the better engine.
LIMIT = 500_000
_log = logging.getLogger(__name__)


class EmbeddedRetriever:
    """A `Retriever` over an index in a folder, which any number of processes can read at the same time.

    Meant for up to 500,000 passages; a larger corpus works, with a warning. The index is memory-mapped. A
    remote folder (`s3://...`) holds whole states, which are built and read in a local cache.
    `rare_assets.retriever` shows an example.

    Args:
        path: of the index folder, or its URL.
        cache: local folder for a remote index. Default: `index` in RARE_CACHE.
    """

    def __init__(self, path: str, *, cache: str | None = None) -> None:
        self._folder = IndexFolder(path, cache)
        self.path = self._folder.path
        self._opened: Snapshot | None = None

    def __repr__(self) -> str:
        return f"EmbeddedRetriever({self.path!r})"

    def sync(
        self,
        shards: Mapping[str, ShardContent],
        read: Callable[[str], pl.LazyFrame],
        bm25: Bm25,
        progress: Callable[[str], None] = _log.info,
    ) -> SyncReport:
        """Make the index hold exactly `shards`; see `Retriever.sync`.

        A kill at any moment leaves the state before or the state after; the next sync goes on with the
        shards that are analyzed. A second sync waits for the first. A state whose files were changed is
        made again. A document that stands in several shards with one text is one hit; term statistics
        count every row, as Elasticsearch's do.

        Memory holds a batch of texts and of postings and what the analyzer remembers, all bounded. Ids,
        hashes and places grow with the corpus, by some 200 bytes a passage. A shard is read by the row
        groups of its file.

        Raises:
            IndexConflict: one doc_id has two texts, or a shard's rows are not what `shards` says.
                Nothing was changed.
            StorageError: there is no room for it, or its folder can't be read or written.
            NoAnalyzer: this engine lacks the analyzer.
            ValueError: k1 or b is out of range.
        """
        started = time.monotonic()
        _validate(bm25)
        held = {key: content for key, content in sorted(shards.items()) if content.n_documents}
        folder = self._folder
        with folder.locked(progress):
            before = folder.current(progress)
            known = before.shards if before else {}
            indexed = [key for key, content in held.items() if known.get(key) != content]
            removed = [key for key in known if key not in held]
            if before is None or indexed or removed or before.bm25 != bm25:
                with self._writing():
                    manifest = build(folder, before, held, read, bm25, progress)
                    folder.publish(manifest)
            else:
                manifest = before
            folder.sweep(manifest)
            folder.forget_analyzed()
            duplicates = read_arrow(folder.state(manifest.name) / "duplicates.arrow")
        self.close()
        return SyncReport(
            state=manifest.state,
            indexed_shards=indexed,
            removed_shards=removed,
            n_indexed=sum(held[key].n_documents for key in indexed),
            n_removed=sum(
                content.n_documents for key, content in known.items() if held.get(key) != content
            ),
            n_duplicates=manifest.n_duplicates,
            duplicates=duplicates,
            seconds=time.monotonic() - started,
            warnings=_warnings(manifest.n_documents),
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise what keeps the index from being written as StorageError; errors of `read` pass through."""
        try:
            yield
        except OSError as error:
            # One without a number is none of this machine's: it came from `read`.
            if error.errno is None or isinstance(error, FileNotFoundError):
                raise
            raise StorageError(explained(self.path, "write", error)) from error

    def state(self) -> IndexState:
        """Return what the index holds now; later searches see this state.

        Raises:
            IndexMissing: there is no index yet.
            IndexDamaged: its files are not what was written.
            StorageError: they can't be read.
        """
        self.close()
        return self._snapshot().state

    def search(self, queries: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus for each query: QUERIES in, HITS out; see `Retriever.search`.

        Raises:
            IndexMissing: there is no index yet.
            ValueError: `depth` is less than 1.
        """
        return self._ranked(queries, depth, Snapshot.best)

    def search_like(self, texts: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus by what each text is about: QUERIES in, HITS out; see `Retriever.search_like`.

        Raises:
            IndexMissing: there is no index yet.
            ValueError: `depth` is less than 1.
        """
        return self._ranked(texts, depth, Snapshot.best_like)

    def _ranked(
        self, queries: pl.DataFrame, depth: int, best: Callable[[Snapshot, str, int], Any]
    ) -> pl.DataFrame:
        import numpy as np

        if depth < 1:
            raise ValueError(f"depth is {depth}: it must be at least 1")
        snapshot = self._snapshot()
        found = [best(snapshot, query, depth) for query in queries["query"]]
        sizes = [len(numbers) for numbers, _ in found]
        if not sum(sizes):
            return pl.DataFrame(schema=HITS)
        hits = snapshot.documents.select("doc_id", "text_hash")[
            np.concatenate([numbers for numbers, _ in found])
        ]
        return pl.DataFrame(
            {
                "question_id": queries["question_id"].gather(
                    np.repeat(np.arange(len(sizes)), sizes)
                ),
                "rank": np.concatenate([np.arange(1, size + 1) for size in sizes]),
                "doc_id": hits["doc_id"],
                "text_hash": hits["text_hash"],
                "score": np.concatenate([scores for _, scores in found]),
            },
            schema=HITS,
        )

    def score(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Score one document for each query: PAIRS in, SCORES out; see `Retriever.score`.

        Pairs of one query that follow each other are scored together.

        Raises:
            IndexMissing: there is no index yet.
        """
        snapshot = self._snapshot()
        numbers = pairs.select("doc_id").join(
            snapshot.numbers, on="doc_id", how="left", maintain_order="left"
        )["number"]
        scores: list[float | None] = []
        last = None
        for query, number in zip(pairs["query"], numbers, strict=True):
            if number is None:
                scores.append(None)
                continue
            if last is None or last[0] != query:
                last = query, snapshot.scores(query)
            scores.append(float(last[1][number]))
        return pl.DataFrame(
            {"question_id": pairs["question_id"], "doc_id": pairs["doc_id"], "score": scores},
            schema=SCORES,
        )

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        """Return the TEXTS of documents, in any order; those that the index lacks are absent.

        Raises:
            IndexMissing: there is no index yet.
        """
        snapshot = self._snapshot()
        wanted = pl.DataFrame({"doc_id": list(doc_ids)}, schema={"doc_id": pl.String})
        numbers = snapshot.numbers.join(wanted, on="doc_id", how="semi")["number"]
        documents = snapshot.documents[numbers]
        read = snapshot.texts(documents)
        return pl.DataFrame(
            {
                "doc_id": documents["doc_id"],
                "text": [text for _, text in read],
                "title": [title for title, _ in read],
            },
            schema=TEXTS,
        )

    def close(self) -> None:
        """Forget the opened state; the next search opens the current one."""
        self._opened = None

    def _snapshot(self) -> Snapshot:
        """Return the opened state, or else the current one."""
        if self._opened is None:
            self._opened = self._folder.open(
                lambda manifest: Snapshot(self._folder, manifest), _log.info
            )
        return self._opened


def _warnings(n_documents: int) -> tuple[str, ...]:
    if n_documents <= LIMIT:
        return ()
    warning = (
        f"{n_documents:,} passages in the embedded index, which is meant for up to {LIMIT:,}: set "
        "ELASTICSEARCH_URL to use Elasticsearch"
    )
    return (warning,)


def _validate(bm25: Bm25) -> None:
    if refused := refusal(bm25.analyzer):
        raise NoAnalyzer(refused)
    if not (bm25.k1 >= 0 and 0 <= bm25.b <= 1):
        raise ValueError(f"k1={bm25.k1}, b={bm25.b}: k1 must be at least 0, b within 0 and 1")
