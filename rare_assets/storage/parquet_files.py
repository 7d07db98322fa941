"""Parquet files below one folder or URL: each replaced whole or not at all, with its checksum in its footer.

The checksum shows damage anywhere in a file before a row of it is used.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from rare_assets.files.cache import temporary_folder
from rare_assets.files.object_store import POLARS_OPTIONS, wait_while_away
from rare_assets.files.stored_bytes import (
    StorageDamaged,
    StorageError,
    accessing,
    file_version,
    sync_file,
)
from rare_assets.storage import footers
from rare_assets.storage.footers import (
    FOUND_DAMAGED,
    UNREADABLE,
    Damage,
    content_hash,
    footer_size,
    has_checksum,
    last,
    parsed,
    write_stamped,
)
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    from upath import UPath

EXTENSION = ".parquet"
# Bytes of a file that is read from an object store whole, and of those that are kept.
SMALL, KEPT = 4 << 20, 64 << 20
_log = logging.getLogger(__name__)
# By URL, each with what changes when the file does; what was not used for longest first.
_small: dict[str, tuple[str, bytes]] = {}


class ParquetFiles:
    """The Parquet files below one root.

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
        wait_while_away()
        self._container_seen = local
        self._polars_options = None if local else POLARS_OPTIONS

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return isinstance(self.root, Path)

    def scan_file(self, path: UPath) -> pl.LazyFrame:
        """Scan a Parquet file under the root, lazily; a small one of an object store as it is now.

        Raises:
            FileNotFoundError: an object store has no such file.
            StorageError: it can't be read.
        """
        with accessing(path, "read"):
            held = self._held(path)
        return self._scan_of(path, held)

    def scan_files(self, paths: Sequence[UPath | str]) -> pl.LazyFrame:
        """Scan several Parquet files under the root as one frame, lazily, with the columns of the first."""
        sources = [self._polars_source(path) for path in paths]
        return pl.scan_parquet(
            sources, glob=False, extra_columns="ignore", storage_options=self._polars_options
        )

    def read_file(self, path: UPath, columns: tuple[str, ...] = ()) -> pl.DataFrame:
        """Read the rows of a file that `write_file` wrote, verified.

        Args:
            columns: those to read; all by default.

        Raises:
            FileNotFoundError: there is no such file.
            StorageDamaged: it is not what was written.
            StorageError: it can't be read.
        """
        try:
            with accessing(path, "read"):
                held = self._held(path)
                damage = self._find_damage(path, held)
        except FileNotFoundError:
            self._require_container()
            raise
        if damage is None:
            try:
                rows = self._scan_of(path, held)
                return (rows.select(columns) if columns else rows).collect()
            except UNREADABLE as error:
                damage = str(error)
        raise StorageDamaged(f"{shown(path)} is damaged: {damage}.")

    def remembered(
        self, path: UPath, schema: Mapping[str, Any], columns: tuple[str, ...] = ()
    ) -> pl.DataFrame:
        """Read a file that can be made anew: no rows, of this schema, if it is missing or damaged.

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
        found = {}
        with os.scandir(str(folder)) as entries:
            for entry in entries:
                # What another process was writing may be gone.
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found[entry.name] = f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
        return found

    def _held(self, path: UPath) -> bytes | None:
        """Return a small file of an object store as it is now, whole; None for any other.

        Read by Polars, it takes a request for its size, its footer and each of its columns, every time; and a step
        reads it a dozen times, with its checks. Here it takes one, and one for each look at whether it has changed.
        """
        if self.is_local:
            return None
        details = self._fs.info(path.path)
        if not 0 < (details.get("size") or 0) <= SMALL:
            return None
        version = file_version(details)
        known = _small.pop(str(path), None)
        if known is not None and known[0] == version:
            _small[str(path)] = known
            return known[1]
        content: bytes = self._fs.cat_file(path.path)
        _small[str(path)] = version, content
        _forget_oldest()
        return content

    def _scan_of(self, path: UPath, held: bytes | None) -> pl.LazyFrame:
        """Scan a file, lazily: what `_held` gave of it, or the file itself where that is None."""
        if held is not None:
            return pl.scan_parquet(io.BytesIO(held), glob=False)
        return pl.scan_parquet(
            self._polars_source(path), glob=False, storage_options=self._polars_options
        )

    def _polars_source(self, path: UPath | str) -> str:
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
        """Return whether it is a file of no bytes, for which object stores have no range to give."""
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

    def _footer(self, place: str) -> bytes:
        """Return the end of a file, its footer included."""
        if self.is_local:
            with open(place, "rb") as file:
                return last(file)
        tail: bytes = self._fs.cat_file(place, start=-footers.TAIL)
        needed = footer_size(tail)
        return tail if needed <= len(tail) else self._fs.cat_file(place, start=-needed)

    def _find_damage(
        self, path: UPath, held: bytes | None, identity: tuple[str, ...] = ()
    ) -> str | None:
        """Return what is wrong with a file, None if nothing is. Reads all of it, a block at a time.

        Args:
            path: the file.
            held: what `_held` gave of it.
            identity: the columns whose hash its footer has; none for what is no table.
        """
        with path.open("rb") if held is None else io.BytesIO(held) as file:
            end = last(file)
            try:
                provenance, stamp = parsed(end, bare=not identity)
            except Damage as damage:
                return str(damage)
            if stamp is not None:
                right = has_checksum(file, end, stamp)
                return None if right else "its checksum is not that of what was written"
        if provenance is None:
            return None
        # Older files have the hash of their identity columns alone.
        try:
            rows = self._scan_of(path, held).select(identity).collect()
        except UNREADABLE as error:
            return f"its rows can't be read ({error})"
        same = content_hash(rows, identity) == provenance.content_hash
        return None if same else "its rows do not have the hash of those that were written"

    def _mark_damaged(self, path: UPath) -> None:
        try:
            with accessing(path, "write"):
                if self.is_local:
                    with path.open("r+b") as file:
                        file.seek(max(0, file.seek(0, io.SEEK_END) - len(FOUND_DAMAGED)))
                        file.write(FOUND_DAMAGED)
                else:
                    content = self._fs.cat_file(path.path)
                    marked = content[: -len(FOUND_DAMAGED)] + FOUND_DAMAGED
                    self._fs.pipe_file(path.path, marked)
        except StorageError as error:
            _log.warning("%s is damaged and can't be marked as such: %s", shown(path), error)

    def _replace(self, frame: pl.LazyFrame, path: UPath, footer: Mapping[str, Any]) -> None:
        if self.is_local:
            with accessing(path, "write"):
                path.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(str(path.with_name(f".{path.name}.{uuid.uuid4().hex}")))
        else:
            temporary = Path(temporary_folder(), f"rare-assets-{uuid.uuid4().hex}{EXTENSION}")
        try:
            write_stamped(frame, temporary, footer)
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


def _forget_oldest() -> None:
    """Forget small files, but for the newest, until there are no more bytes than may be kept."""
    kept = list(_small.items())
    left = sum(len(content) for _, (_, content) in kept)
    for url, (_, content) in kept[:-1]:
        if left <= KEPT:
            return
        # Another thread may have been faster.
        _small.pop(url, None)
        left -= len(content)
