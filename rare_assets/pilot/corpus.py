"""The corpus as a pilot sees it: a seeded sample of its documents, and an index over all of them.

What is stored is used where it is current. Elsewhere documents are read from the source and indexed in a
temporary folder, so that a pilot can come first and still finds the negatives that a run will find.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import polars as pl

from rare_assets.corpus.formats import UnreadableFile
from rare_assets.corpus.languages import choose_analyzer, sample_languages
from rare_assets.corpus.scan import known_shards
from rare_assets.corpus.shards import Shard
from rare_assets.corpus.source import CorpusSource
from rare_assets.files.cache import temporary_folder
from rare_assets.operators.read_documents import read_documents
from rare_assets.resources.configurable import FIRST_WAIT, Bm25Retriever
from rare_assets.retriever import (
    Bm25,
    EmbeddedRetriever,
    IndexMissing,
    IndexState,
    NoAnalyzer,
    Retriever,
    ShardContent,
)
from rare_assets.schemas import Documents
from rare_assets.stages.corpus_index import CorpusIndexConfig, shards_to_index
from rare_assets.stages.documents import is_current
from rare_assets.storage.tables import ParquetTables


class PilotError(Exception):
    """A pilot can't be made; the message says why, and what to do."""


class Sample(NamedTuple):
    """Documents that a pilot asks about (`schemas.Documents`), and all passages of their parents, themselves
    among them (`doc_id, parent_id, title, text`), which are looked at when negatives are mined."""

    documents: pl.DataFrame
    families: pl.DataFrame


class PilotCorpus:
    """All documents of the source, and BM25 over them. A context manager.

    Args:
        source: the files.
        tables: the storage, from which what is current is taken. Nothing is written to it.
        retriever: its index is searched where it holds exactly the documents of the source.
        say: told in a sentence what takes long, or is left out.
    """

    def __init__(
        self,
        source: CorpusSource,
        tables: ParquetTables,
        retriever: Bm25Retriever,
        say: Callable[[str], None],
    ) -> None:
        self._source = source
        self._stored = tables
        self._retriever = retriever
        self._say = say
        self._shards: list[Shard] = []
        self._working: ParquetTables | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._indexes: dict[str, Path] = {}

    def __enter__(self) -> PilotCorpus:
        """List the source.

        Raises:
            SourceError: it can't be listed.
        """
        self._shards = self._source.shards(known_shards(self._stored))
        self._folder = TemporaryDirectory(prefix="rare-pilot-", dir=temporary_folder())
        if not all(is_current(self._stored, shard) for shard in self._shards):
            self._working = self._read_all()
        return self

    def __exit__(self, *error: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def tables(self) -> ParquetTables:
        """Where the documents are read from."""
        return self._working or self._stored

    @property
    def n_shards(self) -> int:
        """Shards of the source."""
        return len(self._shards)

    @property
    def n_documents(self) -> int:
        """Documents of the whole corpus."""
        return sum(content.n_documents for content in self._contents().values())

    def sample(self, n: int, seed: int) -> Sample:
        """Return `n` documents, or all if there are fewer, in a shuffled order.

        The same seed takes the same documents however they lie in shards, and most of them again when
        the corpus has grown.

        Raises:
            PilotError: there is no document.
        """
        chosen: dict[str, tuple[int, str]] = {}
        for shard in self._contents():
            ids = self.tables.scan("documents", shard).select("doc_id").collect()["doc_id"]
            drawn = ((_drawn(seed, doc_id), doc_id, shard) for doc_id in ids)
            best = heapq.nsmallest(
                n, [*drawn, *((order, doc_id, its) for doc_id, (order, its) in chosen.items())]
            )
            chosen = {doc_id: (order, its) for order, doc_id, its in best}
        if not chosen:
            raise PilotError(
                f"{self._source.url} holds no document that can be used. Look at its files, or set "
                "RARE_SOURCE to another folder or URL."
            )
        frames, families = [], []
        for shard in sorted({its for _, its in chosen.values()}):
            wanted = [doc_id for doc_id, (_, its) in chosen.items() if its == shard]
            stored = self.tables.load("documents", shard)
            rows = stored.filter(pl.col("doc_id").is_in(wanted)).collect()
            frames.append(Documents.cast(rows))
            # Passages of one parent stand in one shard.
            of_parents = stored.filter(pl.col("parent_id").is_in(rows["parent_id"].to_list()))
            families.append(of_parents.select("doc_id", "parent_id", "title", "text").collect())
        order = {doc_id: place for place, doc_id in enumerate(chosen)}
        documents = pl.concat(frames)
        place = documents["doc_id"].replace_strict(order, return_dtype=pl.Int64)
        return Sample(documents.sort(place), pl.concat(families))

    def searching(
        self, options: CorpusIndexConfig
    ) -> AbstractContextManager[tuple[Retriever, IndexState]]:
        """Open an index over the whole corpus that ranks by the options, and say what it holds.

        Raises:
            PilotError: the embedded engine lacks the analyzer, and the stored index is not current.
        """
        bm25 = self._bm25(options)
        if self._stored_index_is(bm25):
            return self._open_stored()
        engine = self._indexed(bm25)
        return nullcontext((engine, engine.state()))

    def _contents(self) -> dict[str, ShardContent]:
        found = {}
        for shard in self._shards:
            stored = self.tables.provenance("documents", shard.key)
            if stored is not None:
                found[shard.key] = ShardContent(stored.content_hash, stored.n_rows)
        return found

    def _read_all(self) -> ParquetTables:
        """Put the documents of every shard into a temporary folder."""
        working = self._temporary_tables()
        rows = sum(shard.n_rows for shard in self._shards)
        self._say(f"reading {rows:,} rows of the source, whose documents are not all stored yet")
        for shard in self._shards:
            if is_current(self._stored, shard):
                working.write("documents", shard.key, self._stored.load("documents", shard.key))
                continue
            try:
                read = read_documents(
                    self._source.read(shard),
                    file=shard.file,
                    columns=self._source.columns,
                    cutting=self._source.cutting,
                )
            except UnreadableFile as error:
                self._say(f"{shard.file} is left out: {error}")
                continue
            working.write("documents", shard.key, read.rows)
        return working

    def _temporary_tables(self) -> ParquetTables:
        assert self._folder is not None, "a context manager"
        return ParquetTables(str(Path(self._folder.name) / "tables"))

    def _bm25(self, options: CorpusIndexConfig) -> Bm25:
        analyzer = options.settled_analyzer(self._stored, self._retriever.engine)
        if analyzer is None:
            texts = sample_languages(self.tables, self._contents())
            embedded = self._retriever.engine == "embedded"
            analyzer, warning = choose_analyzer(texts, embedded=embedded)
            if warning:
                self._say(warning)
        return Bm25(options.k1, options.b, analyzer)

    def _stored_index_is(self, bm25: Bm25) -> bool:
        """Return True if the stored index holds what a sync would make it hold now."""
        try:
            with self._retriever.open(first_wait=FIRST_WAIT) as engine:
                state = engine.state()
        except IndexMissing:
            return False
        wanted = {shard: content.content_hash for shard, content in self._contents().items()}
        return state.bm25 == bm25 and dict(state.shards) == wanted

    @contextmanager
    def _open_stored(self) -> Iterator[tuple[Retriever, IndexState]]:
        with self._retriever.open(first_wait=FIRST_WAIT) as engine:
            yield engine, engine.state()

    def _indexed(self, bm25: Bm25) -> EmbeddedRetriever:
        """Open the index of a temporary folder, made at first use."""
        assert self._folder is not None, "a context manager"
        if bm25.fingerprint in self._indexes:
            return EmbeddedRetriever(str(self._indexes[bm25.fingerprint]))
        if self._working is None:
            # What is shared between shards is noted beside the tables: not in the storage.
            self._working = self._copied()
        contents = shards_to_index(self._working, [s.key for s in self._shards], {}).contents
        self._say(f"indexing {self.n_documents:,} documents in a temporary folder")
        path = Path(self._folder.name) / f"index-{len(self._indexes)}"
        engine = EmbeddedRetriever(str(path))
        working = self._working
        try:
            engine.sync(
                contents,
                lru_cache(len(contents) or 1)(lambda shard: working.load("documents", shard)),
                bm25,
                lambda _: None,
            )
        except NoAnalyzer as error:
            raise PilotError(
                f"{error} The index on Elasticsearch is not current, and a pilot makes none there: "
                "materialize documents and corpus_index (documents_job and corpus_index_job in the UI, "
                "both free), then start the pilot again."
            ) from error
        self._indexes[bm25.fingerprint] = path
        return engine

    def _copied(self) -> ParquetTables:
        working = self._temporary_tables()
        for shard in self._contents():
            working.write("documents", shard, self._stored.load("documents", shard))
        return working


def _drawn(seed: int, doc_id: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{doc_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)
