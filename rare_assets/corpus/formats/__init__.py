"""From the bytes of a source file to raw rows, one class a format, in bounded memory.

A format cuts a file into spans of rows once and reads a span later without reading what precedes
it. What a row means (which fields it needs, what is rejected) is `operators.read_documents`' part.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from rare_assets.corpus.columns import Columns
from rare_assets.corpus.formats.base import (
    DETAIL_LENGTH,
    Format,
    SourceError,
    SourceRow,
    Span,
    StoredFile,
    UnreadableFile,
    is_unicode,
    on_one_line,
    printable,
)
from rare_assets.corpus.formats.columnar import Parquet
from rare_assets.corpus.formats.delimited import Csv
from rare_assets.corpus.formats.json_lines import JsonLines
from rare_assets.corpus.formats.json_list import JsonList
from rare_assets.corpus.formats.text_file import TextFile

__all__ = [
    "DETAIL_LENGTH",
    "FORMATS",
    "Format",
    "SourceError",
    "SourceRow",
    "Span",
    "StoredFile",
    "UnreadableFile",
    "format_of",
    "is_text_file",
    "is_unicode",
    "on_one_line",
    "printable",
]

FORMATS: dict[str, Callable[[Columns], Format]] = {
    ".jsonl": lambda _: JsonLines(),
    ".ndjson": lambda _: JsonLines(),
    ".json": lambda _: JsonList(),
    ".parquet": Parquet,
    ".csv": Csv,
    ".txt": lambda _: TextFile(headings=False),
    ".md": lambda _: TextFile(headings=True),
}

# Formats of which a file is one text, not rows.
TEXT_FILES = {".txt", ".md"}


def is_text_file(path: str) -> bool:
    """Return True if a file is one text, by its name."""
    return PurePosixPath(path).suffix.lower() in TEXT_FILES


def format_of(path: str, columns: Columns) -> Format:
    """Return the format that a file's name says, to be read by those columns."""
    return FORMATS[PurePosixPath(path).suffix.lower()](columns)
