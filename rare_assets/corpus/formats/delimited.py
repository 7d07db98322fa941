"""Records of CSV and TSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO

from rare_assets.corpus.columns import Columns
from rare_assets.corpus.formats import base
from rare_assets.corpus.formats.base import (
    BOM,
    DETAIL_LENGTH,
    Item,
    SourceRow,
    StreamFormat,
    TooLarge,
    UnreadableFile,
    is_unicode,
    printable,
)


class Csv(StreamFormat):
    """Comma-separated records under a header, quoted as in RFC 4180. An empty field is none, but for
    the text.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def columns(self, stream: IO[bytes], name: str) -> list[str]:
        """The names in the first line; numbers where the columns are told by number."""
        header = next(self._records(stream, 0, name), None)
        if header is None:
            raise UnreadableFile(f"{name}: empty, not even a header. Remove it, or fill it.")
        if isinstance(header[0], TooLarge):
            raise UnreadableFile(f"{name}: its first line has {header[0].size:,} bytes.")
        found = [printable(column) for column in header[0]]
        if self._columns.without_header:
            found = [str(number) for number in range(len(found))]
        if missing := self._columns.missing(found):
            raise UnreadableFile(f"{name}: {self._columns.problem(missing, found)}")
        if twice := [c for c in self._columns.wanted(found) if found.count(c) > 1]:
            raise UnreadableFile(
                f"{name}: its header names the column `{twice[0]}` twice; its columns: "
                f"{', '.join(found)}. Rename one."
            )
        return found

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[Item]:
        if at == 0:
            self.columns(stream, name)
        records = self._records(stream, at, name)
        if at == 0 and not self._columns.without_header:
            next(records)
        for number, (record, start, end) in enumerate(records, row):
            yield Item(number, start, end, record)

    def _records(
        self, stream: IO[bytes], at: int, name: str
    ) -> Iterator[tuple[list[str] | TooLarge, int, int]]:
        csv.field_size_limit(2**31 - 1)  # the default refuses a field above 128 KiB
        end = start = at
        quotes, is_large = 0, False

        def lines() -> Iterator[str]:
            nonlocal end, quotes, is_large
            while line := stream.readline(base.MAX_ROW_BYTES + 2):
                content = line.removeprefix(BOM) if end == 0 else line
                begun = end > start
                end += len(line)
                if end - start > base.MAX_ROW_BYTES:
                    # The record ends with the first line break outside of quotes; the reader, which
                    # has what came before, is given an end that fits.
                    is_large = True
                    inside = quotes
                    while not (line.endswith(b"\n") and (quotes + line.count(b'"')) % 2 == 0):
                        quotes += line.count(b'"')
                        line = stream.readline(base.CHUNK)
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

    def source_row(self, item: Item, columns: list[str]) -> SourceRow:
        record = item.content
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
