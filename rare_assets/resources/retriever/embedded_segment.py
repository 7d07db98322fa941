"""Documents of the embedded index: a shard analyzed in batches, segments put together from shards."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from rare_assets.resources.retriever.embedded_folder import FORMAT, UNFINISHED
from rare_assets.resources.retriever.embedded_postings import write_postings
from rare_assets.resources.retriever.english import english_terms
from rare_assets.resources.retriever.interface import ShardContent

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

ANALYZERS: dict[str, Callable[[str], list[str]]] = {"english": english_terms}
# Text analyzed at a time; what comes of it takes some ten times as much memory meanwhile.
_BATCH_BYTES = 2 << 20
_BATCH_ROWS = 256
_COPIED_BYTES = 1 << 20
# `length` counts terms; texts lie one after the other, `n_bytes` each. `part` is the postings' folder
# in an analyzed shard, null where an older segment has them.
DOCUMENTS: dict[str, Any] = {
    "doc_id": pl.String,
    "text_hash": pl.String,
    "length": pl.UInt32,
    "n_bytes": pl.UInt32,
}
_ANALYZED = DOCUMENTS | {"part": pl.Int32}


class Analyzed(NamedTuple):
    """An analyzed shard: its folder, a row a document, and which of the reusable documents stands
    in for each row that has no postings here (-1 for the others)."""

    folder: Path
    documents: pl.DataFrame
    reused: Array

    def postings(self) -> Iterator[tuple[Path, Array]]:
        """Each batch's postings and the rows of the shard that are in them."""
        import numpy as np

        part = self.documents["part"].fill_null(-1).to_numpy()
        for number in range(part.max(initial=-1) + 1):
            yield self.folder / f"{number:06}", np.flatnonzero(part == number)


class Reusable:
    """Documents of older segments that are no longer part of the index, by the hash of their text.

    A document of the same text can have their postings: each once.
    """

    def __init__(self, gone: pl.DataFrame) -> None:
        """`gone`: text_hash, length, segment, row."""
        import numpy as np

        gone = gone.unique("text_hash", keep="first", maintain_order=True)
        self._positions = gone.select("text_hash").with_row_index("position")
        self.lengths = gone["length"].to_numpy()
        self.segments = gone["segment"].to_numpy()
        self.rows = gone["row"].to_numpy()
        self._free = np.ones(len(gone), bool)

    def claim(self, text_hashes: pl.Series) -> Array:
        """A position among the reusable for each text, -1 where there is none left."""
        import numpy as np

        if not self._free.any():
            return np.full(len(text_hashes), -1)
        asked = pl.DataFrame({"text_hash": text_hashes, "first": text_hashes.is_first_distinct()})
        found = asked.join(self._positions, on="text_hash", how="left", maintain_order="left")
        positions = found["position"].cast(pl.Int64).fill_null(-1).to_numpy()
        usable = found["first"].to_numpy() & (positions >= 0) & self._free[positions]
        self._free[positions[usable]] = False
        return np.where(usable, positions, -1)

    def release(self, claimed: Array) -> None:
        """Give claimed positions back."""
        self._free[claimed[claimed >= 0]] = True


def analyzed_name(analyzer: str, key: str, content: ShardContent) -> str:
    """Folder name of an analyzed shard, another for whatever could change what is in it."""
    named = f"{FORMAT}:{analyzer}:{content.content_hash}:{key}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def read_analyzed(folder: Path, reusable: Reusable) -> Analyzed | None:
    """The shard that an earlier sync analyzed; None if there is none or what it reused is gone."""
    import numpy as np

    try:
        documents = read_arrow(folder / "documents.arrow")
    except FileNotFoundError:
        return None
    without = documents["part"].is_null()
    claimed = reusable.claim(documents.filter(without)["text_hash"])
    if (claimed < 0).any():
        reusable.release(claimed)
        return None
    reused = np.full(len(documents), -1)
    reused[without.to_numpy()] = claimed
    return Analyzed(folder, documents, reused)


def analyze_shard(
    folder: Path, rows: pl.LazyFrame, analyze: Callable[[str], list[str]], reusable: Reusable
) -> Analyzed:
    """Analyze a shard's documents and keep the outcome, whole or not at all.

    Only texts that are not among the reusable are analyzed.
    """
    import numpy as np

    unfinished = folder.with_name(folder.name + UNFINISHED)
    for left in (folder, unfinished):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    batches: list[pl.DataFrame] = []
    reused: list[Array] = [np.empty(0, np.int64)]
    n_parts = 0
    with (unfinished / "texts").open("wb") as file:
        for batch in _batches(rows.select("doc_id", "text_hash", "text")):
            claimed = reusable.claim(batch["text_hash"])
            fresh = claimed < 0
            lengths = np.empty(len(batch), np.int64)
            lengths[~fresh] = reusable.lengths[claimed[~fresh]]
            if fresh.any():
                terms = [analyze(text) for text in batch.filter(pl.Series(fresh))["text"]]
                lengths[fresh] = write_postings(unfinished / f"{n_parts:06}", terms)
                n_parts += 1
            texts = [text.encode() for text in batch["text"]]
            file.writelines(texts)
            reused.append(claimed)
            batches.append(
                batch.select(
                    "doc_id",
                    "text_hash",
                    length=pl.Series(lengths),
                    n_bytes=pl.Series(map(len, texts), dtype=pl.UInt32),
                    part=pl.when(pl.Series(fresh)).then(n_parts - 1),
                ).cast(pl.Schema(_ANALYZED))
            )
    documents = pl.concat([pl.DataFrame(schema=_ANALYZED), *batches])
    documents.write_ipc(unfinished / "documents.arrow")
    os.rename(unfinished, folder)
    return Analyzed(folder, documents, np.concatenate(reused))


def _batches(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Rows in order, `_BATCH_BYTES` of text or a little more at a time."""
    held: list[pl.DataFrame] = []
    size = 0
    for chunk in rows.collect_batches(chunk_size=_BATCH_ROWS):
        for rows_of_it in chunk.iter_slices(_BATCH_ROWS):
            held.append(rows_of_it)
            size += int(rows_of_it["text"].str.len_bytes().sum())
            if size >= _BATCH_BYTES:
                yield pl.concat(held)
                held, size = [], 0
    if held:
        yield pl.concat(held)


def read_documents(folder: Path) -> pl.DataFrame:
    """A segment's rows: DOCUMENTS, and where each text starts."""
    return read_arrow(folder / "documents.arrow").with_columns(
        start=pl.col("n_bytes").cast(pl.Int64).cum_sum() - pl.col("n_bytes")
    )


def write_texts(folder: Path, pieces: Sequence[tuple[Path, int, int]]) -> None:
    """Put a segment's texts together from pieces of files: which, from where, how many bytes."""
    with (folder / "texts").open("wb") as target:
        for path, start, n_bytes in pieces:
            with path.open("rb") as source:
                source.seek(start)
                while n_bytes > 0:
                    target.write(source.read(min(n_bytes, _COPIED_BYTES)))
                    n_bytes -= _COPIED_BYTES


def read_arrow(file: Path) -> pl.DataFrame:
    # read_ipc would take a bracket in the path for a pattern.
    return pl.scan_ipc(file, glob=False).collect()
