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
from rare_assets.corpus.formats.json_list import JsonList


class JsonLines(StreamFormat):
    """One JSON value a line. Blank lines are no rows, but they count in the row numbers.

    Under this name there are also lists, and objects over several lines: told by how the file begins.
    """

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[Item]:
        if other := _other_layout(stream):
            yield from other.items(stream, at, row, name)
            return
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
        if not isinstance(item.content, bytes):
            return SourceRow(item.row, item.content)
        try:
            return SourceRow(item.row, json.loads(item.content.decode()))
        except UnicodeDecodeError as error:
            return SourceRow(item.row, None, "not_utf8", undecodable(error, item.content))
        except (ValueError, RecursionError) as error:
            shown = printable(item.content[: 2 * DETAIL_LENGTH].decode("utf-8", "replace").strip())
            return SourceRow(item.row, None, "broken_json", f"{error}: {shown}"[:DETAIL_LENGTH])


def _other_layout(stream: IO[bytes]) -> JsonList | None:
    """Return how the values of a file stand that are not one a line; None for JSON Lines."""
    stream.seek(0)
    begin = stream.read(base.CHUNK).removeprefix(BOM).lstrip()
    first_line = begin.partition(b"\n")[0]
    text = begin.decode("utf-8", "replace")
    if begin.startswith(b"["):
        inner = text[1:].lstrip()
        is_list = inner.startswith("{") and _object_end(inner) is not None
        return JsonList() if is_list else None
    if not begin.startswith(b"{") or not begin[len(first_line) :].strip():
        return None
    end = _object_end(text)
    several_lines = end is not None and "\n" in text[:end].strip()
    return JsonList(one_after_the_other=True) if several_lines else None


def _object_end(text: str) -> int | None:
    """Return where the object ends that a text begins with; None if it does not end or is broken."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return end if isinstance(value, dict) else None


def _lines(stream: IO[bytes]) -> Iterator[tuple[bytes | None, int]]:
    """Yield each line and its length; None for one that is too large."""
    while line := stream.readline(base.MAX_ROW_BYTES + 2):
        size = len(line)
        if size <= base.MAX_ROW_BYTES:
            yield line, size
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(base.CHUNK)
            size += len(line)
        yield None, size
