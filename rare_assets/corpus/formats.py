"""From the bytes of a source file to raw rows, one class a format, in bounded memory.

A format cuts a file into spans of rows once and reads a span later without reading what precedes
it. What a row means (which fields it needs, what is rejected) is `operators.read_documents`' part.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any, NamedTuple, Protocol

import polars as pl

from rare_assets.text.shown import cut

FIELDS = ("id", "text", "title", "answer")
BOM = codecs.BOM_UTF8
DETAIL_LENGTH = 200
# A row of more bytes is a reject that is not kept in memory: no teacher reads so much, and what is made
# of a row takes several times its size.
MAX_ROW_BYTES = 64 << 20

# Object stores that Polars reads itself, so that a slice of a Parquet file costs a slice.
_POLARS_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "az", "abfs"}
_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")


class SourceError(Exception):
    """The source, or one of its files, can't be used. The message names it and says what to do."""


class UnreadableFile(SourceError):
    """One file of the source can't be read, and the others can. `file` is its path in the source."""

    file = ""


class SourceRow(NamedTuple):
    """One row of a source file before anything is asked of it.

    `row` counts from 1: lines of JSON Lines, records of CSV (header not counted), elements of a JSON
    list, rows of Parquet; a text file is row 1. Where the bytes could not be made a value, `problem`
    is the reason (`broken_json`, `not_utf8`, `bad_csv_row`, `too_large`) and `detail` says more.
    """

    row: int
    value: Any
    problem: str | None = None
    detail: str | None = None


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
        """Whether it lies on a file system of this machine."""
        names = self.fs.protocol
        return "file" in ({names} if isinstance(names, str) else set(names))

    def is_link(self) -> bool:
        """Whether the name is there as a link, to something or to nothing."""
        return self.is_local and os.path.islink(self.path)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file's bytes, buffered for reading line by line."""
        self._require_regular()
        with self.fs.open(self.path, "rb") as raw, io.BufferedReader(raw, _CHUNK) as stream:
            yield stream

    @contextmanager
    def for_polars(self) -> Iterator[str]:
        """A path or URL that Polars can scan; elsewhere a copy on the local disk."""
        self._require_regular()
        names = self.fs.protocol
        protocols = {names} if isinstance(names, str) else set(names)
        if self.is_local:
            yield self.path
        elif protocols & _POLARS_PROTOCOLS:
            yield self.fs.unstrip_protocol(self.path)
        else:
            with tempfile.TemporaryDirectory(prefix="rare-source-") as folder:
                copy = os.path.join(folder, "copy")
                self.fs.get_file(self.path, copy)
                yield copy

    def _require_regular(self) -> None:
        """Raise OSError for a pipe or a device, whose opening might wait forever."""
        if self.is_local and not stat.S_ISREG(os.stat(self.path).st_mode):
            raise OSError("not a regular file")


class Format(Protocol):
    """How a file of one kind is cut into spans and read."""

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        """Cut the file; at least one span. Raises UnreadableFile if it is no file of this format."""

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        """The rows of a span that `spans` gave for the same content."""


class _Item(NamedTuple):
    row: int
    start: int
    end: int
    content: Any


class _StreamFormat:
    """A format whose rows lie one after the other, so that reading can begin at any row's offset."""

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        spans: list[Span] = []
        with file.open() as stream:
            for n, item in enumerate(self.items(stream, 0, 1, file.name)):
                if n % rows_per_span == 0:
                    spans.append(Span(item.row, 1, item.start, item.end))
                else:
                    n_rows = spans[-1].n_rows + 1
                    spans[-1] = spans[-1]._replace(n_rows=n_rows, byte_end=item.end)
        return spans or [Span(1, 0, 0, 0)]

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        with file.open() as stream:
            columns = self.columns(stream, file.name)
            items = self.items(stream, span.byte_start or 0, span.first_row, file.name)
            for item in islice(items, span.n_rows):
                if isinstance(item.content, TooLarge):
                    yield _too_large(item.row, item.content.size)
                else:
                    yield self.source_row(item, columns)

    def columns(self, stream: IO[bytes], name: str) -> list[str]:
        """The names in the file's header, if the format has one."""
        return []

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[_Item]:
        """The rows from offset `at` on, of which the first is number `row`."""
        raise NotImplementedError

    def source_row(self, item: _Item, columns: list[str]) -> SourceRow:
        raise NotImplementedError


class JsonLines(_StreamFormat):
    """One JSON value a line. Blank lines are no rows, but they count in the row numbers."""

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[_Item]:
        stream.seek(at)
        for number, (line, size) in enumerate(_lines(stream), row):
            start, at = at, at + size
            if line is None:
                yield _Item(number, start, at, TooLarge(size))
                continue
            content = line.removeprefix(BOM) if start == 0 else line
            if content.strip():
                yield _Item(number, start, at, content)

    def source_row(self, item: _Item, columns: list[str]) -> SourceRow:
        try:
            return SourceRow(item.row, json.loads(item.content.decode()))
        except UnicodeDecodeError as error:
            return SourceRow(item.row, None, "not_utf8", _undecodable(error, item.content))
        except (ValueError, RecursionError) as error:
            shown = printable(item.content[: 2 * DETAIL_LENGTH].decode("utf-8", "replace").strip())
            return SourceRow(item.row, None, "broken_json", f"{error}: {shown}"[:DETAIL_LENGTH])


class JsonList(_StreamFormat):
    """One JSON list, parsed element by element: memory depends on the largest, not on the file.

    Bytes that are not UTF-8 become lone surrogates, so they spoil the strings they stand in alone.
    """

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[_Item]:
        text = _JsonText(stream, at)
        if at == 0:
            opening = text.peek()
            if opening != "[":
                raise UnreadableFile(
                    f"{name}: not a list of objects: it begins with {opening!r}. A .json file is "
                    'one list, [{"text": ...}, ...]; if each of its lines is an object, rename it '
                    "to .jsonl."
                )
            text.skip(1)
        if at == 0 and text.peek() == "]":
            text.skip(1)
        else:
            delimiter = ","
            while delimiter == ",":
                start = text.begin()
                try:
                    value, end, delimiter = text.element()
                except (ValueError, RecursionError) as error:
                    raise UnreadableFile(
                        f"{name}: broken JSON in element {row}, which begins at byte {start}: "
                        f"{error}. Repair the file, or write one object a line (.jsonl), where a "
                        "broken line costs that line alone."
                    ) from error
                yield _Item(row, start, end, value)
                row += 1
        if text.peek():
            raise UnreadableFile(
                f"{name}: there is more after the list's closing bracket, at byte {text.offset}. "
                "Repair the file, or write one object a line (.jsonl)."
            )

    def source_row(self, item: _Item, columns: list[str]) -> SourceRow:
        return SourceRow(item.row, item.content)


class _JsonText:
    """A window on JSON text that moves forward; `offset` is the window's place in bytes."""

    def __init__(self, stream: IO[bytes], at: int) -> None:
        stream.seek(at)
        self.offset = at
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._buffer = ""
        self._position = 0
        if at == 0 and stream.read(len(BOM)) == BOM:
            self.offset = len(BOM)
        else:
            stream.seek(at)

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            self.skip(_SPACE.match(self._buffer, self._position).end() - self._position)  # type: ignore[union-attr]
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more(_CHUNK):
                return ""

    def begin(self) -> int:
        """Go to the next character that is not white space; its offset."""
        self.peek()
        return self.offset

    def skip(self, n_characters: int) -> None:
        end = self._position + n_characters
        passed = self._buffer[self._position : end]
        self.offset += len(passed.encode("utf-8", "surrogateescape"))
        self._position = end

    def element(self) -> tuple[Any, int, str]:
        """The value here, the offset of its end and the delimiter after it. Raises ValueError."""
        wanted = _CHUNK
        while True:
            # A value can end early where the text read so far does, so only a delimiter ends it.
            failure: ValueError
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._position)
                after = _SPACE.match(self._buffer, end).end()  # type: ignore[union-attr]
                delimiter = self._buffer[after : after + 1]
                if delimiter in (",", "]"):
                    if end - self._position > MAX_ROW_BYTES:
                        value = TooLarge(end - self._position)
                    self.skip(end - self._position)
                    end_offset = self.offset
                    self.skip(after + 1 - self._position)
                    return value, end_offset, delimiter
                failure = ValueError("a comma or the list's closing bracket is missing after it")
            except json.JSONDecodeError as error:
                failure = ValueError(error.msg)
            if len(self._buffer) - self._position > MAX_ROW_BYTES:
                return self._large_element(failure)
            if not self._more(wanted):
                raise failure
            wanted *= 2

    def _large_element(self, failure: ValueError) -> tuple[TooLarge, int, str]:
        """Pass over the value here by its brackets and quotes, keeping none of it.

        Raises:
            ValueError: `failure`, where the value does not end or is no large one.
        """
        start, depth, quoted = self.offset, 0, False
        while True:
            for token in _JSON_MARK.finditer(self._buffer, self._position):
                mark = token[0]
                if mark[0] == "\\":
                    continue
                if quoted or mark == '"':
                    quoted = not (quoted and mark == '"')
                elif mark in "{[":
                    depth += 1
                elif depth:
                    depth -= mark in "}]"
                else:
                    self.skip(token.start() - self._position)
                    size = self.offset - start
                    if mark == "}" or size <= MAX_ROW_BYTES:
                        raise failure
                    end = self.offset
                    self.skip(1)
                    return TooLarge(size), end, mark
            # A backslash belongs to what follows it.
            rest = len(self._buffer) - self._position
            ends = _BACKSLASHES.search(self._buffer, self._position)
            self.skip(rest - (len(ends[0]) % 2 if ends else 0))
            if not self._more(_CHUNK):
                raise failure

    def _more(self, n_bytes: int) -> bool:
        chunk = self._stream.read(n_bytes)
        self._buffer = self._buffer[self._position :] + self._decoder.decode(chunk, not chunk)
        self._position = 0
        return bool(chunk)


_DECODER = json.JSONDecoder()
_JSON_MARK = re.compile(r'\\.|["{}\[\],]', re.DOTALL)
_BACKSLASHES = re.compile(r"\\+\Z")


class Csv(_StreamFormat):
    """Comma-separated records under a header, quoted as in RFC 4180. An empty `id`, `title` or
    `answer` is none.
    """

    def columns(self, stream: IO[bytes], name: str) -> list[str]:
        header = next(self._records(stream, 0, name), None)
        if header is None:
            raise UnreadableFile(f"{name}: empty, not even a header. Remove it, or fill it.")
        if isinstance(header[0], TooLarge):
            raise UnreadableFile(f"{name}: its header has {header[0].size:,} bytes.")
        found = [printable(column) for column in header[0]]
        if found.count("text") != 1:
            raise UnreadableFile(_no_text_column(name, found))
        return found

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[_Item]:
        if at == 0:
            self.columns(stream, name)
        records = self._records(stream, at, name)
        if at == 0:
            next(records)
        for number, (record, start, end) in enumerate(records, row):
            yield _Item(number, start, end, record)

    def _records(
        self, stream: IO[bytes], at: int, name: str
    ) -> Iterator[tuple[list[str] | TooLarge, int, int]]:
        csv.field_size_limit(2**31 - 1)  # the default refuses a field above 128 KiB
        end = start = at
        quotes, is_large = 0, False

        def lines() -> Iterator[str]:
            nonlocal end, quotes, is_large
            while line := stream.readline(MAX_ROW_BYTES + 2):
                content = line.removeprefix(BOM) if end == 0 else line
                begun = end > start
                end += len(line)
                if end - start > MAX_ROW_BYTES:
                    # The record ends with the first line break outside of quotes; the reader, which
                    # has what came before, is given an end that fits.
                    is_large = True
                    inside = quotes
                    while not (line.endswith(b"\n") and (quotes + line.count(b'"')) % 2 == 0):
                        quotes += line.count(b'"')
                        line = stream.readline(_CHUNK)
                        end += len(line)
                        if not line and quotes % 2:
                            raise csv.Error("unexpected end of data")
                        if not line:
                            break
                    content = b'"\n' if begun and inside % 2 else b"-\n"
                else:
                    quotes += line.count(b'"')
                yield content.decode("utf-8", "surrogateescape")

        stream.seek(at)
        reader = csv.reader(lines(), strict=True)
        try:
            for record in reader:
                if is_large:
                    yield TooLarge(end - start), start, end
                elif record:
                    yield record, start, end
                start, quotes, is_large = end, 0, False
        except csv.Error as error:
            raise UnreadableFile(
                f"{name}: can't be read as CSV: {error}, in the record that begins at byte {start}. "
                'A quote inside a quoted field is written twice (""), and every quote is closed.'
            ) from error

    def source_row(self, item: _Item, columns: list[str]) -> SourceRow:
        record = item.content
        if len(record) != len(columns):
            shown = printable(",".join(record))
            detail = f"{len(record)} fields under {len(columns)} columns: {shown}"
            return SourceRow(item.row, None, "bad_csv_row", detail[:DETAIL_LENGTH])
        value = dict(zip(columns, record, strict=True))
        value = {field: value[field] for field in FIELDS if field in value}
        for field, content in value.items():
            if not is_unicode(content):
                detail = f"`{field}` has bytes that are not UTF-8: {printable(content)}"
                return SourceRow(item.row, None, "not_utf8", detail[:DETAIL_LENGTH])
        return SourceRow(item.row, {f: v if v or f == "text" else None for f, v in value.items()})


# No column of a source that is read has this name.
_SIZE = "bytes of the row"


class Parquet:
    """Rows by slices: of the file's columns and row groups, only what a slice needs is read."""

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        with file.for_polars() as path:
            n_rows = self._scan(path, file.name).select(pl.len()).collect().item()
        return [
            Span(start + 1, min(rows_per_span, n_rows - start), None, None)
            for start in range(0, n_rows, rows_per_span)
        ] or [Span(1, 0, None, None)]

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        with file.for_polars() as path:
            scan = self._scan(path, file.name).slice(span.first_row - 1, span.n_rows)
            size = _row_size(scan.collect_schema())
            # What is too large leaves with the part of the file that it was decoded with.
            fits = pl.when(size <= MAX_ROW_BYTES).then(pl.all())
            frame = scan.select(fits, size.alias(_SIZE)).collect(engine="streaming")
        for row, value in enumerate(frame.iter_rows(named=True), span.first_row):
            n_bytes = value.pop(_SIZE)
            if n_bytes > MAX_ROW_BYTES:
                yield _too_large(row, n_bytes)
            else:
                yield SourceRow(row, value)

    def _scan(self, path: str, name: str) -> pl.LazyFrame:
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        columns = scan.collect_schema().names()
        if "text" not in columns:
            raise UnreadableFile(_no_text_column(name, columns))
        return scan.select(field for field in FIELDS if field in columns)


class TextFile:
    """A file that is one document, text as it stands. `headings`: its first `# ` is the title."""

    def __init__(self, *, headings: bool) -> None:
        self._headings = headings

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        return [Span(1, 1, None, None)]

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        with file.open() as stream:
            content = stream.read(MAX_ROW_BYTES + 1).removeprefix(BOM)
            if len(content) > MAX_ROW_BYTES:
                yield _too_large(1, stream.seek(0, os.SEEK_END))
                return
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            yield SourceRow(1, None, "not_utf8", _undecodable(error, content))
            return
        title = _first_heading(text) if self._headings else None
        yield SourceRow(1, {"text": text, "title": title})


FORMATS: dict[str, Format] = {
    ".jsonl": JsonLines(),
    ".ndjson": JsonLines(),
    ".json": JsonList(),
    ".parquet": Parquet(),
    ".csv": Csv(),
    ".txt": TextFile(headings=False),
    ".md": TextFile(headings=True),
}


def is_unicode(text: str) -> bool:
    """Whether the text can be stored: no lone surrogate, which is what broken bytes become."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def on_one_line(name: str) -> str:
    """Return a name for a message: line breaks and what can't be printed or encoded spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def printable(text: str) -> str:
    """At most DETAIL_LENGTH characters of a text, on one line, broken ones spelt out."""
    shown = text[: DETAIL_LENGTH + 1].encode("utf-8", "backslashreplace").decode()
    shown = " ".join(shown.split())
    return cut(shown, DETAIL_LENGTH)


def _lines(stream: IO[bytes]) -> Iterator[tuple[bytes | None, int]]:
    """Each line and its length; None for one that is too large."""
    while line := stream.readline(MAX_ROW_BYTES + 2):
        size = len(line)
        if size <= MAX_ROW_BYTES:
            yield line, size
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(_CHUNK)
            size += len(line)
        yield None, size


def _row_size(schema: pl.Schema) -> pl.Expr:
    """Bytes of a row's texts."""
    sizes = [
        pl.col(name).str.len_bytes() if dtype == pl.String else pl.col(name).bin.size()
        for name, dtype in schema.items()
        if dtype in (pl.String, pl.Binary)
    ]
    return pl.sum_horizontal(pl.lit(0, pl.UInt64), *(size.fill_null(0) for size in sizes))


def _too_large(row: int, size: int) -> SourceRow:
    detail = f"{size:,} bytes; a row of more than {MAX_ROW_BYTES:,} is not read"
    return SourceRow(row, None, "too_large", detail)


def _first_heading(text: str) -> str | None:
    """Of a Markdown text, the first heading of level 1 that is not inside a code block."""
    in_code = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            in_code = not in_code
        elif line.startswith("# ") and not in_code:
            return line[2:].strip() or None
    return None


def _undecodable(error: UnicodeDecodeError, content: bytes) -> str:
    around = content[max(0, error.start - 40) : error.start + 80].decode(
        "utf-8", "backslashreplace"
    )
    return printable(f"byte {error.start}: {error.reason}: {around}")


def _no_text_column(name: str, columns: list[str]) -> str:
    shown = ", ".join(columns) or "none"
    hint = "separate the columns with commas and " if any(c in shown for c in ";\t|") else ""
    return (
        f"{name}: needs exactly one column `text`; its columns: {shown}. To use it, {hint}name the "
        "column with the passages `text`."
    )
