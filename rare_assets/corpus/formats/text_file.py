"""Text and Markdown files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rare_assets.corpus.formats import base
from rare_assets.corpus.formats.base import BOM, SourceRow, Span, StoredFile, too_large, undecodable


class TextFile:
    """A file that is one document, text as it stands. `headings`: its first `# ` is the title."""

    def __init__(self, *, headings: bool) -> None:
        self._headings = headings

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        return [Span(1, 1, None, None)]

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        with file.open() as stream:
            content = stream.read(base.MAX_ROW_BYTES + 1).removeprefix(BOM)
            if len(content) > base.MAX_ROW_BYTES:
                yield too_large(1, stream.seek(0, os.SEEK_END))
                return
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            yield SourceRow(1, None, "not_utf8", undecodable(error, content))
            return
        title = _first_heading(text) if self._headings else None
        yield SourceRow(1, {"text": text, "title": title})


def _first_heading(text: str) -> str | None:
    """Of a Markdown text, the first heading of level 1 that is not inside a code block."""
    in_code = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            in_code = not in_code
        elif line.startswith("# ") and not in_code:
            return line[2:].strip() or None
    return None
