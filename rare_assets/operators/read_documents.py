"""From rows of a source file to the `documents` table."""

from __future__ import annotations

import hashlib
import math
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import polars as pl

from rare_assets.corpus.formats import (
    SourceRow,
    UnreadableFile,
    is_unicode,
    on_one_line,
    printable,
)
from rare_assets.schemas import Documents, DocumentsRejects, Produced
from rare_assets.text.shown import cut
from rare_assets.text.words import count_words

# Goes up when the same source rows would give other documents.
READER_VERSION = "2"

# Reasons of a reject that is a file as a whole: its table is that of an earlier reading, or empty.
UNREADABLE, NO_USABLE_ROW, FILE_GONE, NO_SUCH_SHARD = FILE_REASONS = (
    "unreadable_file",
    "no_usable_row",
    "file_gone",
    "no_such_shard",
)

_DOCUMENT = ("doc_id", "text", "title", "answer", "text_hash", "source", "n_words")
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
    """Not one row of a shard can be used. `rejects` says why of each, as `DocumentsRejects`."""

    def __init__(self, file: str, rejects: pl.DataFrame) -> None:
        super().__init__(_no_usable_row(file, rejects))
        self.file = file
        self.rejects = rejects


def read_documents(rows: Iterable[SourceRow], *, file: str) -> Produced:
    """Make documents of a shard's source rows; whatever can't be one is a reject.

    A row is an object with `text` and, where it has them, `id`, `title` and `answer`:

    - `text` stays as it stands in the source.
    - `text_hash` is 32 hex digits of the SHA-256 of the text in Unicode form NFC without surrounding
      white space, so copies that differ in these alone are equal texts.
    - `doc_id` is the source's `id` (a string, or a whole number written as one), else "d-" and the
      first 16 digits of `text_hash`. Null and NaN count as no id.
    - `title` and `answer`: numbers and booleans are written as JSON would, any other type is null.

    Reasons of a reject: `broken_json`, `not_utf8` (also a lone surrogate, which no UTF-8 file can
    hold), `bad_csv_row` (fields don't match the header), `too_large` (more bytes than
    `source_formats.MAX_ROW_BYTES`, so that it was not read), `not_an_object`, `no_text` (missing, null or
    NaN), `text_not_a_string`, `empty_text` (nothing but white space), `bad_id`, `duplicate_text`,
    `duplicate_id`. Of duplicates within the shard the first stays; equal text is looked at before id.

    Args:
        rows: what `CorpusSource.read` yields.
        file: the file's path in the source, for `source`, rejects and messages.

    Returns:
        `Documents` and `DocumentsRejects`; their rows add up to the rows given.

    Raises:
        NoUsableRow: not one row can be used. Says how often each reason occurred.
    """
    documents: list[tuple[Any, ...]] = []
    rejects: list[tuple[Any, ...]] = []
    row_of_text: dict[str, int] = {}
    row_of_id: dict[str, int] = {}
    for row in rows:
        try:
            fields = _fields(row)
            text = _text(fields)
            doc_id = _given_id(fields)
            text_hash = _text_hash(text)
            if text_hash in row_of_text:
                raise _Rejected("duplicate_text", f"equal to row {row_of_text[text_hash]}")
            doc_id = doc_id or f"d-{text_hash[:16]}"
            if doc_id in row_of_id:
                raise _Rejected(
                    "duplicate_id", f"{_shown(doc_id)} is the id of row {row_of_id[doc_id]}"
                )
        except _Rejected as rejected:
            rejects.append((file, row.row, rejected.reason, printable(rejected.detail)))
            continue
        row_of_text[text_hash] = row_of_id[doc_id] = row.row
        title, answer = _optional(fields.get("title")), _optional(fields.get("answer"))
        source = f"{file}:{row.row}"
        documents.append((doc_id, text, title, answer, text_hash, source, count_words(text)))

    left_out = _frame(rejects, _REJECT, DocumentsRejects)
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


def _fields(row: SourceRow) -> dict[str, Any]:
    if row.problem is not None:
        raise _Rejected(row.problem, row.detail or "")
    if not isinstance(row.value, dict):
        raise _Rejected("not_an_object", f"{_type_name(row.value)}: {_shown(row.value)}")
    return row.value


def _text(fields: dict[str, Any]) -> str:
    text = fields.get("text")
    if _is_missing(text):
        raise _Rejected("no_text", _shown(fields))
    if not isinstance(text, str):
        raise _Rejected("text_not_a_string", f"{_type_name(text)}: {_shown(fields)}")
    if not is_unicode(text):
        raise _Rejected("not_utf8", f"`text` is not UTF-8: {text}")
    if not text.strip():
        raise _Rejected("empty_text", _shown(fields))
    return text


def _given_id(fields: dict[str, Any]) -> str | None:
    given = fields.get("id")
    if _is_missing(given):
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    # Pandas makes a column of whole numbers floats as soon as one is missing.
    if isinstance(given, float) and given.is_integer():
        return str(int(given))
    if not isinstance(given, str) or not given.strip() or not is_unicode(given):
        raise _Rejected("bad_id", f"{_type_name(given)} {_shown(given)}: {_shown(fields)}")
    return given


def _optional(value: Any) -> str | None:
    if isinstance(value, str):
        return value if is_unicode(value) else value.encode("utf-8", "replace").decode()
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
        return f"{name}: no usable row: it has no rows. Remove it from the source, or fill it."
    counts = Counter(rejects["reason"].to_list())
    summary = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
    _, row, reason, detail = rejects.select(_REJECT).row(0)
    return (
        f"{name}: no usable row among {rejects.height:,} ({summary}). First, row {row}: {reason}: "
        f"{detail}. Rows need their passage as a string in `text`."
    )
