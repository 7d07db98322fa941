"""The stored tables: one Parquet file a shard, its rejects beside it, its provenance in the footer.

`<root>/<table>/<shard>.parquet` and `<root>/<table>_rejects/<shard>.parquet`, on a local folder or any
URL that both fsspec and Polars know (s3://, gs://, az://). A file is replaced whole or not at all.

The footer holds the checksum of the file it stands in, as of eight zeros in its place, so that damage
anywhere in the file shows before a row of it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote

import dataframely as dy
import polars as pl

from rare_assets.files.cache import temporary_folder
from rare_assets.files.stored_bytes import (
    BLOCK,
    ChecksumWriter,
    StorageDamaged,
    StorageError,
    accessing,
    checksum,
    explained,
    file_version,
    sync_file,
)
from rare_assets.schemas import TABLES
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    from upath import UPath

FOOTER_KEY = "rare_assets"
EXTENSION = ".parquet"
MAGIC = b"PAR1"
# In place of MAGIC at the end of a file that was found damaged: nobody reads it any more, as a whole
# or by its footer, until it is made again.
FOUND_DAMAGED = b"DAMG"
# Read from a file's end; holds all of most footers.
_TAIL = 1 << 16
_UNSTAMPED = "00000000"
_STAMP = re.compile(rb'\{"checksum": "([0-9a-f]{8})"')

# What Polars says of a file that is no Parquet file, or no longer is.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)

_log = logging.getLogger(__name__)


# Footers that are remembered at most: some 50 MB.
KNOWN_FOOTERS = 50_000


class TableMissing(FileNotFoundError):
    """A table's shard that is needed has not been made yet."""


class TableDamaged(StorageDamaged):
    """A stored shard is not what was written; made again, it is mended."""


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
        with accessing(root, "read"):
            # A listing that is remembered would tell of files as they were.
            options: dict[str, Any] = {} if local else {"use_listings_cache": False}
            path = Path(root).expanduser().resolve() if local else root
            self.root: UPath = UPath(path, **options)
            # Here an object store's package is loaded, or found missing.
            self._fs = self.root.fs
        # Footers of local files, by name, each with what changes when its file does.
        self._known: dict[tuple[str, str], tuple[tuple[int, ...], Provenance | None]] = {}
        self._container_seen = local

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
        """Whether the shard of that table has been made. Raises StorageError if that can't be told."""
        return self._is_there(self.path(table, shard))

    def stored_versions(self, table: str) -> dict[str, str]:
        """The stored files of a table, from one listing: what changes when a file is replaced, by its
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
        """A shard's rows, lazily. Raises TableMissing, naming the file and the asset to make."""
        return self._scan(self.path(table, shard), table, shard)

    def scan_rejects(self, table: str, shard: str) -> pl.LazyFrame:
        """What a shard could not use, lazily. Raises TableMissing."""
        return self._scan(self.rejects_path(table, shard), table, shard)

    def load(self, table: str, shard: str) -> pl.LazyFrame:
        """A shard's rows, lazily, once the whole file was compared with its checksum.

        For whatever costs money or changes the index. Columns that came after the file was written are
        null. A file that turns out damaged is marked, so
        that everybody who looks at its footer is told, and planning makes it again.

        Raises:
            TableMissing: it has not been made.
            TableDamaged: it is not what was written.
            StorageError: it can't be read.
        """
        self._verify(self.path(table, shard), table, shard, TABLES[table].identity)
        return with_later_columns(self.scan_file(self.path(table, shard)), TABLES[table].schema)

    def load_rejects(self, table: str, shard: str) -> pl.LazyFrame:
        """What a shard could not use, lazily, verified as `load` does."""
        self._verify(self.rejects_path(table, shard), table, shard)
        return self.scan_file(self.rejects_path(table, shard))

    def provenance(self, table: str, shard: str) -> Provenance | None:
        """What a stored shard was made from; None if it is missing.

        Raises:
            TableDamaged: its footer is damaged, or rare_assets did not write it.
            StorageError: it can't be read, so that nobody knows whether it is there.
        """
        version = self._version(table, shard)
        known = self._known.get((table, shard))
        if known is not None and known[0] == version:
            return known[1]
        path = self.path(table, shard)
        try:
            with accessing(path, "read"):
                footer = self._footer(path)
        except FileNotFoundError:
            self._require_container()
            return None
        except StorageError as error:
            if self._is_empty(path):
                raise _damaged(path, table, shard, "it is empty") from error
            raise
        try:
            found = _parsed(footer)[0]
        except _Damage as damage:
            raise _damaged(path, table, shard, str(damage)) from damage
        if version is not None:
            if len(self._known) >= KNOWN_FOOTERS:
                self._known.clear()
            self._known[table, shard] = version, found
        return found

    def _version(self, table: str, shard: str) -> tuple[int, ...] | None:
        """What changes when a local file is replaced or written to; None where it can't be told so."""
        if not self.is_local:
            return None
        try:
            # Planning looks at a footer a dozen times: a Path would take longer than the system's call.
            status = os.stat(f"{self.root}/{table}/{file_name(shard)}{EXTENSION}")
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

    def scan_file(self, path: UPath) -> pl.LazyFrame:
        """A Parquet file under the root, lazily."""
        return pl.scan_parquet(self._polars_source(path), glob=False)

    def scan_files(self, paths: Sequence[UPath]) -> pl.LazyFrame:
        """Several Parquet files under the root as one frame, of the columns of the first."""
        sources = [self._polars_source(path) for path in paths]
        return pl.scan_parquet(sources, glob=False, extra_columns="ignore")

    def read_file(self, path: UPath, columns: tuple[str, ...] = ()) -> pl.DataFrame:
        """The rows of a file that `write_file` wrote, verified.

        Args:
            columns: those to read; all by default.

        Raises:
            FileNotFoundError: there is no such file.
            StorageDamaged: it is not what was written.
            StorageError: it can't be read.
        """
        try:
            with accessing(path, "read"):
                damage = self._find_damage(path)
        except FileNotFoundError:
            self._require_container()
            raise
        if damage is None:
            try:
                rows = self.scan_file(path)
                return (rows.select(columns) if columns else rows).collect()
            except UNREADABLE as error:
                damage = str(error)
        raise StorageDamaged(f"{shown(path)} is damaged: {damage}.")

    def remembered(
        self, path: UPath, schema: Mapping[str, Any], columns: tuple[str, ...] = ()
    ) -> pl.DataFrame:
        """The rows of a file that can be made anew: none, of this schema, if it is missing or damaged.

        Args:
            columns: those to read; all by default.

        Raises:
            StorageError: it can't be read.
        """
        try:
            return self.read_file(path, columns)
        except FileNotFoundError:
            pass
        except StorageDamaged as error:
            _log.warning("%s It is made anew.", error)
        return pl.DataFrame(schema=schema).select(columns or tuple(schema))

    def write_file(self, frame: pl.DataFrame | pl.LazyFrame, path: UPath) -> None:
        """Write a frame as one Parquet file under the root, replaced atomically. Raises StorageError."""
        self._replace(frame.lazy(), path, {})

    def _listed(self, folder: UPath) -> dict[str, str]:
        if not self.is_local:
            listed = folder.fs.ls(folder.path, detail=True)
            return {each["name"].rsplit("/", 1)[-1]: file_version(each) for each in listed}
        with os.scandir(str(folder)) as entries:
            return {
                entry.name: f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
                for entry in entries
                if (stat := entry.stat())
            }

    def _scan(self, path: UPath, table: str, shard: str) -> pl.LazyFrame:
        if not self._is_there(path):
            raise _missing(path, table, shard)
        return self.scan_file(path)

    def _polars_source(self, path: UPath) -> str:
        # Polars reads object stores by itself: it must not see fsspec's file objects.
        return str(path)

    def _is_there(self, path: UPath) -> bool:
        try:
            with accessing(path, "read"):
                path.stat()
        except FileNotFoundError:
            self._require_container()
            return False
        return True

    def _is_empty(self, path: UPath) -> bool:
        """Whether it is a file of no bytes, for which object stores have no range to give."""
        try:
            return not self.is_local and path.stat().st_size == 0
        except Exception:
            return False

    def _require_container(self) -> None:
        """Raise StorageError where a file was not found since its whole bucket is not there."""
        if self._container_seen:
            return
        container = self.root.path.lstrip("/").partition("/")[0]
        try:
            self._fs.info(container)
        except FileNotFoundError as error:
            raise StorageError(
                f"There is no {self.root.protocol}://{container}, where RARE_STORAGE is: make it, or "
                "set RARE_STORAGE to another. Nothing was changed."
            ) from error
        except Exception as error:
            # Whoever may read the files need not be one who may look at the bucket.
            _log.debug("%s could not be looked at: %s", container, error)
        self._container_seen = True

    def _footer(self, path: UPath) -> bytes:
        """The end of a file, its footer included."""
        if self.is_local:
            with path.open("rb") as file:
                return _last(file)
        tail: bytes = self._fs.cat_file(path.path, start=-_TAIL)
        needed = _footer_size(tail)
        return tail if needed <= len(tail) else self._fs.cat_file(path.path, start=-needed)

    def _verify(self, path: UPath, table: str, shard: str, identity: tuple[str, ...] = ()) -> None:
        try:
            with accessing(path, "read"):
                damage = self._find_damage(path, identity)
        except FileNotFoundError as error:
            self._require_container()
            raise _missing(path, table, shard) from error
        if damage:
            self._mark_damaged(path)
            raise _damaged(path, table, shard, damage)

    def _find_damage(self, path: UPath, identity: tuple[str, ...] = ()) -> str | None:
        """What is wrong with a file, None if nothing is. Reads all of it, a block at a time.

        Args:
            path: the file.
            identity: the columns whose hash its footer has; none for what is no table.
        """
        with path.open("rb") as file:
            end = _last(file)
            try:
                provenance, stamp = _parsed(end, bare=not identity)
            except _Damage as damage:
                return str(damage)
            if stamp is not None:
                place = file.seek(0, io.SEEK_END) - len(end) + stamp.start(1)
                file.seek(0)
                found = 0
                for at in range(0, place, BLOCK):
                    found = zlib.crc32(file.read(min(BLOCK, place - at)), found)
                found = zlib.crc32(_UNSTAMPED.encode(), found)
                file.seek(place + len(_UNSTAMPED))
                found = checksum(file, found)
                wrong = f"{found:08x}" != stamp[1].decode()
                return "its checksum is not that of what was written" if wrong else None
        if provenance is None:
            return None
        # Older files have the hash of their identity columns alone.
        try:
            rows = self.scan_file(path).select(identity).collect()
        except UNREADABLE as error:
            return f"its rows can't be read ({error})"
        same = content_hash(rows, identity) == provenance.content_hash
        return None if same else "its rows do not have the hash of those that were written"

    def _mark_damaged(self, path: UPath) -> None:
        try:
            with accessing(path, "write"):
                if self.is_local:
                    with path.open("r+b") as file:
                        file.seek(-len(FOUND_DAMAGED), io.SEEK_END)
                        file.write(FOUND_DAMAGED)
                else:
                    content = self._fs.cat_file(path.path)
                    marked = content[: -len(FOUND_DAMAGED)] + FOUND_DAMAGED
                    self._fs.pipe_file(path.path, marked)
        except StorageError as error:
            _log.warning("%s is damaged and can't be marked as such: %s", shown(path), error)

    def _cast(self, frame: pl.LazyFrame, schema: type[dy.Schema]) -> pl.LazyFrame:
        frame = with_later_columns(frame, schema)
        present = frame.collect_schema()
        missing = [name for name in schema.column_names() if name not in present]
        if missing:
            raise pl.exceptions.SchemaError(f"columns are missing: {', '.join(missing)}")
        return schema.cast(frame)

    def _replace(self, frame: pl.LazyFrame, path: UPath, footer: Mapping[str, Any]) -> None:
        if self.is_local:
            with accessing(path, "write"):
                path.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(str(path.with_name(f".{path.name}.{uuid.uuid4().hex}")))
        else:
            temporary = Path(temporary_folder(), f"rare-assets-{uuid.uuid4().hex}{EXTENSION}")
        try:
            _write_stamped(frame, temporary, footer)
            with accessing(path, "write"):
                if self.is_local:
                    os.replace(str(temporary), str(path))
                    sync_file(Path(str(path.parent)))
                else:
                    # An object store shows an object only once it is whole.
                    self._fs.put_file(str(temporary), path.path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def with_later_columns(frame: pl.LazyFrame, schema: type[dy.Schema]) -> pl.LazyFrame:
    """Add the columns that may be null and are not there, as in tables of an earlier version."""
    present = frame.collect_schema()
    return frame.with_columns(
        pl.lit(None, column.dtype).alias(name)
        for name, column in schema.columns().items()
        if column.nullable and name not in present
    )


class _Damage(Exception):
    """What is wrong with a footer."""


def _damaged(path: UPath, table: str, shard: str, what: str) -> TableDamaged:
    return TableDamaged(
        f"{shown(path)} is damaged: {what}. Materialize {table} for shard {shard!r} again, as "
        "`rare-assets run` does by itself: stored answers make it free."
    )


def _missing(path: UPath, table: str, shard: str) -> TableMissing:
    return TableMissing(f"{shown(path)} is missing: materialize {table} for shard {shard!r} first.")


def _last(file: IO[bytes]) -> bytes:
    """The end of a file, its whole footer included."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    needed = _footer_size(tail)
    if len(tail) < needed <= size:
        file.seek(size - needed)
        tail = file.read()
    return tail


def _footer_size(tail: bytes) -> int:
    """How many bytes a file's footer takes, with what stands behind it."""
    return int.from_bytes(tail[-8:-4], "little") + 8 if tail.endswith(MAGIC) else 0


def _parsed(tail: bytes, *, bare: bool = False) -> tuple[Provenance | None, re.Match[bytes] | None]:
    """Provenance and place of the checksum in the end of a file; None for what older files lack.

    Args:
        tail: the end of a file, with its footer.
        bare: the file is no table, so has no provenance.
    """
    if tail.endswith(FOUND_DAMAGED):
        raise _Damage("it was found damaged before")
    if not tail.endswith(MAGIC) or _footer_size(tail) > len(tail):
        raise _Damage("its end is not that of a Parquet file")
    try:
        metadata = pl.read_parquet_metadata(io.BytesIO(tail))
    except (*UNREADABLE, OSError) as error:
        raise _Damage(f"its footer can't be read ({error})") from error
    if FOOTER_KEY not in metadata:
        if bare:
            return None, None
        raise _Damage("its footer does not say that rare_assets wrote it")
    try:
        content = json.loads(metadata[FOOTER_KEY])
        stamped = content.pop("checksum", None) is not None
        provenance = Provenance(**content) if content else None
    except (ValueError, TypeError, AttributeError) as error:
        raise _Damage("its footer is garbled") from error
    stamp = _STAMP.search(tail) if stamped else None
    if (stamped and stamp is None) or (provenance is None) is not bare:
        raise _Damage("its footer is garbled")
    return provenance, stamp


def _write_stamped(frame: pl.LazyFrame, path: Path, footer: Mapping[str, Any]) -> None:
    """Write a Parquet file with its own checksum in its footer, and wait until it is on the disk.

    Raises:
        StorageError: there is no room, or the file can't be written.
    """
    content = json.dumps({"checksum": _UNSTAMPED, **footer})
    with accessing(path, "write"):
        file = path.open("wb")
    writer = ChecksumWriter(file)
    try:
        frame.sink_parquet(cast("IO[bytes]", writer), metadata={FOOTER_KEY: content})
    except Exception as error:
        if writer.error is not None:
            raise StorageError(explained(path.parent, "write", writer.error)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            file.close()
    with accessing(path.parent, "write"), path.open("r+b") as written:
        tail = _last(written)
        stamp = _STAMP.search(tail)
        assert stamp is not None
        written.seek(written.seek(0, io.SEEK_END) - len(tail) + stamp.start(1))
        written.write(f"{writer.checksum:08x}".encode())
        written.flush()
        os.fsync(written.fileno())
