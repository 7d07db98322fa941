"""Files of columns: Parquet and Arrow."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from rare_assets.corpus.columns import FIELDS, Columns, names_within
from rare_assets.corpus.formats import base
from rare_assets.corpus.formats.base import SourceRow, Span, StoredFile, UnreadableFile, too_large
from rare_assets.corpus.formats.parquet_bytes import declare_bytes
from rare_assets.files.cache import temporary_folder

# No column of a source that is read has this name.
_SIZE = "bytes of the row"
_MOST_DAYS = 999_999_998
_ARROW_FILE = b"ARROW1"
_FEATHER_1 = b"FEA1"


class Parquet:
    """Rows by slices: of the file's columns and row groups, only what a slice needs is read."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def spans(self, file: StoredFile, rows_per_span: int) -> list[Span]:
        with self._place(file) as path:
            n_rows = self._scan(path, file.name).select(pl.len()).collect().item()
        return [
            Span(start + 1, min(rows_per_span, n_rows - start), None, None)
            for start in range(0, n_rows, rows_per_span)
        ] or [Span(1, 0, None, None)]

    def rows(self, file: StoredFile, span: Span) -> Iterator[SourceRow]:
        with self._place(file) as path:
            try:
                frame = self._frame(path, file.name, span)
            except pl.exceptions.ComputeError:
                found = self._frame_of_bytes(file, span)
                if found is None:
                    raise
                frame = found
        for row, value in enumerate(frame.iter_rows(named=True), span.first_row):
            n_bytes = value.pop(_SIZE)
            if n_bytes > base.MAX_ROW_BYTES:
                yield too_large(row, n_bytes)
            else:
                yield SourceRow(row, value)

    def _frame(self, path: str, name: str, span: Span) -> pl.DataFrame:
        scan = self._scan(path, name).slice(span.first_row - 1, span.n_rows)
        schema = scan.collect_schema()
        size = _row_size(schema)
        # What is too large leaves with the part of the file that it was decoded with.
        fits = pl.when(size <= base.MAX_ROW_BYTES).then(pl.all())
        read = scan.select(fits, size.alias(_SIZE))
        if times := [
            _python_times(pl.col(n), t).alias(n) for n, t in schema.items() if _has_times(t)
        ]:
            read = read.with_columns(times)
        return read.collect(engine="streaming")

    def _frame_of_bytes(self, file: StoredFile, span: Span) -> pl.DataFrame | None:
        """Return the rows with their strings as bytes, so that a broken one costs its own row; None if that is not
        what is wrong with the file."""
        names = {part for column in self._columns.names.values() for part in column.split(".")}
        with (
            file.on_disk() as path,
            tempfile.TemporaryDirectory(prefix="rare-source-", dir=temporary_folder()) as folder,
        ):
            copy = Path(shutil.copyfile(path, os.path.join(folder, "copy.parquet")))
            if not declare_bytes(copy, names | set(self._columns.names.values())):
                return None
            try:
                return self._frame(str(copy), file.name, span)
            except pl.exceptions.PolarsError:
                return None

    def _place(self, file: StoredFile) -> AbstractContextManager[str]:
        return file.for_polars()

    def _open(self, path: str) -> pl.LazyFrame:
        return pl.scan_parquet(path, glob=False, hive_partitioning=False)

    def _scan(self, path: str, name: str) -> pl.LazyFrame:
        scan = self._open(path)
        schema = scan.collect_schema()
        found = {field: _column(schema, name) for field, name in self._columns.names.items()}
        required = {"text", *self._columns.named}
        if missing := [field for field in FIELDS if field in required and found[field] is None]:
            raise UnreadableFile(f"{name}: {self._columns.problem(missing, _names(schema))}")
        wanted = {
            column: expression.alias(column)
            for field, column in self._columns.names.items()
            if (expression := found[field]) is not None
        }
        return scan.select(wanted.values())


class Arrow(Parquet):
    """Arrow's files, which are Feather's too, and its streams, which are read as a whole."""

    def _place(self, file: StoredFile) -> AbstractContextManager[str]:
        return file.on_disk()

    def _open(self, path: str) -> pl.LazyFrame:
        with open(path, "rb") as file:
            begin = file.read(len(_ARROW_FILE))
        if begin.startswith(_FEATHER_1):
            raise ValueError("Feather of version 1; write it again with version 2")
        if begin == _ARROW_FILE:
            return pl.scan_ipc(path, glob=False)
        return pl.read_ipc_stream(path).lazy()


def _row_size(schema: pl.Schema) -> pl.Expr:
    """Return the bytes of a row's texts."""
    sizes = [
        pl.col(name).str.len_bytes() if dtype == pl.String else pl.col(name).bin.size()
        for name, dtype in schema.items()
        if dtype in (pl.String, pl.Binary)
    ]
    return pl.sum_horizontal(pl.lit(0, pl.UInt64), *(size.fill_null(0) for size in sizes))


def _has_times(dtype: Any) -> bool:
    """Return True if a column holds dates or times, or lists or structs of them."""
    if isinstance(dtype, pl.Struct):
        return any(_has_times(field.dtype) for field in dtype.fields)
    return _has_times(dtype.inner) if isinstance(dtype, pl.List) else dtype.is_temporal()


def _python_times(column: pl.Expr, dtype: Any) -> pl.Expr:
    """Return dates and times with null for those that Python has none for, so that one costs its own row alone."""
    if not _has_times(dtype):
        return column
    if isinstance(dtype, pl.List):
        return column.list.eval(_python_times(pl.element(), dtype.inner))
    if isinstance(dtype, pl.Struct):
        parts = [
            _python_times(column.struct.field(field.name), field.dtype).alias(field.name)
            for field in dtype.fields
        ]
        return pl.when(column.is_not_null()).then(pl.struct(parts))
    if dtype == pl.Time:
        return column
    if dtype == pl.Duration:
        # A timedelta has at most 999,999,999 days, and a part of one.
        return pl.when(column.dt.total_days().is_between(-_MOST_DAYS, _MOST_DAYS)).then(column)
    fits = column.dt.year().is_between(date.min.year, date.max.year)
    if getattr(dtype, "time_zone", None):  # Python comes to the zone's time by way of UTC
        fits &= column.dt.convert_time_zone("UTC").dt.year() <= date.max.year
    return pl.when(fits).then(column)


def _column(schema: pl.Schema, name: str) -> pl.Expr | None:
    """Return a column by its name, or by dots that reach into structs; None if there is none."""
    if name in schema:
        return pl.col(name)
    first, *rest = name.split(".")
    if first not in schema:
        return None
    column: pl.Expr = pl.col(first)
    dtype: Any = schema[first]
    for part in rest:
        inner = (
            {field.name: field.dtype for field in dtype.fields}
            if isinstance(dtype, pl.Struct)
            else {}
        )
        if part not in inner:
            return None
        column, dtype = column.struct.field(part), inner[part]
    return column


def _names(schema: pl.Schema) -> list[str]:
    """Return the names of all columns, those within structs with what stands before the dot."""
    structs = {name: dtype for name, dtype in schema.items() if isinstance(dtype, pl.Struct)}
    return names_within(
        {
            name: {field.name: None for field in structs[name].fields} if name in structs else None
            for name in schema
        }
    )
