"""A JSON list, parsed element by element."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from rare_assets.corpus.formats import base
from rare_assets.corpus.formats.base import (
    BOM,
    FILL_IT,
    Item,
    SourceRow,
    StreamFormat,
    TooLarge,
    UnreadableFile,
)

_SPACE = re.compile(r"[ \t\n\r]*")


class JsonList(StreamFormat):
    """One JSON list, parsed element by element: memory depends on the largest, not on the file.

    `one_after_the_other`: objects without a list around them, over any number of lines.

    Bytes that are not UTF-8 become lone surrogates, so they spoil the strings they stand in alone.
    """

    def __init__(self, *, one_after_the_other: bool = False) -> None:
        self._sequence = one_after_the_other

    def items(self, stream: IO[bytes], at: int, row: int, name: str) -> Iterator[Item]:
        text = _JsonText(stream, at)
        if at == 0 and not self._sequence:
            opening = text.peek()
            if not opening:
                raise UnreadableFile(f"{name}: the file has nothing but white space. {FILL_IT}")
            if opening != "[":
                raise UnreadableFile(
                    f"{name}: not a list of objects: it begins with {opening!r}. A .json file is "
                    'one list, [{"text": ...}, ...]; if each of its lines is an object, rename it '
                    "to .jsonl."
                )
            text.skip(1)
        if at == 0 and not self._sequence and text.peek() == "]":
            text.skip(1)
        else:
            delimiter = ","
            while delimiter == ",":
                start = text.begin()
                try:
                    value, end, delimiter = text.element(delimited=not self._sequence)
                except (ValueError, RecursionError) as error:
                    raise UnreadableFile(
                        f"{name}: broken JSON in element {row}, which begins at byte {start}: "
                        f"{error}. Repair the file, or write one object a line (.jsonl), where a "
                        "broken line costs that line alone."
                    ) from error
                yield Item(row, start, end, value)
                row += 1
        if text.peek():
            raise UnreadableFile(
                f"{name}: there is more after the list's closing bracket, at byte {text.offset}. "
                "Repair the file, or write one object a line (.jsonl)."
            )

    def source_row(self, item: Item, columns: list[str]) -> SourceRow:
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
        """Return the next character that is not white space, "" at the end."""
        while True:
            self.skip(_SPACE.match(self._buffer, self._position).end() - self._position)  # type: ignore[union-attr]
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more(base.CHUNK):
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

    def element(self, *, delimited: bool = True) -> tuple[Any, int, str]:
        """Return the value here, the offset of its end and the delimiter after it. Raises ValueError."""
        wanted = base.CHUNK
        while True:
            # A value can end early where the text read so far does, so only a delimiter ends it.
            failure: ValueError
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._position)
                if not delimited:
                    if not isinstance(value, dict):
                        raise ValueError("an object is wanted here")
                    self.skip(end - self._position)
                    return value, self.offset, "," if self.peek() else ""
                after = _SPACE.match(self._buffer, end).end()  # type: ignore[union-attr]
                delimiter = self._buffer[after : after + 1]
                if delimiter in (",", "]"):
                    if end - self._position > base.MAX_ROW_BYTES:
                        value = TooLarge(end - self._position)
                    self.skip(end - self._position)
                    end_offset = self.offset
                    self.skip(after + 1 - self._position)
                    return value, end_offset, delimiter
                failure = ValueError("a comma or the list's closing bracket is missing after it")
            except json.JSONDecodeError as error:
                failure = ValueError(error.msg)
            except ValueError as error:
                failure = error
            if len(self._buffer) - self._position > base.MAX_ROW_BYTES:
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
                    if mark == "}" or size <= base.MAX_ROW_BYTES:
                        raise failure
                    end = self.offset
                    self.skip(1)
                    return TooLarge(size), end, mark
            # A backslash belongs to what follows it.
            rest = len(self._buffer) - self._position
            ends = _BACKSLASHES.search(self._buffer, self._position)
            self.skip(rest - (len(ends[0]) % 2 if ends else 0))
            if not self._more(base.CHUNK):
                raise failure

    def _more(self, n_bytes: int) -> bool:
        chunk = self._stream.read(n_bytes)
        self._buffer = self._buffer[self._position :] + self._decoder.decode(chunk, not chunk)
        self._position = 0
        return bool(chunk)


_DECODER = json.JSONDecoder()
_JSON_MARK = re.compile(r'\\.|["{}\[\],]', re.DOTALL)
_BACKSLASHES = re.compile(r"\\+\Z")
