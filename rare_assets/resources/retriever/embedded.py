"""The embedded retriever: BM25 in this process over an index on disk, without a server.

Scores are bm25s' (its index format, its summing up); the matrix is filled here, with document
lengths rounded as Lucene rounds them, so that the scores are Elasticsearch's.

What lies in the index folder:

    current.json     names the state that readers open; replaced atomically
    states/<name>/   one whole index, never changed: bm25s' files, `documents.arrow`,
                     `texts/<number>`, `duplicates.arrow`, `state.json`
    shards/<hash>/   one shard's texts and term counts, kept for the next sync
    shards/vocabulary   every term seen, a line each; a term's number is its line, from 0

A sync analyzes the shards that changed, computes the matrix from all term counts and switches. A
reader keeps the state it has opened; its files may be removed meanwhile without harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from rare_assets.resources.retriever.english import english_terms
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

if TYPE_CHECKING:
    import numpy as np
    from filelock import AcquireReturnProxy
    from upath import UPath

    Array = np.ndarray[Any, Any]

ENGINE = "embedded"
ANALYZERS: dict[str, Callable[[str], list[str]]] = {"english": english_terms}
# Above this many passages Elasticsearch is the better engine.
LIMIT = 500_000
LISTED_DUPLICATES = 1_000
# Part of every name on disk: raise it when the files' layout or an analyzer's terms change.
_FORMAT = 1
_UNFINISHED = ".part"
_SPARE_TERMS = 100_000
_DOCUMENTS: dict[str, Any] = {
    "doc_id": pl.String,
    "text_hash": pl.String,
    "length": pl.UInt32,
    "start": pl.Int64,
    "n_bytes": pl.Int64,
}
_DUPLICATES: dict[str, Any] = {
    "text_hash": pl.String,
    "doc_ids": pl.List(pl.String),
    "shards": pl.List(pl.String),
}
_log = logging.getLogger(__name__)


class EmbeddedRetriever:
    """BM25 over an index in a folder, memory-mapped: any number of processes can read it at once.

    Meant for up to 500,000 passages; a larger corpus works, with a warning. A remote folder
    (`s3://...`) holds whole states; they are built and read in a local cache.

    Args:
        path: the index folder or its URL.
        cache: local folder for a remote index. Default: `$XDG_CACHE_HOME/rare_assets`.
    """

    def __init__(self, path: str, *, cache: str | None = None) -> None:
        from upath import UPath

        target = UPath(path)
        self.path = str(target)
        self._remote: UPath | None = None
        self._opened: _Snapshot | None = None
        if target.protocol in ("", "file"):
            self._root = Path(target.path).expanduser().absolute()
        else:
            self._remote = target
            folder = cache or Path(
                os.environ.get("XDG_CACHE_HOME") or "~/.cache", "rare_assets", "index"
            )
            self._root = Path(folder).expanduser() / _short_hash(self.path)

    def __repr__(self) -> str:
        return f"EmbeddedRetriever({self.path!r})"

    def sync(
        self,
        shards: Mapping[str, ShardContent],
        read: Callable[[str], pl.LazyFrame],
        bm25: Bm25,
        progress: Callable[[str], None] = _log.info,
    ) -> SyncReport:
        """Make the index hold exactly `shards`: see the interface.

        A kill at any moment leaves the state before or the state after. A second sync waits for
        the first. A document that stands in several shards with one text is stored once; term
        statistics count every row, as Elasticsearch's do.

        Raises:
            IndexConflict: one doc_id has two texts, or a shard's rows are not what `shards` says.
                Nothing was changed.
            ValueError: there is no such analyzer, or k1 or b is out of range.
        """
        started = time.monotonic()
        _validate(bm25)
        held = {key: content for key, content in sorted(shards.items()) if content.n_documents}
        folders = {
            key: self._shards / _short_hash(f"{_FORMAT}:{bm25.analyzer}:{content.content_hash}")
            for key, content in held.items()
        }
        self._root.mkdir(parents=True, exist_ok=True)
        with self._locked(progress):
            for unfinished in self._shards.glob(f"*{_UNFINISHED}"):
                shutil.rmtree(unfinished)
            if self._remote is not None:
                self._download(self._remote)
            before = None
            with contextlib.suppress(FileNotFoundError):
                before = self._read_state()
            known = before.shards if before else {}
            indexed = [key for key, content in held.items() if known.get(key) != content]
            removed = [key for key in known if key not in held]
            if before is None or indexed or removed or before.state.bm25 != bm25:
                manifest = self._build(held, folders, read, bm25, progress)
            else:
                manifest = before
            self._remove_others(manifest.name, set(folders.values()))
            duplicates = _read_arrow(self._states / manifest.name / "duplicates.arrow")
        self.close()
        state = manifest.state
        if state.n_documents > LIMIT:
            warnings.warn(
                f"{state.n_documents:,} passages in the embedded index, which is meant for up to "
                f"{LIMIT:,}: set ELASTICSEARCH_URL to use Elasticsearch",
                stacklevel=2,
            )
        return SyncReport(
            state=state,
            indexed_shards=indexed,
            removed_shards=removed,
            n_indexed=sum(held[key].n_documents for key in indexed),
            n_removed=sum(
                content.n_documents for key, content in known.items() if held.get(key) != content
            ),
            n_duplicates=manifest.n_duplicates,
            duplicates=duplicates,
            seconds=time.monotonic() - started,
        )

    def state(self) -> IndexState:
        """What the index holds now; later searches see this state. Raises IndexMissing."""
        self.close()
        return self._snapshot().state

    def search(self, queries: pl.DataFrame, *, depth: int) -> pl.DataFrame:
        """Rank the corpus for each query: QUERIES in, HITS out; see the interface.

        Raises:
            IndexMissing: there is no index yet.
            ValueError: `depth` is less than 1.
        """
        import numpy as np

        if depth < 1:
            raise ValueError(f"depth is {depth}: it must be at least 1")
        snapshot = self._snapshot()
        found = [_best(snapshot.scores(query), depth) for query in queries["query"]]
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
        """Score one document for each query: PAIRS in, SCORES out; see the interface.

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
        """TEXTS of the given documents, in any order; documents the index lacks are absent.

        Raises:
            IndexMissing: there is no index yet.
        """
        snapshot = self._snapshot()
        wanted = pl.DataFrame({"doc_id": list(doc_ids)}, schema={"doc_id": pl.String})
        documents = snapshot.documents.join(wanted, on="doc_id", how="semi")
        return pl.DataFrame(
            {"doc_id": documents["doc_id"], "text": snapshot.texts(documents)}, schema=TEXTS
        )

    def close(self) -> None:
        """Let go of the opened state; the next search opens the current one."""
        self._opened = None

    @property
    def _states(self) -> Path:
        return self._root / "states"

    @property
    def _shards(self) -> Path:
        return self._root / "shards"

    @property
    def _pointer(self) -> Path:
        return self._root / "current.json"

    def _locked(self, progress: Callable[[str], None]) -> AcquireReturnProxy:
        """The index folder's writer lock, which the system frees when its holder dies."""
        from filelock import FileLock, Timeout

        lock = FileLock(self._root / "sync.lock")
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            progress(f"another sync of {self.path} is at work; waiting for it")
            return lock.acquire()

    def _snapshot(self) -> _Snapshot:
        """The opened state, or else the current one."""
        if self._opened is None:
            if self._remote is not None:
                self._root.mkdir(parents=True, exist_ok=True)
                with self._locked(_log.info):
                    self._download(self._remote)
            self._opened = self._open()
        return self._opened

    def _open(self) -> _Snapshot:
        # A sync may remove the state between reading its name and opening its files.
        for _ in range(100):
            try:
                manifest = self._read_state()
                if manifest is None:
                    break
                return _Snapshot(self._states / manifest.name, manifest.state)
            except FileNotFoundError:
                time.sleep(0.02)
        raise IndexMissing(f"there is no index in {self.path}: materialize corpus_index")

    def _read_state(self) -> _Manifest | None:
        """The current state's manifest, None if there is none that this version can read."""
        try:
            name = _pointed_to(self._pointer.read_text())
        except FileNotFoundError:
            return None
        return _Manifest.read(self._states / name) if name else None

    def _switch(self, name: str) -> None:
        """Make a state the current one; needs the lock."""
        pointer = self._pointer.with_suffix(_UNFINISHED)
        pointer.write_text(_pointing_to(name))
        os.replace(pointer, self._pointer)

    def _remove_others(self, name: str | None, used: Collection[Path] | None = None) -> None:
        """Remove all states but this one and all shards but the used; needs the lock.

        A folder is renamed first, so that no reader opens half of it.
        """
        left = [folder for folder in self._states.glob("*") if folder.name != name]
        if used is not None:
            left += [
                folder
                for folder in self._shards.glob("*")
                if folder.is_dir() and folder not in used
            ]
        for folder in left:
            unfinished = folder.with_name(folder.name.removesuffix(_UNFINISHED) + _UNFINISHED)
            with contextlib.suppress(OSError):
                os.rename(folder, unfinished)
            shutil.rmtree(unfinished, ignore_errors=True)

    def _build(
        self,
        held: Mapping[str, ShardContent],
        folders: Mapping[str, Path],
        read: Callable[[str], pl.LazyFrame],
        bm25: Bm25,
        progress: Callable[[str], None],
    ) -> _Manifest:
        """Write the state that holds these shards, analyzed into `folders`, and switch to it."""
        analyze = ANALYZERS[bm25.analyzer]
        vocabulary = _read_vocabulary(self._shards)
        missing = {folders[key]: key for key in held if not folders[key].exists()}
        for done, (folder, key) in enumerate(missing.items(), 1):
            frame = read(key).select("doc_id", "text_hash", "text").collect()
            if len(frame) != held[key].n_documents:
                raise IndexConflict(
                    f"shard {key!r} has {len(frame)} rows, not {held[key].n_documents}: it changed "
                    "while the index was syncing. Materialize corpus_index again"
                )
            _write_shard(folder, frame, analyze, vocabulary)
            progress(f"analyzed shard {key!r}, {done} of {len(missing)}")

        progress(f"building the index of {len(held)} shards")
        parts = [_Shard.open(folder) for folder in folders.values()]
        documents = pl.concat(
            [
                pl.DataFrame(schema={"shard": pl.String, "file": pl.Int32, **_DOCUMENTS}),
                *(
                    part.documents.select(
                        pl.lit(key).alias("shard"), pl.lit(file).alias("file"), *_DOCUMENTS
                    )
                    for file, (key, part) in enumerate(zip(folders, parts, strict=True))
                ),
            ]
        )
        rows = _order(documents, read)
        duplicates = _duplicates(documents)

        shown = {key: content.content_hash for key, content in held.items()}
        state = IndexState(ENGINE, bm25, shown, len(rows))
        name = f"{state.fingerprint}-{uuid.uuid4().hex[:8]}"
        folder = self._states / (name + _UNFINISHED)
        (folder / "texts").mkdir(parents=True)
        n_terms = _write_matrix(folder, parts, rows, bm25, vocabulary)
        documents[rows].drop("shard", "length").write_ipc(folder / "documents.arrow")
        for number, source in enumerate(folders.values()):
            _link(source / "texts", folder / "texts" / f"{number:06}")
        duplicates.head(LISTED_DUPLICATES).write_ipc(folder / "duplicates.arrow")
        files = sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
        manifest = _Manifest(name, state, dict(held), len(duplicates), files)
        manifest.write(folder)
        os.rename(folder, self._states / name)
        if self._remote is not None:
            self._upload(self._remote, manifest)
        self._switch(name)
        if len(vocabulary) > 2 * n_terms + _SPARE_TERMS:
            # Mostly terms of documents that are gone: the next change analyzes everything anew.
            (self._shards / "vocabulary").unlink()
        return manifest

    def _upload(self, remote: UPath, manifest: _Manifest) -> None:
        """Put a state to the remote folder, make it the current one, remove the one before."""
        before = _remote_pointer(remote)
        folder = remote / "states" / manifest.name
        for file in [*manifest.files, "state.json"]:
            target = folder / file
            target.fs.put_file(str(self._states / manifest.name / file), target.path)
        (remote / "current.json").write_text(_pointing_to(manifest.name))
        if before and before != manifest.name:
            old = remote / "states" / before
            old.fs.rm(old.path, recursive=True)

    def _download(self, remote: UPath) -> None:
        """Make the remote folder's current state the local one; needs the lock."""
        name = _remote_pointer(remote)
        for _ in range(10):
            if name is None:
                self._pointer.unlink(missing_ok=True)
                return
            try:
                if not (self._states / name).exists():
                    self._copy(remote, name)
                break
            except FileNotFoundError:
                # A sync elsewhere has replaced this state while it was being copied.
                before, name = name, _remote_pointer(remote)
                if name == before:
                    raise
        if name:
            self._switch(name)
        self._remove_others(name)

    def _copy(self, remote: UPath, name: str) -> None:
        folder = remote / "states" / name
        part = self._states / (name + _UNFINISHED)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "state.json").write_bytes((folder / "state.json").read_bytes())
        for file in _Manifest.read(part).files:
            (part / file).parent.mkdir(exist_ok=True)
            source = folder / file
            source.fs.get_file(source.path, str(part / file))
        os.rename(part, self._states / name)


class _Manifest(NamedTuple):
    """What `state.json` says of a state; `files` are those beside it."""

    name: str
    state: IndexState
    shards: dict[str, ShardContent]
    n_duplicates: int
    files: list[str]

    def write(self, folder: Path) -> None:
        content = {
            "bm25": self.state.bm25._asdict(),
            "n_documents": self.state.n_documents,
            "n_duplicates": self.n_duplicates,
            "shards": self.shards,
            "files": self.files,
        }
        (folder / "state.json").write_text(json.dumps(content))

    @classmethod
    def read(cls, folder: Path) -> _Manifest:
        content = json.loads((folder / "state.json").read_text())
        shards = {key: ShardContent(*of) for key, of in content["shards"].items()}
        state = IndexState(
            ENGINE,
            Bm25(**content["bm25"]),
            {key: of.content_hash for key, of in shards.items()},
            content["n_documents"],
        )
        return cls(folder.name, state, shards, content["n_duplicates"], content["files"])


class _Shard(NamedTuple):
    """One analyzed shard; its texts lie beside, one after the other, in the file `texts`.

    `documents`: doc_id, text_hash, number of terms (`length`), where the text lies (`start`,
    `n_bytes`). `terms`: its terms' numbers, ascending, each in `frequencies` documents. `rows` and
    `counts`: for each of the terms in turn, the documents it is in and how often.
    """

    documents: pl.DataFrame
    terms: Array
    frequencies: Array
    rows: Array
    counts: Array

    @classmethod
    def open(cls, folder: Path) -> _Shard:
        import numpy as np

        return cls(
            _read_arrow(folder / "documents.arrow"),
            *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in cls._fields[1:]),
        )


def _read_arrow(file: Path) -> pl.DataFrame:
    # read_ipc would take a bracket in the path for a pattern.
    return pl.scan_ipc(file, glob=False).collect()


class _Snapshot:
    """A state opened for reading. Documents are numbered in the order of their ids.

    The matrix and the texts are memory-mapped, ids and hashes are in memory.
    """

    def __init__(self, folder: Path, state: IndexState) -> None:
        import bm25s
        import numpy as np

        self.state = state
        self.documents = _read_arrow(folder / "documents.arrow")
        self._texts = [
            np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
            for file in sorted((folder / "texts").iterdir())
        ]
        self._analyze = ANALYZERS[state.bm25.analyzer]
        self._bm25 = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        # Plain views of the mapped files: slices of a memmap cost more than the sums they feed.
        for name in ("data", "indices", "indptr"):
            self._bm25.scores[name] = np.asarray(self._bm25.scores[name])

    @cached_property
    def numbers(self) -> pl.DataFrame:
        """`doc_id` -> `number`."""
        return self.documents.select("doc_id").with_row_index("number")

    def texts(self, documents: pl.DataFrame) -> list[str]:
        """Texts of rows of `documents`."""
        places = documents.select("file", "start", "n_bytes").iter_rows()
        return [
            self._texts[file][start : start + n_bytes].tobytes().decode()
            for file, start, n_bytes in places
        ]

    def scores(self, query: str) -> Array:
        """Score of every document by number, float32 of shape (documents,)."""
        import numpy as np

        terms = self._bm25.get_tokens_ids(self._analyze(query))
        if not terms:
            return np.zeros(len(self.documents), np.float32)
        scores: Array = self._bm25.get_scores_from_ids(terms)
        return scores


def lucene_length(lengths: Array) -> Array:
    """Document lengths as Lucene keeps them, in one byte: exact to 40, above it rounded down to
    four significant bits over 24 (`SmallFloat.intToByte4`).
    """
    import numpy as np

    above = np.maximum(lengths.astype(np.int64) - 24, 0)
    lost_bits = np.maximum(np.frexp(above)[1].astype(np.int64) - 4, 0)
    return np.where(lengths < 24, lengths, 24 + (above >> lost_bits << lost_bits))


def _best(scores: Array, depth: int) -> tuple[Array, Array]:
    """Numbers and scores of the best documents: by score to 5 significant digits, then number."""
    import numpy as np

    # The depth-th best of the maxima of groups of documents bounds the depth-th score from below.
    group = 64
    n_groups = len(scores) // group
    bound = np.float32(0)
    if n_groups > depth:
        maxima = scores[: n_groups * group].reshape(group, n_groups).max(axis=0)
        bound = np.partition(maxima, n_groups - depth)[n_groups - depth]
    # Scores equal to 5 digits differ by no more than one in 10,000.
    numbers = np.flatnonzero(scores >= bound * np.float32(0.9998) if bound > 0 else scores > 0)
    found = scores[numbers].astype(np.float64)
    rounded = pl.Series(found).round_sig_figs(5).to_numpy()
    order = np.lexsort((numbers, -rounded))[:depth]
    return numbers[order], found[order]


def _validate(bm25: Bm25) -> None:
    if bm25.analyzer not in ANALYZERS:
        raise ValueError(
            f"analyzer is {bm25.analyzer!r}: the embedded index knows {sorted(ANALYZERS)}"
        )
    if not (bm25.k1 >= 0 and 0 <= bm25.b <= 1):
        raise ValueError(f"k1={bm25.k1}, b={bm25.b}: k1 must be at least 0, b within 0 and 1")


def _write_shard(
    folder: Path,
    frame: pl.DataFrame,
    analyze: Callable[[str], list[str]],
    vocabulary: dict[str, int],
) -> None:
    """Analyze a shard's documents and keep the outcome, whole or not at all.

    New terms get the next numbers, in `vocabulary` and in its file beside the folder.
    """
    import numpy as np

    known = len(vocabulary)
    terms = [analyze(text) for text in frame["text"]]
    lengths = np.fromiter(map(len, terms), np.uint32, len(terms))
    numbers = np.fromiter(
        (vocabulary.setdefault(term, len(vocabulary)) for of in terms for term in of),
        np.int64,
        lengths.sum(),
    )
    row_of_number = np.repeat(np.arange(len(terms)), lengths)
    pairs, counts = np.unique(numbers << 32 | row_of_number, return_counts=True)
    own_terms, frequencies = np.unique(pairs >> 32, return_counts=True)
    texts = [text.encode() for text in frame["text"]]
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    shard = _Shard(
        documents=pl.DataFrame(
            {
                "doc_id": frame["doc_id"],
                "text_hash": frame["text_hash"],
                "length": lengths,
                "start": np.cumsum(sizes) - sizes,
                "n_bytes": sizes,
            },
            schema=_DOCUMENTS,
        ),
        terms=own_terms.astype(np.int32),
        frequencies=frequencies.astype(np.int32),
        rows=(pairs & 0xFFFFFFFF).astype(np.int32),
        counts=counts.astype(np.int32),
    )

    unfinished = folder.with_name(folder.name + _UNFINISHED)
    unfinished.mkdir(parents=True)
    shard.documents.write_ipc(unfinished / "documents.arrow")
    for name in _Shard._fields[1:]:
        np.save(unfinished / f"{name}.npy", getattr(shard, name))
    with (unfinished / "texts").open("wb") as file:
        file.writelines(texts)
    with (folder.parent / "vocabulary").open("ab") as file:
        file.writelines(f"{term}\n".encode() for term in itertools.islice(vocabulary, known, None))
    os.rename(unfinished, folder)


def _read_vocabulary(folder: Path) -> dict[str, int]:
    """Term -> number, from the vocabulary beside the analyzed shards in `folder`.

    Without one the shards' numbers mean nothing, and they are removed.
    """
    try:
        content = (folder / "vocabulary").read_bytes()
    except FileNotFoundError:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        content = b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        # A kill cut the last line short; no shard was finished after it.
        os.truncate(folder / "vocabulary", len(whole))
    return {term: number for number, term in enumerate(whole.decode().split("\n")[:-1])}


def _order(documents: pl.DataFrame, read: Callable[[str], pl.LazyFrame]) -> Array:
    """Rows of the documents in the order of their ids, one for each id.

    Raises:
        IndexConflict: an id stands for two texts.
    """
    order = documents["doc_id"].arg_sort()
    if documents["doc_id"].n_unique() == len(documents):
        return order.to_numpy()
    same_id = documents[order].with_columns(row=order)
    conflict = same_id.filter(pl.col("text_hash").n_unique().over("doc_id") > 1)
    if len(conflict):
        doc_id = conflict["doc_id"][0]
        places = []
        for shard in conflict.filter(doc_id=doc_id)["shard"].unique(maintain_order=True):
            rows = read(shard).filter(pl.col("doc_id") == doc_id).collect()
            sources = rows["source"].to_list() if "source" in rows.columns else []
            places.append(f"shard {shard!r}" + "".join(f" ({source})" for source in sources))
        raise IndexConflict(
            f"doc_id {doc_id!r} has two texts, in {' and '.join(places)}: give each text an id of "
            "its own, or remove one. Nothing was indexed"
        )
    return same_id.unique("doc_id", keep="first", maintain_order=True)["row"].to_numpy()


def _duplicates(documents: pl.DataFrame) -> pl.DataFrame:
    """Texts that stand under several ids or in several shards, with both, in order."""
    if documents["text_hash"].n_unique() == len(documents):
        return pl.DataFrame(schema=_DUPLICATES)
    return (
        documents.filter(pl.col("text_hash").is_duplicated())
        .group_by("text_hash")
        .agg(
            doc_ids=pl.col("doc_id").unique().sort(),
            shards=pl.col("shard").unique().sort(),
        )
        .filter((pl.col("doc_ids").list.len() > 1) | (pl.col("shards").list.len() > 1))
        .sort("text_hash")
    )


def _write_matrix(
    folder: Path, parts: list[_Shard], rows: Array, bm25: Bm25, vocabulary: dict[str, int]
) -> int:
    """Score every term in every document and save the matrix in bm25s' format.

    Returns the number of terms that are in a document.
    """
    import bm25s
    import numpy as np

    n_rows = sum(len(part.documents) for part in parts)
    numbers = np.full(n_rows, -1, np.int32)
    numbers[rows] = np.arange(len(rows), dtype=np.int32)
    lengths = np.concatenate(
        [np.empty(0), *(part.documents["length"].to_numpy() for part in parts)]
    )
    # Lucene counts only documents that have a term.
    n_documents = np.count_nonzero(lengths)
    norms = bm25.k1 * (
        1 - bm25.b + bm25.b * lucene_length(lengths) * n_documents / max(lengths.sum(), 1)
    )

    frequencies = np.zeros(len(vocabulary), np.int64)
    for part in parts:
        frequencies[part.terms] += part.frequencies
    idf = np.log1p((n_documents - frequencies + 0.5) / (frequencies + 0.5))

    # Each shard's counts go where its documents' place in each term's list is; no sort is needed.
    indptr = np.concatenate([[0], np.cumsum(frequencies)])
    next_place = indptr[:-1].copy()
    data = np.empty(indptr[-1], np.float32)
    indices = np.empty(indptr[-1], np.int32)
    first_row = 0
    for part in parts:
        shift = next_place[part.terms] - (np.cumsum(part.frequencies) - part.frequencies)
        place = np.repeat(shift, part.frequencies) + np.arange(len(part.counts))
        next_place[part.terms] += part.frequencies
        row = part.rows + first_row
        data[place] = (
            np.repeat(idf[part.terms], part.frequencies) * part.counts / (part.counts + norms[row])
        )
        indices[place] = numbers[row]
        first_row += len(part.documents)

    if len(rows) < n_rows:
        # The copies of a document have counted in `idf`; it is one hit all the same.
        kept = indices >= 0
        data, indices = data[kept], indices[kept]
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr]
    matrix = bm25s.BM25(k1=bm25.k1, b=bm25.b, method="lucene", dtype="float32", int_dtype="int32")
    matrix.scores = {"data": data, "indices": indices, "indptr": indptr, "num_docs": len(rows)}
    matrix.vocab_dict = vocabulary
    matrix.nonoccurrence_array = None
    matrix.save(folder, show_progress=False)
    return int(np.count_nonzero(frequencies))


def _link(source: Path, target: Path) -> None:
    """The same file in a second place; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _pointing_to(name: str) -> str:
    return json.dumps({"format": _FORMAT, "state": name})


def _pointed_to(pointer: str) -> str | None:
    """Name of the current state, None if another version wrote it."""
    content = json.loads(pointer)
    return str(content["state"]) if content["format"] == _FORMAT else None


def _remote_pointer(remote: UPath) -> str | None:
    try:
        return _pointed_to((remote / "current.json").read_text())
    except FileNotFoundError:
        return None
