"""Make the `documents` table of the rows of a source file."""

from __future__ import annotations

import hashlib
import math
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from datetime import time as clock
from decimal import Decimal
from itertools import islice
from typing import Any, NamedTuple

import polars as pl

from rare_assets.corpus.columns import FIELDS, MOST_COLLECTED, Columns, names_within
from rare_assets.corpus.formats import (
    FILL_IT,
    SourceRow,
    UnreadableFile,
    has_markdown,
    is_text_file,
    is_unicode,
    on_one_line,
    printable,
)
from rare_assets.corpus.passages import Cutting
from rare_assets.corpus.passages import cut as cut_text
from rare_assets.schemas import Documents, DocumentsRejects, Produced
from rare_assets.text.shown import cut
from rare_assets.text.words import count_words

# Goes up when the same source rows would give other documents.
READER_VERSION = "3"

# Reasons of a reject that is a file as a whole: its table is that of an earlier reading, or empty.
UNREADABLE, NO_USABLE_ROW, FILE_GONE, NO_SUCH_SHARD = FILE_REASONS = (
    "unreadable_file",
    "no_usable_row",
    "file_gone",
    "no_such_shard",
)

# A key of a row may be as long as the row.
_NAME_LENGTH = 1000

_OPTIONAL = ("title", "question", "scenario", "answer")
_DOCUMENT = (
    *("doc_id", "text", *_OPTIONAL, "parent_id", "passage", "char_start", "char_end"),
    *("text_hash", "source", "n_words"),
)
_REJECT = ("file", "row", "reason", "detail")


class _Shortened(reprlib.Repr):
    """Values for people to read; strings end between two characters."""

    def repr_str(self, x: str, level: int) -> str:
        return repr(cut(x, self.maxstring))


_SHORT = _Shortened()
_SHORT.maxstring = _SHORT.maxother = 80


class _Rejected(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class NoUsableRow(UnreadableFile):
    """Raised where not one row of a shard can be used. `rejects` says why of each, as `schemas.DocumentsRejects`."""

    def __init__(self, file: str, rejects: pl.DataFrame, why: str | None = None) -> None:
        super().__init__(_no_usable_row(file, rejects) + (f" It {why}" if why else ""))
        self.file = file
        self.rejects = rejects


class MissingColumn(UnreadableFile):
    """Raised where no row of a file has a column that RARE_COLUMNS names."""


def read_documents(
    rows: Iterable[SourceRow],
    *,
    file: str,
    columns: Columns | None = None,
    cutting: Cutting | None = None,
    say: Callable[[str], None] | None = None,
) -> Produced:
    """Make documents of a shard's source rows; whatever can't be one is a reject.

    A row is an object with `text` and, where it has them, `id`, `title`, `question`, `scenario` and
    `answer`, or with the columns that stand for them:

    - `text` stays as it stands in the source.
    - `text_hash` is 32 hex digits of the SHA-256 of the text in Unicode form NFC without surrounding
      white space, so copies that differ in these alone are equal texts.
    - `doc_id` is the source's `id` (a string, a whole number, a date or bytes, written as a string),
      else "d-" and the first 16 digits of `text_hash`. Null and NaN count as no id.
    - `title`, `question`, `scenario` and `answer`: numbers and booleans are written as JSON would,
      dates as ISO 8601 says, any other type is null.

    Reasons of a reject: `broken_json`, `not_utf8` (also a lone surrogate, which no UTF-8 file can
    hold), `bad_csv_row` (fields don't match the header), `too_large` (more bytes than
    `source_formats.MAX_ROW_BYTES`, so that it was not read), `not_an_object`, `no_text` (missing, null or
    NaN), `text_not_a_string`, `empty_text` (nothing but white space), `bad_id`, `duplicate_text`,
    `duplicate_id`; of a text file as a whole `encrypted`, `broken_file`, `no_text_layer` (pictures alone) and
    `parser_stopped` (it took too long or too much memory); `unreadable` is one of a shard's files. Of
    duplicates within the shard the first stays; equal text is looked at before id.

    Args:
        rows: what `CorpusSource.read` yields.
        file: the file's path in the source, for `source`, rejects and messages.
        columns: which column is which.
        cutting: which rows are cut into passages. Text files are, rows with a question never.
        say: is told of a column that may be the rows' id and is not read as such.

    Returns:
        `Documents` and `DocumentsRejects`; their rows add up to the rows given, passages counted as rows.

    Raises:
        NoUsableRow: not one row can be used. Says how often each reason occurred.
        MissingColumn: there are rows, and none has a column that was named.

    >>> rows = [SourceRow(1, {"text": "Salt lowers the freezing point.", "id": 7}), SourceRow(2, {"text": " "})]
    >>> produced = read_documents(rows, file="notes.jsonl")
    >>> produced.rows.select("doc_id", "n_words", "source").rows()
    [('7', 5, 'notes.jsonl:1')]
    >>> produced.rejects.select("row", "reason").rows()
    [(2, 'empty_text')]
    """
    columns, cutting = columns or Columns(), cutting or Cutting()
    seen = _Seen(columns)
    documents: list[tuple[Any, ...]] = []
    rejects: list[tuple[Any, ...]] = []
    kept = _Kept()
    for row in rows:
        path = row.file or file
        try:
            value = _object(row)
            # A text file has no columns.
            fields = value if is_text_file(path) else seen.fields(value)
            passages = _passages(fields, value, path, cutting)
        except _Rejected as rejected:
            rejects.append((path, row.row, rejected.reason, printable(rejected.detail)))
            continue
        optional = [_optional(fields.get(name)) for name in _OPTIONAL[1:]]
        for passage in passages:
            try:
                doc_id, text_hash = kept.keep(passage, row.row)
            except _Rejected as rejected:
                rejects.append((path, row.row, rejected.reason, printable(rejected.detail)))
                continue
            place = (passage.parent_id or doc_id, passage.number, passage.start, passage.end)
            source = f"{path}:{row.row}"
            n_words = count_words(passage.text) if passage.words is None else passage.words
            documents.append(
                (doc_id, passage.text, passage.title, *optional, *place, text_hash, source, n_words)
            )

    if say and (hint := columns.unused_id(list(seen.columns))):
        say(f"{on_one_line(file)}: {hint}")
    left_out = _frame(rejects, _REJECT, DocumentsRejects)
    if missing := seen.missing():
        told = columns.problem(missing, list(seen.columns))
        if documents:
            error = MissingColumn(f"{on_one_line(file)}: {told}")
            error.file = file
            raise error
        raise NoUsableRow(file, left_out, told)
    if not documents:
        raise NoUsableRow(file, left_out)
    return Produced(
        Documents.validate(_frame(documents, _DOCUMENT, Documents), cast=True),
        DocumentsRejects.validate(left_out, cast=True),
    )


def without_file(file: str, reason: str, detail: str, earlier: Produced | None = None) -> Produced:
    """Make what stands for a shard whose file can't be read: what was read of it before, or nothing.

    Args:
        file: the file's path in the source.
        reason: one of FILE_REASONS.
        detail: what is wrong, and what to do.
        earlier: the shard's documents and rejects of an earlier reading.

    Returns:
        The earlier rows and rejects, with one reject that has no row: the file.
    """
    rows, rejects = earlier or (Documents.create_empty(), DocumentsRejects.create_empty())
    rejects = rejects.filter(~pl.col("reason").is_in(FILE_REASONS))
    whole = _frame([(file, None, reason, detail)], _REJECT, DocumentsRejects)
    return Produced(
        Documents.cast(rows),
        DocumentsRejects.validate(pl.concat([DocumentsRejects.cast(rejects), whole]), cast=True),
    )


class _Passage(NamedTuple):
    """A text that becomes a document, with its place in the row that it was cut out of."""

    text: str
    title: str | None
    given_id: str | None
    parent_id: str | None
    number: int = 1
    start: int | None = None
    end: int | None = None
    words: int | None = None


def _passages(
    fields: dict[str, Any], row: dict[str, Any], file: str, cutting: Cutting
) -> list[_Passage]:
    """Return the passages of a row: itself, or what it is cut into."""
    text, given_id = _text(fields, row), _given_id(fields, row)
    title = _optional(fields.get("title"))
    is_file = is_text_file(file)
    words = cutting.words(text_file=is_file) if _optional(fields.get("question")) is None else 0
    found = cut_text(text, words, markdown=has_markdown(file)) if words else []
    if not found:
        if is_file:
            return [_Passage(text, title, None, file, 1, 0, len(text))]
        return [_Passage(text, title, given_id, given_id)]
    parent_id = file if is_file else given_id or f"d-{_text_hash(text)[:16]}"
    return [
        _Passage(
            text[passage.start : passage.end],
            passage.title or title,
            given_id and f"{given_id}#{number}",
            parent_id,
            number,
            passage.start,
            passage.end,
            passage.words,
        )
        for number, passage in enumerate(found, 1)
    ]


class _Kept:
    """The texts and ids of a shard so far."""

    def __init__(self) -> None:
        self._row_of_text: dict[str, int] = {}
        self._row_of_id: dict[str, int] = {}

    def keep(self, passage: _Passage, row: int) -> tuple[str, str]:
        """Return id and text hash of a passage. Raises _Rejected if its text or its id is there already."""
        text_hash = _text_hash(passage.text)
        if text_hash in self._row_of_text:
            raise _Rejected("duplicate_text", f"equal to row {self._row_of_text[text_hash]}")
        doc_id = passage.given_id or f"d-{text_hash[:16]}"
        if doc_id in self._row_of_id:
            raise _Rejected(
                "duplicate_id", f"{_shown(doc_id)} is the id of row {self._row_of_id[doc_id]}"
            )
        self._row_of_text[text_hash] = self._row_of_id[doc_id] = row
        return doc_id, text_hash


class _Seen:
    """The columns of the rows so far, and the fields that none of them had yet."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._wanted = {"text", *columns.named}
        self.columns: dict[str, None] = {}

    def fields(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a row."""
        fields = self._columns.fields(row)
        if self._wanted:
            self._collect(row)
            self._wanted.difference_update(fields)
        return fields

    def _collect(self, row: dict[str, Any]) -> None:
        """Keep the names of a row's columns for a message, until there are too many for one."""
        if len(self.columns) < MOST_COLLECTED:
            for name in islice(names_within(row), MOST_COLLECTED - len(self.columns)):
                self.columns[name[:_NAME_LENGTH]] = None

    def missing(self) -> list[str]:
        """Return the fields that must be there and are in no row; none if there were no rows."""
        return [name for name in FIELDS if name in self._wanted] if self.columns else []


def _object(row: SourceRow) -> dict[str, Any]:
    if row.problem is not None:
        raise _Rejected(row.problem, row.detail or "")
    if not isinstance(row.value, dict):
        raise _Rejected("not_an_object", f"{_type_name(row.value)}: {_shown(row.value)}")
    return row.value


def _text(fields: dict[str, Any], row: dict[str, Any]) -> str:
    text = fields.get("text")
    if _is_missing(text):
        raise _Rejected("no_text", _shown(row))
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if not isinstance(text, str):
        raise _Rejected("text_not_a_string", f"{_type_name(text)}: {_shown(row)}")
    if not is_unicode(text):
        raise _Rejected("not_utf8", f"`text` is not UTF-8: {text}")
    if not text.strip():
        raise _Rejected("empty_text", _shown(row))
    return text


def _given_id(fields: dict[str, Any], row: dict[str, Any]) -> str | None:
    given = fields.get("id")
    if _is_missing(given):
        return None
    if isinstance(given, bytes):
        # As text where it is some, else as hashes and UUIDs are written.
        readable = given.decode("utf-8", "surrogateescape")
        given = readable if readable.isprintable() and is_unicode(readable) else given.hex()
    if isinstance(given, date | clock):
        return given.isoformat()
    if isinstance(given, Decimal) and given == given.to_integral_value():
        return str(int(given))
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    # Pandas makes a column of whole numbers floats as soon as one is missing.
    if isinstance(given, float) and given.is_integer():
        return str(int(given))
    if not isinstance(given, str) or not given.strip() or not is_unicode(given):
        raise _Rejected("bad_id", f"{_type_name(given)} {_shown(given)}: {_shown(row)}")
    return given


def _optional(value: Any) -> str | None:
    if isinstance(value, str):
        return value if is_unicode(value) else value.encode("utf-8", "replace").decode()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, date | clock):
        return value.isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal) and not _is_missing(value):
        return str(value)
    return None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def _text_hash(text: str) -> str:
    normal = unicodedata.normalize("NFC", text).strip()
    return hashlib.sha256(normal.encode()).hexdigest()[:32]


def _type_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _shown(value: Any) -> str:
    return printable(_SHORT.repr(value))


def _frame(rows: list[tuple[Any, ...]], columns: tuple[str, ...], schema: Any) -> pl.DataFrame:
    types = {name: column.dtype for name, column in schema.columns().items()}
    return pl.DataFrame(rows, schema={name: types[name] for name in columns}, orient="row")


def _no_usable_row(file: str, rejects: pl.DataFrame) -> str:
    name = on_one_line(file)
    if rejects.is_empty():
        return f"{name}: no usable row: it has no rows. {FILL_IT}"
    counts = Counter(rejects["reason"].to_list())
    summary = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
    _, row, reason, detail = rejects.select(_REJECT).row(0)
    needed = (
        " Rows need their passage as a string in `text`, or in the column that RARE_COLUMNS names."
    )
    if is_text_file(file):
        needed = ""
    return (
        f"{name}: no usable row among {rejects.height:,} ({summary}). First, row {row}: {reason}: "
        f"{detail.rstrip('.')}.{needed}"
    )
