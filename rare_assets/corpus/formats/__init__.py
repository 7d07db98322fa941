"""From the bytes of a source file to raw rows, one class a format, in bounded memory.

A format cuts a file into spans of rows once and reads a span later without reading what precedes
it. What a row means (which fields it needs, what is rejected) is `operators.read_documents`' part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rare_assets.corpus.columns import Columns
from rare_assets.corpus.extraction.process import Extractor
from rare_assets.corpus.formats.base import (
    DETAIL_LENGTH,
    FILL_IT,
    NO_BYTES,
    Format,
    SourceError,
    SourceRow,
    Span,
    StoredFile,
    UnreadableFile,
    is_unicode,
    printable,
)
from rare_assets.corpus.formats.columnar import Arrow, Parquet
from rare_assets.corpus.formats.delimited import Csv, Tsv
from rare_assets.corpus.formats.json_lines import JsonLines
from rare_assets.corpus.formats.json_list import JsonList
from rare_assets.corpus.formats.streams import PACKED
from rare_assets.corpus.formats.text_file import ParsedFile, TextFile
from rare_assets.text.shown import on_one_line

__all__ = [
    "DETAIL_LENGTH",
    "FILL_IT",
    "FORMATS",
    "KNOWN_FORMATS",
    "NO_BYTES",
    "Format",
    "Reading",
    "SourceError",
    "SourceRow",
    "Span",
    "StoredFile",
    "UnreadableFile",
    "format_of",
    "has_markdown",
    "is_known",
    "is_text_file",
    "is_unicode",
    "on_one_line",
    "printable",
]


class Reading(NamedTuple):
    """All that formats need to read files: which column is which, and who parses."""

    columns: Columns
    extractor: Callable[[], Extractor]


FORMATS: dict[str, Callable[[Reading], Format]] = {
    ".jsonl": lambda _: JsonLines(),
    ".ndjson": lambda _: JsonLines(),
    ".json": lambda _: JsonList(),
    ".parquet": lambda reading: Parquet(reading.columns),
    ".arrow": lambda reading: Arrow(reading.columns),
    ".feather": lambda reading: Arrow(reading.columns),
    ".csv": lambda reading: Csv(reading.columns),
    ".tsv": lambda reading: Tsv(reading.columns),
    ".txt": lambda _: TextFile(headings=False),
    ".md": lambda _: TextFile(headings=True),
    ".html": lambda reading: ParsedFile("html", reading.extractor),
    ".htm": lambda reading: ParsedFile("html", reading.extractor),
    ".pdf": lambda reading: ParsedFile("pdf", reading.extractor),
    ".docx": lambda reading: ParsedFile("docx", reading.extractor),
}
# Formats that may be packed: they are read from the first byte to the last.
_PACKABLE = {".jsonl", ".ndjson", ".json", ".csv", ".tsv"}
# Formats of which a file is one text, not rows, and those with the marks of Markdown.
_TEXT = {".txt", ".md", ".html", ".htm", ".pdf", ".docx"}
_MARKDOWN = _TEXT - {".txt", ".pdf"}
KNOWN_FORMATS = f"{', '.join(FORMATS)}, and .gz or .zst after {', '.join(sorted(_PACKABLE))}"


def format_of(path: str, reading: Reading) -> Format:
    """Return the format that a file's name says.

    Raises:
        KeyError: no format has that ending; see `is_known`.
    """
    return FORMATS[_suffix(path)](reading)


def is_known(path: str) -> bool:
    """Return True if files of that name can be read.

    >>> is_known("notes/ice.JSONL.gz"), is_known("notes/ice.doc")
    (True, False)
    """
    return _suffix(path) in FORMATS


def is_text_file(path: str) -> bool:
    """Return True if a file is one text, by its name."""
    return _suffix(path) in _TEXT


def has_markdown(path: str) -> bool:
    """Return True if a file's text has the marks of Markdown, by its name."""
    return _suffix(path) in _MARKDOWN


def _suffix(path: str) -> str:
    """Return the ending that says the format, without that of a packed file."""
    # As a path's suffix, without making one: there may be a hundred thousand.
    name = path.rpartition("/")[2].lower()
    stem, dot, ending = name.rpartition(".")
    if dot + ending in PACKED and (inner := dot + stem.rpartition(".")[2]) in _PACKABLE:
        return inner
    return dot + ending if stem else ""
