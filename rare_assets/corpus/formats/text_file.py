"""Files that are one text each: plain, Markdown, and what a parser makes text of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from rare_assets.corpus.extraction.process import Extractor
from rare_assets.corpus.formats import base
from rare_assets.corpus.formats.base import (
    BOM,
    NO_BYTES,
    SourceRow,
    Span,
    StoredFile,
    too_large,
    undecodable,
)
from rare_assets.corpus.passages import first_heading, front_title
from rare_assets.text.encodings import wide_encoding

# A PDF's pictures are none of its text, so it may be larger than a row.
_MAX_PDF_BYTES = 512 << 20


class TextFile:
    """A file that is one text as it stands. `headings`: its first `# ` is the title, else the one in the data before it."""

    def __init__(self, *, headings: bool) -> None:
        self._headings = headings

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        return [Span(1, 1, None, None)]

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        with file.open() as stream:
            content = stream.read(base.MAX_ROW_BYTES + 1)
            if not content:
                yield SourceRow(1, None, "empty_text", NO_BYTES)
                return
            content = content.removeprefix(BOM)
            if len(content) > base.MAX_ROW_BYTES:
                yield too_large(1, stream.seek(0, os.SEEK_END))
                return
        mark, encoding = wide_encoding(content) or (b"", "utf-8")
        try:
            text = content[len(mark) :].decode(encoding)
        except UnicodeDecodeError as error:
            yield SourceRow(1, None, "not_utf8", undecodable(error, content))
            return
        title = (first_heading(text) or front_title(text)) if self._headings else None
        yield SourceRow(1, {"text": text, "title": title})


class ParsedFile:
    """A file of which a parser makes text, in a process that is killed if it takes too much."""

    def __init__(self, kind: str, extractor: Callable[[], Extractor]) -> None:
        self._kind = kind
        self._extractor = extractor

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        return [Span(1, 1, None, None)]

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        with file.open() as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            if size > (_MAX_PDF_BYTES if self._kind == "pdf" else base.MAX_ROW_BYTES):
                yield too_large(1, size)
                return
            if not size:
                yield SourceRow(1, None, "empty_text", NO_BYTES)
                return
            found = self._extractor().extract(self._kind, stream, size)
        if found.problem:
            yield SourceRow(1, None, found.problem, found.detail)
            return
        yield SourceRow(1, {"text": found.text, "title": first_heading(found.text) or found.title})
