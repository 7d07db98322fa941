"""Read the texts of evaluation files: every text that a row holds, under whatever name, or an error.

What was silently passed over would be trained on, so a file that looks like data is read or refused.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import IO, Any, NamedTuple

import polars as pl
from fsspec.implementations.local import LocalFileSystem

from rare_assets.corpus.columns import Columns
from rare_assets.corpus.formats import SourceError, SourceRow, StoredFile, is_unicode
from rare_assets.corpus.formats.base import BOM, Span, StreamFormat, TooLarge
from rare_assets.corpus.formats.delimited import Csv, Tsv
from rare_assets.corpus.formats.json_lines import JsonLines
from rare_assets.corpus.formats.json_list import JsonList
from rare_assets.corpus.formats.streams import PACKED, as_utf8, zstd
from rare_assets.exports.options import ExportError
from rare_assets.storage.footers import UNREADABLE
from rare_assets.text.shown import first_names
from rare_assets.text.shown_url import shown
from rare_assets.text.words import count_units

# Of fewer words none is found, be it a question or a passage.
FEWEST_WORDS = 5
QUESTIONS = ("query", "question", "queries", "anchor", "prompt")
PASSAGES = ("text", "content", "contents", "passage", "document", "answer", "gold_answer", "body")
_BATCH = 20_000
# What lies beside data: code, settings, pictures, checksums.
_NO_DATA = frozenset(
    [
        ".py",
        ".pyc",
        ".ipynb",
        ".sh",
        ".toml",
        ".cfg",
        ".ini",
        ".yaml",
        ".yml",
        ".lock",
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".svg",
        ".webp",
        ".css",
        ".js",
        ".bib",
        ".cff",
        ".log",
        ".md5",
        ".sha1",
        ".sha256",
        ".sha512",
    ]
)
_NO_DATA_NAMES = frozenset(
    [
        "LICENSE",
        "LICENCE",
        "NOTICE",
        "README",
        "AUTHORS",
        "CHANGELOG",
        "CONTRIBUTING",
        "CITATION",
        "MAKEFILE",
        "DOCKERFILE",
    ]
)
_READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, zstd.ZstdError, csv.Error, *UNREADABLE)


class Item(NamedTuple):
    """One evaluation text and where it stands."""

    file: str
    row: int
    text: str
    is_question: bool


class _Row(NamedTuple):
    number: int
    value: Any


def files(paths: list[str]) -> list[Path]:
    """Return the evaluation files of some files and folders.

    Raises:
        ExportError: one is missing, or looks like data and can't be read.
    """
    found: list[Path] = []
    for given in paths:
        if "://" in given:
            raise ExportError(
                f"exclude: {shown(given)} is a URL; copy its files to a folder, and name that."
            )
        path = Path(given).expanduser()
        if path.is_dir():
            found += _inside(path)
        elif not path.exists():
            raise ExportError(f"exclude: {path} is not there.")
        elif _kind(path) not in _READERS:
            raise ExportError(
                f"exclude: {path} is no file of a kind that can be read: {_kinds_read()}."
            )
        else:
            found.append(path)
    return found


def items(path: Path) -> Iterator[Item]:
    """Yield the texts of a file.

    A name that is known says whether a text is a question or a passage; any other text may be both.

    Raises:
        ExportError: it can't be read, or holds no text that could be found.
    """
    try:
        yield from _READERS[_kind(path)](path)
    except (SourceError, *_READ_ERRORS) as error:
        raise ExportError(f"exclude: {path} can't be read: {error}") from error


def _inside(folder: Path) -> list[Path]:
    """Return the files of a folder that hold data; what is hidden and BEIR's judgements, ids alone, hold none."""
    visible = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and "qrels" not in parts and not any(p.startswith(".") for p in parts):
            visible.append(path)
    data = [path for path in visible if not _is_beside_data(path)]
    refused = [str(path) for path in data if _kind(path) not in _READERS]
    if refused:
        raise ExportError(
            f"exclude: {first_names(refused)} can't be read, and may hold what is to be left out. Write them as "
            f"{_kinds_read()}, or take them out of the folder."
        )
    if not data:
        raise ExportError(
            f"exclude: the folder {folder} holds no file that can be read: {_kinds_read()}."
        )
    return data


def _is_beside_data(path: Path) -> bool:
    """Return whether a file is no data, by its name."""
    return path.suffix.lower() in _NO_DATA or path.name.upper() in _NO_DATA_NAMES


def _kind(path: Path) -> str:
    """Return the ending that says the format, in lower case and without that of a packed file.

    >>> _kind(Path("Q.JSONL.gz")), _kind(Path("q.parquet")), _kind(Path("q.parquet.gz"))
    ('.jsonl', '.parquet', '.gz')
    """
    name = Path(path.name.lower())
    inner = Path(name.stem).suffix
    return (
        inner if name.suffix in PACKED and inner in _READERS.keys() - {".parquet"} else name.suffix
    )


def _kinds_read() -> str:
    return f"{', '.join(sorted(_READERS))}, and all but .parquet with .gz or .zst behind"


def _texts_of(path: Path, rows: Iterable[_Row]) -> Iterator[Item]:
    """Yield the texts of rows, in lists and in what they hold, too."""
    all_asked = path.name.lower().startswith("queries")
    names: set[str] = set()
    useful = False
    for number, value in rows:
        fields = value if isinstance(value, dict) else {"": value}
        names.update(fields)
        for name, field in fields.items():
            known = name.lower()
            is_question = all_asked or known not in PASSAGES
            for text in _strings(field):
                _require_unicode(path, number, text)
                if not useful:
                    is_known = known in QUESTIONS or known in PASSAGES
                    useful = is_known or count_units(text) >= FEWEST_WORDS
                yield Item(str(path), number, text, is_question)
    if names and not useful:
        raise ExportError(
            f"exclude: {path} has none of the columns {', '.join(QUESTIONS + PASSAGES)}, and no other of "
            f"{FEWEST_WORDS} words; it has {', '.join(sorted(names - {''}))}."
        )


def _strings(value: Any) -> Iterator[str]:
    """Yield each text in a value that is not blank, however deep."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _require_unicode(path: Path, number: int, text: str) -> None:
    if not is_unicode(text):
        raise _broken(path, number, "it has bytes that are not UTF-8")


def _broken(path: Path, number: int, why: str | None) -> ExportError:
    return ExportError(
        f"exclude: {path}, row {number} can't be read: {why}. Repair the row or take it out: what can't be read "
        "can't be looked for."
    )


def _stored(path: Path) -> StoredFile:
    return StoredFile(LocalFileSystem(), str(path.absolute()), str(path))


def _rows_of(path: Path, kind: StreamFormat) -> Iterator[_Row]:
    """Yield the rows of a file of one of the corpus' formats."""
    found: SourceRow
    for found in kind.rows(_stored(path), Span(1, sys.maxsize, 0, None)):
        if found.problem is not None:
            raise _broken(path, found.row, found.detail)
        yield _Row(found.row, found.value)


def _json_lines(path: Path) -> Iterator[Item]:
    yield from _texts_of(path, _rows_of(path, JsonLines()))


def _json(path: Path) -> Iterator[Item]:
    """Read a list element by element, one value as a whole, or values that stand in lines."""
    with _stored(path).open() as raw, as_utf8(raw) as stream:
        is_list = stream.read(_BATCH).removeprefix(BOM).lstrip().startswith(b"[")
    if is_list:
        yield from _texts_of(path, _rows_of(path, JsonList()))
        return
    try:
        with _lines(path) as file:
            whole = json.load(file)
    except json.JSONDecodeError:
        yield from _json_lines(path)
    else:
        yield from _texts_of(path, [_Row(1, whole)])


def _csv(path: Path) -> Iterator[Item]:
    yield from _texts_of(path, _records_of(path, Csv(Columns())))


def _tsv(path: Path) -> Iterator[Item]:
    yield from _texts_of(path, _records_of(path, Tsv(Columns())))


def _records_of(path: Path, kind: Csv | Tsv) -> Iterator[_Row]:
    """Yield the records of a file by the names in its first, which may be a record itself where it has no header."""
    header: list[str] = []
    with _stored(path).open() as raw, as_utf8(raw) as stream:
        for number, (record, *_) in enumerate(kind.records(stream, 0)):
            if isinstance(record, TooLarge):
                raise _broken(path, number, f"it has {record.size:,} bytes")
            if not isinstance(record, list):
                raise _broken(path, number, record.error)
            if number == 0:
                header = record
                yield _Row(1, record)
                continue
            yield _Row(number, _named(record, header))


def _named(record: list[str], header: list[str]) -> dict[str, str]:
    """Return the fields of a record by name; by place those that the header does not name, or names twice."""
    fields: dict[str, str] = {}
    for place, field in enumerate(record):
        name = header[place] if place < len(header) else ""
        fields[str(place) if not name or name in fields else name] = field
    return fields


def _parquet(path: Path) -> Iterator[Item]:
    yield from _texts_of(path, _parquet_rows(path))


def _parquet_rows(path: Path) -> Iterator[_Row]:
    frame = pl.scan_parquet(path, glob=False)
    schema = frame.collect_schema()
    texts = [name for name, dtype in schema.items() if _holds_text(dtype)]
    if not texts:
        # Their names are told.
        yield _Row(1, dict.fromkeys(schema))
        return
    batches = frame.select(texts).collect_batches(chunk_size=_BATCH)
    rows = chain.from_iterable(batch.iter_rows(named=True) for batch in batches)
    yield from map(_Row, count(1), rows)


def _holds_text(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _holds_text(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return any(_holds_text(field.dtype) for field in dtype.fields)  # type: ignore[arg-type]
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _text(path: Path) -> Iterator[Item]:
    """Read a text file. Each line may be a question; a run may go over the lines of a paragraph."""
    paragraph: list[str] = []
    first = 1
    with _lines(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                first = first if paragraph else number
                paragraph.append(line)
                yield Item(str(path), number, line.strip(), True)
            elif paragraph:
                yield Item(str(path), first, "".join(paragraph), False)
                paragraph = []
    if len(paragraph) > 1:
        yield Item(str(path), first, "".join(paragraph), False)


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    """Open a file as text, unpacked and without its byte order mark."""
    with (
        _stored(path).open() as raw,
        as_utf8(raw) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig") as text,
    ):
        yield text


_READERS: dict[str, Callable[[Path], Iterator[Item]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _text,
    ".md": _text,
}
