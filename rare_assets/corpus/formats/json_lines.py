"""JSON Lines: one JSON value a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

from rare_assets.corpus.formats import base
from rare_assets.corpus.formats.base import (
    BOM,
    DETAIL_LENGTH,
    Item,
    SourceRow,
    StreamFormat,
    TooLarge,
    printable,
    undecodable,
)


class JsonLines(StreamFormat):
    """One JSON value a line. Blank lines are no rows, but they count in the row numbers."""

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[Item]:
        stream.seek(at)
        for number, (line, size) in enumerate(_lines(stream), row):
            start, at = at, at + size
            if line is None:
                yield Item(number, start, at, TooLarge(size))
                continue
            content = line.removeprefix(BOM) if start == 0 else line
            if content.strip():
                yield Item(number, start, at, content)

    def source_row(self, item: Item, columns: list[str]) -> SourceRow:
        try:
            return SourceRow(item.row, json.loads(item.content.decode()))
        except UnicodeDecodeError as error:
            return SourceRow(item.row, None, "not_utf8", undecodable(error, item.content))
        except (ValueError, RecursionError) as error:
            shown = printable(item.content[: 2 * DETAIL_LENGTH].decode("utf-8", "replace").strip())
            return SourceRow(item.row, None, "broken_json", f"{error}: {shown}"[:DETAIL_LENGTH])


def _lines(stream: IO[bytes]) -> Iterator[tuple[bytes | None, int]]:
    """Each line and its length; None for one that is too large."""
    while line := stream.readline(base.MAX_ROW_BYTES + 2):
        size = len(line)
        if size <= base.MAX_ROW_BYTES:
            yield line, size
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(base.CHUNK)
            size += len(line)
        yield None, size
