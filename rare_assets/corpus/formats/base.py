"""Stored files, their rows and spans, the errors and the limits: shared by all formats."""

from __future__ import annotations

import codecs
import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any, NamedTuple, Protocol, cast

from rare_assets.corpus.formats.streams import as_utf8, unpacked
from rare_assets.files.cache import temporary_folder
from rare_assets.text.shown import cut

BOM = codecs.BOM_UTF8
DETAIL_LENGTH = 200
# A row of more bytes is a reject that is not kept in memory: no teacher reads so much, and what is made
# of a row takes several times its size.
MAX_ROW_BYTES = 64 << 20
CHUNK = 1 << 20

# Object stores that Polars reads itself, so that a slice of a Parquet file costs a slice.
_POLARS_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "az", "abfs"}


# What is said of a file without a byte, whatever its format.
NO_BYTES = "the file has no bytes"
# What to do about a file that holds nothing.
FILL_IT = "Remove it, or fill it."


class SourceError(Exception):
    """Raised where the source, or one of its files, can't be used. The message names it and says what to do."""


class UnreadableFile(SourceError):
    """Raised where one file of the source can't be read, and the others can. `file` is its path in the source."""

    file = ""


class SourceRow(NamedTuple):
    """One row of a source file before anything is asked of it.

    `row` counts from 1: lines of JSON Lines, records of CSV (header not counted), elements of a JSON
    list, rows of Parquet; a text file is row 1. Where the bytes could not be made a value, `problem`
    is the reason (`broken_json`, `not_utf8`, `bad_csv_row`, `too_large`) and `detail` says more. `file`
    is its path where a shard has several files.
    """

    row: int
    value: Any
    problem: str | None = None
    detail: str | None = None
    file: str = ""


class TooLarge(NamedTuple):
    """Stands for a row of more than MAX_ROW_BYTES."""

    size: int


class Span(NamedTuple):
    """Consecutive rows of a file: `byte_start` is where the first begins, `byte_end` where the last
    ends; both None where a format has no such places.
    """

    first_row: int
    n_rows: int
    byte_start: int | None
    byte_end: int | None


class StoredFile(NamedTuple):
    """A file and the fsspec file system that it lies on; `name` is what messages call it."""

    fs: Any
    path: str
    name: str

    @property
    def is_local(self) -> bool:
        """True if it lies on a file system of this machine."""
        names = self.fs.protocol
        return "file" in ({names} if isinstance(names, str) else set(names))

    def is_link(self) -> bool:
        """Return True if the name is there as a link, to something or to nothing."""
        return self.is_local and os.path.islink(self.path)

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """Open the file's bytes, unpacked where its name says so, buffered for reading line by line.

        Raises:
            OSError: it is a pipe or a device, or what its file system raises.
        """
        self._require_regular()
        with (
            self.fs.open(self.path, "rb") as raw,
            io.BufferedReader(cast(Any, unpacked(raw, self.path)), CHUNK) as stream,
        ):
            yield stream

    @contextmanager
    def for_polars(self) -> Iterator[str]:
        """Yield a path or URL that Polars can scan: of a copy on the local disk where it can't scan the store."""
        self._require_regular()
        names = self.fs.protocol
        protocols = {names} if isinstance(names, str) else set(names)
        if self.is_local:
            yield self.path
        elif protocols & _POLARS_PROTOCOLS:
            yield self.fs.unstrip_protocol(self.path)
        else:
            with self.on_disk() as path:
                yield path

    @contextmanager
    def on_disk(self) -> Iterator[str]:
        """Yield a path on the local disk: the file's own, or that of a copy while the block runs."""
        self._require_regular()
        if self.is_local:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="rare-source-", dir=temporary_folder()) as folder:
            copy = os.path.join(folder, "copy")
            self.fs.get_file(self.path, copy)
            yield copy

    def _require_regular(self) -> None:
        """Raise OSError for a pipe or a device, whose opening might wait forever."""
        if self.is_local and not stat.S_ISREG(os.stat(self.path).st_mode):
            raise OSError("not a regular file")


class Format(Protocol):
    """Cuts files of one kind into spans, and reads these."""

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        """Return the spans that a file is cut into, at least one, of at most `rows_per_span` rows.

        Raises:
            UnreadableFile: it is no file of this format.
        """

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        """Yield the rows of a span that `spans` gave for the same content."""


class Item(NamedTuple):
    """A row of a file as it lies there: its number from 1, where it starts and ends in bytes, what it holds."""

    row: int
    start: int
    end: int
    content: Any


class StreamFormat:
    """A format whose rows lie one after the other, so that reading can begin at any row's offset."""

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        """Cut the file by reading all of it once; see `Format`."""
        spans: list[Span] = []
        with file.open() as raw, as_utf8(raw) as stream:
            for n, item in enumerate(self.items(stream, 0, 1, file.name)):
                if n % rows_per_span == 0:
                    spans.append(Span(item.row, 1, item.start, item.end))
                else:
                    n_rows = spans[-1].n_rows + 1
                    spans[-1] = spans[-1]._replace(n_rows=n_rows, byte_end=item.end)
        return spans or [Span(1, 0, 0, 0)]

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        """Yield the rows of a span, from its first byte on; see `Format`."""
        with file.open() as raw, as_utf8(raw) as stream:
            columns = self.columns(stream, file.name)
            items = self.items(stream, span.byte_start or 0, span.first_row, file.name)
            for item in islice(items, span.n_rows):
                if isinstance(item.content, TooLarge):
                    yield too_large(item.row, item.content.size)
                else:
                    yield self.source_row(item, columns)

    def columns(self, stream: IO[bytes], name: str) -> list[str]:
        """Return the names in the file's header, if the format has one."""
        return []

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[Item]:
        """Yield the rows from offset `at` on, of which the first is number `row`."""
        raise NotImplementedError

    def source_row(self, item: Item, columns: list[str]) -> SourceRow:
        """Return what an item holds as a row; `columns` are those of the file's header."""
        raise NotImplementedError


def is_unicode(text: str) -> bool:
    """Return True if a text can be stored: no lone surrogate, which is what broken bytes become."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Return at most DETAIL_LENGTH characters of a text, on one line, broken ones spelt out."""
    shown = text[: DETAIL_LENGTH + 1].encode("utf-8", "backslashreplace").decode()
    shown = " ".join(shown.split())
    return cut(shown, DETAIL_LENGTH)


def too_large(row: int, size: int) -> SourceRow:
    """Return what stands for a row of so many bytes, which is not read."""
    detail = f"{size:,} bytes; a row of more than {MAX_ROW_BYTES:,} is not read"
    return SourceRow(row, None, "too_large", detail)


def undecodable(error: UnicodeDecodeError, content: bytes) -> str:
    """Return where bytes are no UTF-8, with what stands around them, in one sentence."""
    around = content[max(0, error.start - 40) : error.start + 80].decode(
        "utf-8", "backslashreplace"
    )
    return printable(f"byte {error.start}: {error.reason}: {around}")
