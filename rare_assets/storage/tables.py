"""The stored tables: one Parquet file a shard, its rejects beside it, its provenance in the footer.

`<root>/<table>/<shard>.parquet` and `<root>/<table>_rejects/<shard>.parquet`, on a local folder or any
URL that both fsspec and Polars know (s3://, gs://, az://). A file is replaced whole or not at all.

How a file is written, read and found damaged: `parquet_files`; what its footer says: `footers`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

import dataframely as dy
import polars as pl

from rare_assets.files.stored_bytes import StorageDamaged, StorageError, accessing
from rare_assets.schemas import TABLES
from rare_assets.storage.footers import UNREADABLE, Damage, Provenance, content_hash, parsed
from rare_assets.storage.parquet_files import EXTENSION, ParquetFiles
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    from upath import UPath

# Footers that are remembered at most: some 50 MB.
KNOWN_FOOTERS = 50_000


class TableMissing(FileNotFoundError):
    """A table's shard that is needed has not been made yet."""


class TableDamaged(StorageDamaged):
    """A stored shard is not what was written; made again, it is mended."""


@lru_cache(KNOWN_FOOTERS)
def file_name(shard: str) -> str:
    """Return a shard key as a file name: what could leave the folder or hide the file is percent-encoded."""
    name = quote(shard, safe=" +@=,")
    return f"%2E{name[1:]}" if name.startswith(".") else name


class ParquetTables(ParquetFiles):
    """The tables of one storage root.

    Args:
        root: local folder or URL, as of `ParquetFiles`.

    Raises:
        StorageError: the protocol's package is missing.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root)
        # Footers of local files, by name, each with what changes when its file does.
        self._known: dict[tuple[str, str], tuple[tuple[int, ...], Provenance | None]] = {}
        # Planning looks at each footer, a dozen times at whether it has changed: a Path takes longer than the
        # system's call.
        self._root = str(self.root)

    def path(self, table: str, shard: str) -> UPath:
        """Return where a shard of a table is, or will be."""
        return self.root / table / f"{file_name(shard)}{EXTENSION}"

    def place(self, table: str, shard: str) -> str:
        """Return where a shard of a table is, or will be, as text."""
        return f"{self._root}/{table}/{file_name(shard)}{EXTENSION}"

    def rejects_path(self, table: str, shard: str) -> UPath:
        """Return where the rejects of a shard are, or will be."""
        return self.path(f"{table}_rejects", shard)

    def exists(self, table: str, shard: str) -> bool:
        """Return whether the shard of that table has been made. Raises StorageError if that can't be told."""
        return self._is_there(self.path(table, shard))

    def stored_versions(self, table: str) -> dict[str, str]:
        """Return the stored files of a table, from one listing: what changes when a file is replaced, by its
        name without the extension. Raises StorageError."""
        folder = self.root / table
        try:
            with accessing(folder, "read"):
                found = self._listed(folder)
        except FileNotFoundError:
            self._require_container()
            return {}
        return {
            name.removesuffix(EXTENSION): version
            for name, version in found.items()
            if name.endswith(EXTENSION) and not name.startswith(".")
        }

    def scan(self, table: str, shard: str) -> pl.LazyFrame:
        """Scan a shard's rows, lazily, with the columns that its file has: what an older one lacks was not looked at.

        Raises:
            TableMissing: it has not been made; names the file and the asset to make.
        """
        return self._scan(self.path(table, shard), table, shard)

    def scan_rejects(self, table: str, shard: str) -> pl.LazyFrame:
        """Scan what a shard could not use, lazily. Raises TableMissing."""
        return self._scan(self.rejects_path(table, shard), table, shard)

    def load(self, table: str, shard: str) -> pl.LazyFrame:
        """Read a shard's rows, lazily, once the whole file was compared with its checksum.

        For whatever costs money or changes the index. Columns that came after the file was written are
        null. A file that turns out damaged is marked, so that everybody who looks at its footer is told,
        and planning makes it again.

        Raises:
            TableMissing: it has not been made.
            TableDamaged: it is not what was written.
            StorageError: it can't be read.
        """
        rows = self._verified(self.path(table, shard), table, shard, TABLES[table].identity)
        return with_later_columns(rows, TABLES[table].schema)

    def load_rejects(self, table: str, shard: str) -> pl.LazyFrame:
        """Read what a shard could not use, lazily, verified as `load` does."""
        try:
            return self._verified(self.rejects_path(table, shard), table, shard)
        except TableDamaged:
            # Planning looks at the table alone, and rejects are made with it.
            self._mark_damaged(self.path(table, shard))
            raise

    @contextmanager
    def reading(self, table: str, shard: str, *, rejects: bool = False) -> Iterator[None]:
        """Collect in it what `scan` or `scan_rejects` gave: rows that can't be read are told as damage, and marked.

        For whoever reads a few rows of many files: they are verified only once one can't be read.

        Raises:
            TableDamaged: the file is not what was written.
        """
        try:
            yield
        except UNREADABLE:
            (self.load_rejects if rejects else self.load)(table, shard)
            raise

    def provenance(self, table: str, shard: str) -> Provenance | None:
        """Return what a stored shard was made from; None if it is missing.

        Raises:
            TableDamaged: its footer is damaged, or rare_assets did not write it.
            StorageError: it can't be read, so that nobody knows whether it is there.
        """
        version = self._version(table, shard)
        known = self._known.get((table, shard))
        if known is not None and known[0] == version:
            return known[1]
        place = self.place(table, shard)
        try:
            with accessing(place, "read"):
                footer = self._footer(place)
        except FileNotFoundError:
            self._require_container()
            return None
        except StorageError as error:
            path = self.path(table, shard)
            if self._is_empty(path):
                raise _damaged(path, table, shard, "it is empty") from error
            raise
        try:
            found = parsed(footer)[0]
        except Damage as damage:
            raise _damaged(self.path(table, shard), table, shard, str(damage)) from damage
        if version is not None:
            if len(self._known) >= KNOWN_FOOTERS:
                self._known.clear()
            self._known[table, shard] = version, found
        return found

    def _version(self, table: str, shard: str) -> tuple[int, ...] | None:
        """Return what changes when a local file is replaced or written to; None where it can't be told so."""
        if not self.is_local:
            return None
        try:
            status = os.stat(self.place(table, shard))
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def provenance_if_whole(self, table: str, shard: str) -> Provenance | None:
        """As `provenance`, but None for a damaged table, too: for one that is made again anyway."""
        try:
            return self.provenance(table, shard)
        except TableDamaged:
            return None

    def write(
        self,
        table: str,
        shard: str,
        rows: pl.DataFrame | pl.LazyFrame,
        rejects: pl.DataFrame | None = None,
        made_from: Mapping[str, str] | None = None,
    ) -> Provenance:
        """Store a shard and its rejects, each replaced atomically, the rejects first.

        Rows are cast to the table's schema (types and columns; constraints are the checks' business); a
        column that may be null and is not there is null.

        Raises:
            ValueError: rows lack another column of the schema, or a value can't be cast to its type.
            StorageError: there is no room, or the storage can't be written; what was stored stays.
        """
        spec = TABLES[table]
        if rejects is None:
            rejects = spec.rejects.create_empty()
        try:
            cast = self._cast(rows.lazy(), spec.schema)
            left_out = self._cast(rejects.lazy(), spec.rejects)
            named = cast.select(*spec.identity, *spec.identity_if_given)
            identity = named.collect(engine="streaming")
            provenance = Provenance(
                content_hash(identity, spec.identity_of(identity)),
                identity.height,
                rejects.height,
                made_from or {},
            )
            self._replace(left_out, self.rejects_path(table, shard), {})
            self._replace(cast, self.path(table, shard), provenance._asdict())
        except (pl.exceptions.InvalidOperationError, pl.exceptions.SchemaError) as error:
            raise ValueError(
                f"{table}, shard {shard!r}: rows do not fit the table's schema: {error}"
            ) from error
        return provenance

    def delete(self, shard: str) -> list[str]:
        """Remove a shard's files from every table; the answers paid for stay. Returns the paths.

        Raises:
            StorageError: a file can't be looked for or removed.
        """
        paths = [
            path
            for table in TABLES
            for path in (self.path(table, shard), self.rejects_path(table, shard))
            if self._is_there(path)
        ]
        for path in paths:
            with accessing(path, "write"):
                path.unlink(missing_ok=True)
        return [str(path) for path in paths]

    def _scan(self, path: UPath, table: str, shard: str) -> pl.LazyFrame:
        try:
            if not self.is_local or self._is_there(path):
                return self.scan_file(path)
        except FileNotFoundError:
            self._require_container()
        raise _missing(path, table, shard)

    def _verified(
        self, path: UPath, table: str, shard: str, identity: tuple[str, ...] = ()
    ) -> pl.LazyFrame:
        try:
            with accessing(path, "read"):
                held = self._held(path)
                damage = self._find_damage(path, held, identity)
        except FileNotFoundError as error:
            self._require_container()
            raise _missing(path, table, shard) from error
        if damage:
            self._mark_damaged(path)
            raise _damaged(path, table, shard, damage)
        return self._scan_of(path, held)

    def _cast(self, frame: pl.LazyFrame, schema: type[dy.Schema]) -> pl.LazyFrame:
        frame = with_later_columns(frame, schema)
        present = frame.collect_schema()
        missing = [name for name in schema.column_names() if name not in present]
        if missing:
            raise pl.exceptions.SchemaError(f"columns are missing: {', '.join(missing)}")
        return schema.cast(frame)


def with_later_columns(frame: pl.LazyFrame, schema: type[dy.Schema]) -> pl.LazyFrame:
    """Add the columns that may be null and are not there, as in tables of an earlier version."""
    present = frame.collect_schema()
    return frame.with_columns(
        pl.lit(None, column.dtype).alias(name)
        for name, column in schema.columns().items()
        if column.nullable and name not in present
    )


def _damaged(path: UPath, table: str, shard: str, what: str) -> TableDamaged:
    return TableDamaged(
        f"{shown(path)} is damaged: {what}. Materialize {table} for shard {shard!r} again, as "
        "`rare-assets run` does by itself: stored answers make it free."
    )


def _missing(path: UPath, table: str, shard: str) -> TableMissing:
    return TableMissing(f"{shown(path)} is missing: materialize {table} for shard {shard!r} first.")
