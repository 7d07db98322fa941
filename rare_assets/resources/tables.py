"""The stored tables: one Parquet file a shard, its rejects beside it, its provenance in the footer.

`<root>/<table>/<shard>.parquet` and `<root>/<table>_rejects/<shard>.parquet`, on a local folder or any
URL that both fsspec and Polars know (s3://, gs://, az://). A file is replaced whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import dataframely as dy
import polars as pl

from rare_assets.resources.corpus_source import file_version
from rare_assets.schemas import TABLES

if TYPE_CHECKING:
    from upath import UPath

FOOTER_KEY = "rare_assets"
EXTENSION = ".parquet"


class TableMissing(FileNotFoundError):
    """A table's shard that is needed has not been made yet."""


class Provenance(NamedTuple):
    """What a stored shard is and what it was made from, read from its footer alone.

    `content_hash` changes only when the content that downstream depends on does (the table's
    identity columns); `made_from` names every input and setting that went in, by its own hash or
    value, so that comparing two of them tells what has changed.
    """

    content_hash: str
    n_rows: int
    n_rejects: int
    made_from: Mapping[str, str]


def file_name(shard: str) -> str:
    """A shard key as a file name: what could leave the folder or hide the file is percent-encoded."""
    name = quote(shard, safe=" +@=,")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def content_hash(frame: pl.DataFrame, columns: tuple[str, ...]) -> str:
    """Hash of some columns of a frame, 16 hex digits, independent of how the file is written."""
    digest = hashlib.sha256()
    for batch in frame.select(columns).iter_slices(10_000):
        digest.update(batch.write_ndjson().encode())
    return digest.hexdigest()[:16]


class ParquetTables:
    """The tables of one storage root.

    Args:
        root: local folder or URL. Credentials of object stores come from their own environment
            variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), for fsspec and Polars alike.
    """

    def __init__(self, root: str) -> None:
        from upath import UPath

        local = "://" not in root
        self.root: UPath = UPath(Path(root).expanduser().resolve() if local else root)

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return isinstance(self.root, Path)

    def path(self, table: str, shard: str) -> UPath:
        """Where a shard of a table is, or will be."""
        return self.root / table / f"{file_name(shard)}{EXTENSION}"

    def rejects_path(self, table: str, shard: str) -> UPath:
        """Where the rejects of a shard are, or will be."""
        return self.path(f"{table}_rejects", shard)

    def exists(self, table: str, shard: str) -> bool:
        """Whether the shard of that table has been made."""
        return self.path(table, shard).exists()

    def stored_versions(self, table: str) -> dict[str, str]:
        """The stored files of a table, from one listing: what changes when a file is replaced, by its
        name without the extension."""
        folder = self.root / table
        try:
            if self.is_local:
                with os.scandir(str(folder)) as entries:
                    found = {
                        entry.name: f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
                        for entry in entries
                        if (stat := entry.stat())
                    }
            else:
                folder.fs.invalidate_cache()
                listed = folder.fs.ls(folder.path, detail=True)
                found = {each["name"].rsplit("/", 1)[-1]: file_version(each) for each in listed}
        except FileNotFoundError:
            return {}
        return {
            name.removesuffix(EXTENSION): version
            for name, version in found.items()
            if name.endswith(EXTENSION) and not name.startswith(".")
        }

    def scan(self, table: str, shard: str) -> pl.LazyFrame:
        """A shard's rows, lazily. Raises TableMissing, naming the file and the asset to make."""
        return self._scan(self.path(table, shard), table, shard)

    def scan_rejects(self, table: str, shard: str) -> pl.LazyFrame:
        """What a shard could not use, lazily. Raises TableMissing."""
        return self._scan(self.rejects_path(table, shard), table, shard)

    def provenance(self, table: str, shard: str) -> Provenance | None:
        """What a stored shard was made from; None if it is missing or was not written by us."""
        try:
            footer = self._footer(self.path(table, shard))
        except (FileNotFoundError, OSError, pl.exceptions.PolarsError):
            return None
        return Provenance(**json.loads(footer[FOOTER_KEY])) if FOOTER_KEY in footer else None

    def write(
        self,
        table: str,
        shard: str,
        rows: pl.DataFrame | pl.LazyFrame,
        rejects: pl.DataFrame | None = None,
        made_from: Mapping[str, str] | None = None,
    ) -> Provenance:
        """Store a shard and its rejects, each replaced atomically, the rejects first.

        Rows are cast to the table's schema (types and columns; constraints are the checks' business).

        Raises:
            ValueError: rows lack a column of the schema, or a value can't be cast to its type.
        """
        spec = TABLES[table]
        if rejects is None:
            rejects = spec.rejects.create_empty()
        try:
            cast = self._cast(rows.lazy(), spec.schema)
            left_out = self._cast(rejects.lazy(), spec.rejects)
            identity = cast.select(spec.identity).collect(engine="streaming")
            provenance = Provenance(
                content_hash(identity, spec.identity),
                identity.height,
                rejects.height,
                made_from or {},
            )
            footer = {FOOTER_KEY: json.dumps(provenance._asdict())}
            self._replace(left_out, self.rejects_path(table, shard), {})
            self._replace(cast, self.path(table, shard), footer)
        except (pl.exceptions.InvalidOperationError, pl.exceptions.SchemaError) as error:
            raise ValueError(
                f"{table}, shard {shard!r}: rows do not fit the table's schema: {error}"
            ) from error
        return provenance

    def delete(self, shard: str) -> list[str]:
        """Remove a shard's files from every table; the answers paid for stay. Returns the paths."""
        paths = [
            path
            for table in TABLES
            for path in (self.path(table, shard), self.rejects_path(table, shard))
            if path.exists()
        ]
        for path in paths:
            path.unlink(missing_ok=True)
        return [str(path) for path in paths]

    def scan_file(self, path: UPath) -> pl.LazyFrame:
        """A Parquet file under the root, lazily."""
        return pl.scan_parquet(self._polars_source(path), glob=False)

    def write_file(self, frame: pl.DataFrame | pl.LazyFrame, path: UPath) -> None:
        """Write a frame as one Parquet file under the root, replaced atomically."""
        self._replace(frame.lazy(), path, {})

    def _scan(self, path: UPath, table: str, shard: str) -> pl.LazyFrame:
        if not path.exists():
            raise TableMissing(f"{path} is missing: materialize {table} for shard {shard!r} first.")
        return self.scan_file(path)

    def _polars_source(self, path: UPath) -> str:
        # Polars reads object stores by itself: it must not see fsspec's file objects.
        return str(path)

    def _footer(self, path: UPath) -> dict[str, str]:
        return pl.read_parquet_metadata(self._polars_source(path))

    def _cast(self, frame: pl.LazyFrame, schema: type[dy.Schema]) -> pl.LazyFrame:
        present = frame.collect_schema()
        missing = [name for name in schema.column_names() if name not in present]
        if missing:
            raise pl.exceptions.SchemaError(f"columns are missing: {', '.join(missing)}")
        return schema.cast(frame)

    def _replace(self, frame: pl.LazyFrame, path: UPath, footer: dict[str, str]) -> None:
        if not self.is_local:
            # An object store shows an object only once it is whole.
            frame.sink_parquet(self._polars_source(path), metadata=footer)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            frame.sink_parquet(str(temporary), metadata=footer, sync_on_close="all")
            os.replace(str(temporary), str(path))
        finally:
            temporary.unlink(missing_ok=True)
