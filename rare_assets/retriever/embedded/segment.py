"""Analyze shards for the embedded index in batches, and read and write the documents of segments."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import polars as pl

from rare_assets.files.stored_bytes import ChecksumWriter
from rare_assets.retriever.embedded.folder import UNFINISHED
from rare_assets.retriever.embedded.manifest import FORMAT
from rare_assets.retriever.embedded.postings import write_postings
from rare_assets.retriever.interface import ShardContent
from rare_assets.text.titled import titled

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# Text analyzed at a time, and rows looked at to cut it.
_BATCH_BYTES = 2 << 20
_BATCH_ROWS = 256
_COPIED_BYTES = 1 << 20
_KEY = ("doc_id", "text_hash", "title_hash")
# `length` counts terms; texts lie one after the other, `n_bytes` each, a title before its text.
DOCUMENTS: dict[str, Any] = {
    "doc_id": pl.String,
    "text_hash": pl.String,
    "title_hash": pl.UInt64,
    "length": pl.UInt32,
    "n_bytes": pl.UInt32,
}
# `part` is the postings' folder; null, like length and size, for what an older segment has.
_ANALYZED = DOCUMENTS | {"part": pl.Int32}


_NO_TITLE = 2**32 - 1


class Analyzed(NamedTuple):
    """An analyzed shard: all of its documents, and the folder with those that no older segment has."""

    folder: Path
    documents: pl.DataFrame

    @property
    def new(self) -> pl.DataFrame:
        """The documents that no older segment has."""
        return self.documents.filter(pl.col("part").is_not_null())

    def postings(self) -> Iterator[tuple[Path, Array]]:
        """Yield the folder of each batch's postings, and the places of its documents among the new ones."""
        import numpy as np

        part = self.new["part"].to_numpy()
        for number in np.unique(part):
            yield self.folder / f"{number:06}", np.flatnonzero(part == number)


class ReusableRows:
    """Rows of older segments whose shard changed or left; another shard can take over each of them once.

    Args:
        documents: the rows of each segment.
        owners: for each segment, the shard that has a row, -1 for none (int32 of shape (rows,)); changed by
            `take` and `give_back`.
    """

    def __init__(self, documents: Sequence[pl.DataFrame], owners: Sequence[Array]) -> None:
        self._owners = owners
        self._rows = pl.concat(
            [
                pl.DataFrame(
                    schema={name: DOCUMENTS[name] for name in _KEY}
                    | {"row": pl.UInt32, "segment": pl.Int32}
                ),
                *(
                    of.select(*_KEY)
                    .with_row_index("row")
                    .filter(pl.Series(rows < 0, dtype=pl.Boolean))
                    .select(*_KEY, "row", segment=pl.lit(number, pl.Int32))
                    for number, (of, rows) in enumerate(zip(documents, owners, strict=True))
                ),
            ]
        ).unique(_KEY, keep="first", maintain_order=True)

    def take(self, documents: pl.DataFrame, owner: int) -> Array:
        """Give a shard the rows that hold documents of its own.

        Args:
            documents: of the shard, with `doc_id`, `text_hash` and `title_hash`.
            owner: the shard's place among the shards.

        Returns:
            Mask of the documents that it was given, of shape (documents,).
        """
        import numpy as np

        if self._rows.is_empty():
            return np.zeros(len(documents), bool)
        found = documents.select(*_KEY, first=pl.struct(_KEY).is_first_distinct()).join(
            self._rows, on=_KEY, how="left", maintain_order="left"
        )
        taken: Array = (found["first"] & found["row"].is_not_null()).to_numpy().copy()
        row, segment = (found[name].fill_null(0).to_numpy() for name in ("row", "segment"))
        for number, owners in enumerate(self._owners):
            (mine,) = np.nonzero(taken & (segment == number))
            free = owners[row[mine]] < 0
            taken[mine[~free]] = False
            owners[row[mine[free]]] = owner
        return taken

    def give_back(self, owner: int) -> None:
        """Take all rows back from a shard."""
        for owners in self._owners:
            owners[owners == owner] = -1


def analyzed_name(analyzer: str, key: str, content: ShardContent) -> str:
    """Return the folder name of an analyzed shard, another one for anything that could change its content."""
    named = f"{FORMAT}:{analyzer}:{content.content_hash}:{key}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def read_analyzed(folder: Path, reusable: ReusableRows, owner: int) -> Analyzed | None:
    """Return a shard that an earlier sync analyzed, or None.

    None if it is not there or not whole, or if rows that it relies on can't be taken over any more.

    Args:
        folder: of the analyzed shard.
        reusable: rows that it may take over.
        owner: the shard's place among the shards.
    """
    try:
        # Not waited for to be on the disk, so an outage of the machine may have taken some of it.
        if json.loads((folder / "files.json").read_bytes()) != _as_left(folder):
            return None
        documents = read_arrow(folder / "documents.arrow")
    except (FileNotFoundError, ValueError, pl.exceptions.PolarsError):
        return None
    if not reusable.take(documents.filter(pl.col("part").is_null()), owner).all():
        reusable.give_back(owner)
        return None
    return Analyzed(folder, documents)


def analyze_shard(
    folder: Path,
    rows: pl.LazyFrame,
    analyze: Callable[[str], list[str]],
    reusable: ReusableRows,
    owner: int,
) -> Analyzed:
    """Analyze the documents of a shard that it can't take over from `reusable`.

    Args:
        folder: to write to; it appears whole or not at all.
        rows: the shard's documents, `doc_id`, `text`, `text_hash` and perhaps `title`.
        analyze: returns the terms of a text.
        reusable: rows that the shard may take over.
        owner: the shard's place among the shards.
    """
    unfinished = folder.with_name(folder.name + UNFINISHED)
    for left in (folder, unfinished):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    done = [pl.DataFrame(schema=_ANALYZED)]
    with (unfinished / "texts").open("wb") as file:
        for part, batch in enumerate(_batches(_with_titles(rows))):
            taken = pl.Series(reusable.take(batch, owner), dtype=pl.Boolean)
            done.append(
                batch.filter(taken)
                .select(*_KEY)
                .match_to_schema(pl.Schema(_ANALYZED), missing_columns="insert")
            )
            batch = batch.filter(~taken)
            if batch.is_empty():
                continue
            both = list(zip(batch["title"], batch["text"], strict=True))
            lengths = write_postings(
                unfinished / f"{part:06}", [analyze(titled(*document)) for document in both]
            )
            texts = [packed(*document) for document in both]
            file.writelines(texts)
            done.append(
                batch.select(
                    *_KEY,
                    length=pl.Series(lengths, dtype=pl.UInt32),
                    n_bytes=pl.Series(map(len, texts), dtype=pl.UInt32),
                    part=pl.lit(part, pl.Int32),
                )
            )
    documents = pl.concat(done)
    write_arrow(documents, unfinished / "documents.arrow")
    (unfinished / "files.json").write_text(json.dumps(_as_left(unfinished)))
    os.rename(unfinished, folder)
    return Analyzed(folder, documents)


def packed(title: str | None, text: str) -> bytes:
    """Return a document as it lies in the file of texts: the title's length (4 bytes), title, text."""
    if title is None:
        return _NO_TITLE.to_bytes(4, "little") + text.encode()
    encoded = title.encode()
    return len(encoded).to_bytes(4, "little") + encoded + text.encode()


def unpacked(stored: bytes) -> tuple[str | None, str]:
    """Return title and text of what `packed` returned.

    >>> unpacked(packed("Ice", "It melts."))
    ('Ice', 'It melts.')
    """
    length = int.from_bytes(stored[:4], "little")
    if length == _NO_TITLE:
        return None, stored[4:].decode()
    return stored[4 : 4 + length].decode(), stored[4 + length :].decode()


def _with_titles(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return documents with their titles, and a hash of each title, 0 without one."""
    if "title" not in rows.collect_schema():
        rows = rows.with_columns(title=pl.lit(None, pl.String))
    title_hash = pl.col("title").map_elements(_hash, pl.UInt64).fill_null(0)
    return rows.select("doc_id", "text_hash", "text", "title", title_hash=title_hash)


def _hash(title: str) -> int:
    return int.from_bytes(hashlib.blake2b(title.encode(), digest_size=8).digest(), "little")


def _as_left(folder: Path) -> dict[str, Any]:
    """Return which boot of the machine it is, and the lengths of a folder's files."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sizes = {
        str(file.relative_to(folder)): file.stat().st_size
        for file in files
        if file.name != "files.json"
    }
    return {"boot": boot, "sizes": sizes}


def _batches(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows in order, `_BATCH_BYTES` of text or a little more at a time."""
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
    """Return a segment's rows: DOCUMENTS, and where each text starts."""
    return read_arrow(folder / "documents.arrow").with_columns(
        start=pl.col("n_bytes").cast(pl.Int64).cum_sum() - pl.col("n_bytes")
    )


def write_texts(folder: Path, pieces: Iterable[tuple[Path, Iterable[tuple[int, int]]]]) -> None:
    """Put a segment's texts together from parts of files.

    Args:
        folder: of the segment.
        pieces: files, each with the start and the end (in bytes) of what is copied, in order.
    """
    with (folder / "texts").open("wb") as target:
        for path, runs in pieces:
            with path.open("rb") as source:
                for start, end in runs:
                    source.seek(start)
                    for at in range(start, end, _COPIED_BYTES):
                        target.write(source.read(min(end - at, _COPIED_BYTES)))


def write_arrow(frame: pl.DataFrame, file: Path) -> None:
    """Write a frame as Arrow file. Raises OSError with its number, which Polars would hide."""
    with file.open("wb") as target:
        writer = ChecksumWriter(target)
        try:
            frame.write_ipc(cast("IO[bytes]", writer))
        except Exception as error:
            if writer.error is not None:
                raise writer.error from error
            raise


def write_array(values: Array, file: Path) -> None:
    """Write an array as .npy file. Raises OSError with its number, which NumPy would hide."""
    import numpy as np

    with file.open("wb") as target:
        np.save(cast("IO[bytes]", ChecksumWriter(target)), values)


def read_arrow(file: Path) -> pl.DataFrame:
    """Read an Arrow file, whatever its path."""
    # read_ipc would take a bracket in the path for a pattern.
    return pl.scan_ipc(file, glob=False).collect()
