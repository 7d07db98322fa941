"""Records of CSV and TSV."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import IO, NamedTuple

from rare_assets.corpus.columns import Columns
from rare_assets.corpus.formats import base
from rare_assets.corpus.formats.base import (
    BOM,
    DETAIL_LENGTH,
    FILL_IT,
    Item,
    SourceRow,
    StreamFormat,
    TooLarge,
    UnreadableFile,
    is_unicode,
    printable,
)

_NAMES = {",": "commas", "\t": "tabs"}


class _Broken(NamedTuple):
    """Stands for a record that can't be read: what is wrong, and how it begins."""

    error: str
    begin: str


class _Records(StreamFormat):
    """Records under a header, or without one where columns are told by number. An empty field is none, but
    for the text.
    """

    separator: str

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def records(
        self, stream: IO[bytes], at: int
    ) -> Iterator[tuple[list[str] | TooLarge | _Broken, int, int]]:
        """Yield each record from a place on, with the bytes where it begins and ends."""
        raise NotImplementedError

    def columns(self, stream: IO[bytes], name: str) -> list[str]:
        """Return the names in the first line; numbers where the columns are told by number."""
        header = next(self.records(stream, 0), None)
        if header is None:
            raise UnreadableFile(f"{name}: the file has no line, not even a header. {FILL_IT}")
        first = header[0]
        if isinstance(first, TooLarge):
            raise UnreadableFile(f"{name}: its first line has {first.size:,} bytes.")
        if isinstance(first, _Broken):
            raise UnreadableFile(
                f"{name}: its first line can't be read ({first.error}): {first.begin}"
            )
        found = [printable(column) for column in first]
        if self._columns.without_header:
            found = [str(number) for number in range(len(found))]
        if missing := self._columns.missing(found):
            told = self._columns.problem(missing, found, self._advice(first))
            raise UnreadableFile(f"{name}: {told}")
        if twice := [c for c in self._columns.wanted(found) if found.count(c) > 1]:
            raise UnreadableFile(
                f"{name}: its header names the column `{twice[0]}` twice; its columns: "
                f"{', '.join(found)}. Rename one."
            )
        return found

    def _advice(self, header: list[str]) -> str | None:
        """Return what to do about a header of one name that another separator parts; None for any other."""
        if len(header) != 1:
            return None
        if self.separator != "\t" and "\t" in header[0]:
            return "name it .tsv, since tabs part its columns,"
        if any(mark in header[0] for mark in ",;|\t" if mark != self.separator):
            return f"separate the columns with {_NAMES[self.separator]}"
        return None

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[Item]:
        columns = self.columns(stream, name)
        records = self.records(stream, at)
        if at == 0 and not self._columns.without_header:
            next(records)
        broken: Item | None = None
        for record, start, end in records:
            # What follows a broken record and is no record of this file is the rest of it.
            if broken and isinstance(record, list) and len(record) != len(columns):
                broken = broken._replace(end=end)
                continue
            if broken:
                yield broken
                row, broken = row + 1, None
            if isinstance(record, _Broken):
                broken = Item(row, start, end, record)
            else:
                yield Item(row, start, end, record)
                row += 1
        if broken:
            yield broken

    def source_row(self, item: Item, columns: list[str]) -> SourceRow:
        record = item.content
        if isinstance(record, _Broken):
            detail = (
                f"{record.error}, from byte {item.start} to {item.end} (a quote inside a quoted field is "
                f'written twice, "", and every quote is closed): {record.begin}'
            )
            return SourceRow(item.row, None, "bad_csv_row", printable(detail))
        if len(record) != len(columns):
            shown = printable(",".join(record))
            detail = f"{len(record)} fields under {len(columns)} columns: {shown}"
            return SourceRow(item.row, None, "bad_csv_row", detail[:DETAIL_LENGTH])
        value = dict(zip(columns, record, strict=True))
        value = {field: value[field] for field in self._columns.wanted(columns)}
        for field, content in value.items():
            if not is_unicode(content):
                detail = f"`{field}` has bytes that are not UTF-8: {printable(content)}"
                return SourceRow(item.row, None, "not_utf8", detail[:DETAIL_LENGTH])
        text = self._columns.names["text"]
        return SourceRow(item.row, {f: v if v or f == text else None for f, v in value.items()})


class Csv(_Records):
    """Comma-separated records, quoted as in RFC 4180. A quote that is not costs its own record: reading
    goes on with the line after the one in which that begins.
    """

    separator = ","

    def records(
        self, stream: IO[bytes], at: int
    ) -> Iterator[tuple[list[str] | TooLarge | _Broken, int, int]]:
        csv.field_size_limit(2**31 - 1)  # the default refuses a field above 128 KiB
        stream.seek(at)
        lines = _RecordLines(stream, at)
        while True:
            try:
                for record in csv.reader(lines, strict=True):
                    if lines.is_large:
                        yield TooLarge(lines.end - lines.start), lines.start, lines.end
                    elif record:
                        yield record, lines.start, lines.end
                    lines.begin()
                return
            except csv.Error as error:
                start, begin = lines.start, lines.begin_again()
                yield _Broken(str(error), printable(begin)), start, lines.start


class _RecordLines:
    """The lines of a stream for a reader of records: `start` and `end` are where the record that is being
    read begins and where what was read of it ends.
    """

    def __init__(self, stream: IO[bytes], at: int) -> None:
        self._stream = stream
        self.start = self.end = at
        self.is_large = False
        self._quotes = 0
        # The lines of this record so far, as long as it is not large, and where the first one ends.
        self._read: list[bytes] = []
        self._first_end: int | None = None
        self._again: deque[bytes] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def begin(self) -> None:
        """Note that a new record begins with the next line."""
        self.start, self.is_large, self._quotes, self._first_end = self.end, False, 0, None
        self._read.clear()

    def begin_again(self) -> str:
        """Begin with the second line of this record. Returns how the first one begins."""
        first = self._read[0] if self._read else b""
        if self.is_large:
            self._again.clear()
            self.end = self.end if self._first_end is None else self._first_end
            self._stream.seek(self.end)
        else:
            self._again.extendleft(reversed(self._read[1:]))
            self.end = self.start + len(first)
        self.begin()
        return first[: 2 * DETAIL_LENGTH].decode("utf-8", "replace").strip()

    def __next__(self) -> str:
        line = self._line(base.MAX_ROW_BYTES + 2)
        if not line:
            raise StopIteration
        content = line.removeprefix(BOM) if self.end == 0 else line
        begun = self.end > self.start
        self._passed(line)
        if self.end - self.start <= base.MAX_ROW_BYTES:
            self._quotes += line.count(b'"')
            self._read.append(line)
            return content.decode("utf-8", "surrogateescape")
        # The record ends with the first line break outside of quotes; the reader, which has what came
        # before, is given an end that fits.
        self.is_large = True
        inside = self._quotes
        del self._read[1:]
        while not (line.endswith(b"\n") and (self._quotes + line.count(b'"')) % 2 == 0):
            self._quotes += line.count(b'"')
            line = self._line(base.CHUNK)
            self._passed(line)
            if not line and self._quotes % 2:
                raise csv.Error("unexpected end of data")
            if not line:
                break
        return '"\n' if begun and inside % 2 else "-\n"

    def _line(self, size: int) -> bytes:
        return self._again.popleft() if self._again else self._stream.readline(size)

    def _passed(self, line: bytes) -> None:
        self.end += len(line)
        if self._first_end is None and line.endswith(b"\n"):
            self._first_end = self.end


class Tsv(_Records):
    """A record a line, a tab between two fields. A field in quotes is one as pandas writes it: quotes within
    are twice there, and it may go on over lines that are no records of their own. Any other quote is text.
    """

    separator = "\t"

    def records(
        self, stream: IO[bytes], at: int
    ) -> Iterator[tuple[list[str] | TooLarge | _Broken, int, int]]:
        stream.seek(at)
        start = at
        width = 0
        pending: deque[tuple[bytes, int]] = deque()  # lines read ahead
        while True:
            line, size = pending.popleft() if pending else _line(stream)
            if not size:
                return
            end = start + size
            if not line:
                yield TooLarge(size), start, end
                start = end
                continue
            content = line.removeprefix(BOM) if start == 0 else line
            text = content.decode("utf-8", "surrogateescape").rstrip("\r\n")
            if text:
                fields = text.split("\t")
                width = width or len(fields)
                if _is_open(fields[-1]):
                    text, end = self._closed(text, width, end, stream, pending)
                yield [_unquoted(field) for field in text.split("\t")], start, end
            start = end

    def _closed(
        self,
        text: str,
        width: int,
        end: int,
        stream: IO[bytes],
        pending: deque[tuple[bytes, int]],
    ) -> tuple[str, int]:
        """Return a record whose last field has an open quote, with the lines that close it; else as it is."""
        record, size, tabs = [text], 0, text.count("\t")
        field = [text.rpartition("\t")[2]]
        quotes = field[0].count('"')
        for n_read, (line, line_size) in enumerate(_ahead(stream, pending), 1):
            added = line.decode("utf-8", "surrogateescape")
            if not line or (added.count("\t") + 1 == width > 1 and not _closes(added)):
                break
            added = added.rstrip("\r\n")
            record.append(added)
            size, tabs = size + line_size, tabs + added.count("\t")
            head, parted, _ = added.partition("\t")
            field.append(head)
            quotes += head.count('"')
            if quotes % 2 == 0 and not _is_quoted("\n".join(field)):
                break
            last = added.rpartition("\t")[2]
            if quotes % 2 == 0 and not (parted and _is_open(last)):
                if tabs + 1 != width:
                    break
                for _ in range(n_read):
                    pending.popleft()
                return "\n".join(record), end + size
            if parted and quotes % 2:  # a tab parts fields in quotes, too
                break
            if parted:
                field, quotes = [last], last.count('"')
            if size > base.MAX_ROW_BYTES:
                break
        return text, end


def _ahead(stream: IO[bytes], pending: deque[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Yield the lines that come next, which wait to be read then."""
    yield from pending
    while True:
        pending.append(_line(stream))
        yield pending[-1]


def _is_open(field: str) -> bool:
    """Return True if a field begins with a quote that is not closed."""
    return field.startswith('"') and field.count('"') % 2 == 1


def _closes(line: str) -> bool:
    return line.partition("\t")[0].count('"') % 2 == 1


def _unquoted(field: str) -> str:
    """Return a field without the quotes that were set since there are quotes, tabs or line breaks within."""
    inner = field[1:-1]
    if not _is_quoted(field) or not ('""' in inner or "\n" in inner or "\t" in inner):
        return field
    return inner.replace('""', '"')


def _is_quoted(field: str) -> bool:
    """Return True if a field has a quote at each end, and within it none that is not written twice."""
    ends = len(field) > 1 and field[0] == field[-1] == '"'
    return ends and '"' not in field[1:-1].replace('""', "")


def _line(stream: IO[bytes]) -> tuple[bytes, int]:
    """Return the next line and its length; no line, but a length, where it is too large."""
    line = stream.readline(base.MAX_ROW_BYTES + 2)
    size = len(line)
    if size <= base.MAX_ROW_BYTES:
        return line, size
    while line and not line.endswith(b"\n"):
        line = stream.readline(base.CHUNK)
        size += len(line)
    return b"", size
