"""Write the folder that an export goes to: ours or empty, and each file in it whole or not there at all."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from rare_assets.exports.options import ExportError
from rare_assets.files.cache import temporary_folder
from rare_assets.files.file_urls import as_path
from rare_assets.files.stored_bytes import StorageError, accessing, explained
from rare_assets.storage.footers import UNREADABLE
from rare_assets.text.shown_url import shown, without_secrets

if TYPE_CHECKING:
    from upath import UPath

MARKER = "manifest/export.json"
CARD = "README.md"
# Stands in every card, so that one that somebody else wrote is told from ours.
CARD_MARK = "<!-- Written by rare-assets export. -->"
# Stands in every page, likewise.
PAGE_MARK = "<title>RARE data: "
_NAMED = 5
# A file that is being written, or a part of it (see `_temporary` and `FrameFile`).
_TEMPORARY = re.compile(r"\..+\.(json|jsonl|md|parquet|py|tsv)\.[0-9a-f]{32}(\.\d+)?")
# Nobody is at work on a file for so long.
_LEFT_S = 86_400
_log = logging.getLogger(__name__)


class OutFolder:
    """A local folder or the URL of an object store.

    Args:
        root: where it is. Credentials come from the store's own environment variables.

    Raises:
        StorageError: from every method, too: it can't be reached.
    """

    def __init__(self, root: str) -> None:
        from upath import UPath

        root = as_path(root)
        local = "://" not in root
        # A listing that is remembered would tell of files as they were.
        options: dict[str, Any] = {} if local else {"use_listings_cache": False}
        path = Path(root).expanduser().resolve() if local else root
        with accessing(root, "write"):
            self.root: UPath = UPath(path, **options)
            if not local:
                # Here the store's package is loaded, or found missing.
                self._fs = self.root.fs
        self.is_local = isinstance(self.root, Path)
        self._told: set[str] = set()

    def __str__(self) -> str:
        return shown(self.root)

    def path(self, relative: str) -> UPath:
        """Return where a file is, or will be."""
        return self.root / relative

    def claim(self) -> None:
        """Take the folder if it is empty, or ours already. Raises ExportError."""
        with accessing(self.root, "read"):
            is_claimed = self.path(MARKER).exists()
        if is_claimed:
            card = self.read_text(CARD)
            if card is not None and CARD_MARK not in card:
                raise ExportError(
                    f"{shown(self.path(CARD))} was written by something else. Move it away, or give "
                    "another folder with --out: an export never overwrites it."
                )
            return
        with accessing(self.root, "read"):
            is_file = self.root.is_file()
            there = [] if is_file or not self.root.exists() else self._top_names()
        if is_file:
            raise ExportError(f"{shown(self.root)} is a file: give a folder with --out.")
        if there:
            names = ", ".join(sorted(there)[:_NAMED]) + (", …" if len(there) > _NAMED else "")
            raise ExportError(
                f"{shown(self.root)} holds something else ({names}). Give an empty folder, or one that "
                "rare-assets made, with --out: an export never writes among other files."
            )
        self.write_text(MARKER, json.dumps({"made_by": "rare-assets export", "layout": 1}))

    def _top_names(self) -> list[str]:
        names = [path.name for path in self.root.iterdir()]
        return [] if names == ["manifest"] and self._is_unclaimed() else names

    def _is_unclaimed(self) -> bool:
        """Return whether `manifest` holds nothing but the marker of a claim that was broken off."""
        folder = self.path(MARKER).parent
        begun = f".{self.path(MARKER).name}."
        return folder.is_dir() and all(
            path.name.startswith(begun) and _TEMPORARY.fullmatch(path.name)
            for path in folder.iterdir()
        )

    def remove_leftovers(self) -> None:
        """Remove what a killed export was writing, a day after; nothing that is named otherwise."""
        # What goes to an object store is written elsewhere until it is whole.
        if not self.is_local:
            return
        for folder, folders, names in os.walk(str(self.root)):
            # Tools keep their own files in hidden folders.
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in filter(_TEMPORARY.fullmatch, names):
                path = Path(folder, name)
                # Another process may be faster, or the file another user's.
                with suppress(OSError):
                    if path.stat().st_mtime < time.time() - _LEFT_S:
                        path.unlink()

    @contextmanager
    def writing(self, relative: str) -> Iterator[Path]:
        """Yield a local path to write to; what it holds takes its place once the block ends well.

        Raises:
            ExportError: the disk is full or can't be written; the earlier file stays.
        """
        target = self.path(relative)
        temporary = self._temporary(target)
        try:
            yield temporary
            if self.is_local:
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
                os.replace(temporary, str(target))
            else:
                # One request shows the object once it is whole.
                with accessing(target, "write"):
                    self._fs.put_file(str(temporary), target.path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ExportError(
                f"{shown(target)} can't be written: {without_secrets(error, str(target))}. What stood there "
                "before stays; make room or give another folder with --out, then export again."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _temporary(self, target: UPath) -> Path:
        if not self.is_local:
            return Path(temporary_folder()) / f"rare-export-{uuid.uuid4().hex}"
        try:
            Path(str(target)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExportError(f"{shown(target.parent)} can't be made: {error}.") from error
        return Path(str(target)).with_name(f".{target.name}.{uuid.uuid4().hex}")

    def write_text(self, relative: str, text: str) -> None:
        """Replace a text file, whole or not at all. Raises ExportError."""
        with self.writing(relative) as path:
            path.write_text(text, encoding="utf-8")

    def require_page(self, relative: str) -> None:
        """Refuse to put a page where a file stands that is none. Raises ExportError."""
        path = self.path(relative)
        try:
            with path.open("rb") as there:
                is_ours = PAGE_MARK.encode() in there.read(2000)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            said = without_secrets(error, str(path))
            raise ExportError(f"{shown(path)} can't be written: {said}.") from error
        except Exception as error:
            raise StorageError(explained(path, "write", error)) from error
        if not is_ours:
            raise ExportError(
                f"{shown(path)} was not written by rare-assets. Move it away, or give another file with --out: "
                "a page never overwrites it."
            )

    def write_page(self, relative: str, html: str) -> str:
        """Replace a page of ours (`html` has PAGE_MARK), and no other file. Return where it is.

        Raises:
            ExportError: another file has its name, or it can't be written.
        """
        self.require_page(relative)
        self.write_text(relative, html)
        return shown(self.path(relative))

    def read_text(self, relative: str) -> str | None:
        """Return a text file's content; None if it is not there. Raises UnicodeDecodeError."""
        try:
            return self._bytes(self.path(relative)).decode()
        except FileNotFoundError:
            return None

    def require_bytes(self, relative: str) -> bytes:
        """Return a file's content. Raises ExportError if it is not there."""
        path = self.path(relative)
        try:
            return self._bytes(path)
        except FileNotFoundError as error:
            raise _gone(path) from error

    def _bytes(self, path: UPath) -> bytes:
        with accessing(path, "read"):
            content: bytes = path.read_bytes()
        return content

    def read_json(self, relative: str) -> Any:
        """Return a JSON file's content; None if it is not there, or damaged: what it tells of is made again."""
        try:
            text = self.read_text(relative)
            return None if text is None else json.loads(text)
        except ValueError as error:
            self.tell_damage(relative, error)
            return None

    def tell_damage(self, relative: str, error: Exception) -> None:
        """Log that a file is damaged, once."""
        if relative in self._told:
            return
        self._told.add(relative)
        place = shown(self.path(relative))
        _log.warning("%s is damaged: %s. An export makes it anew.", place, error)

    def scan(self, relative: str) -> pl.LazyFrame:
        """Scan a Parquet file lazily: its footer is read now, its rows when the frame is collected.

        Raises:
            ExportError: it is not there, or no Parquet file any more.
        """
        path = self.path(relative)
        try:
            return self._opened(path)
        except FileNotFoundError as error:
            raise _gone(path) from error
        except UNREADABLE as error:
            raise ExportError(
                f"{shown(path)} is damaged: {without_secrets(error, str(path))}. Remove it, then export "
                "again without --shard."
            ) from error

    def _opened(self, path: UPath) -> pl.LazyFrame:
        rows = pl.scan_parquet(str(path), glob=False)
        try:
            rows.collect_schema()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(explained(path, "read", error)) from error
        return rows

    def opens(self, relative: str) -> bool:
        """Return whether a Parquet file is there and is one."""
        try:
            self._opened(self.path(relative))
        except (FileNotFoundError, *UNREADABLE):
            return False
        return True

    def remove(self, relative: str) -> None:
        """Remove a file of ours, and its folder if that is empty then."""
        path = self.path(relative)
        with accessing(path, "write"):
            if not path.exists():
                return
            path.unlink(missing_ok=True)
            if self.is_local and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def names(self, relative: str) -> list[str]:
        """Return the sorted names of the files in a folder, without hidden ones; none if it is not there.

        A file that is being written is hidden, and so is what a killed process left of one.
        """
        folder = self.path(relative)
        with accessing(folder, "read"):
            names = [path.name for path in folder.iterdir()] if folder.exists() else []
        return sorted(name for name in names if not name.startswith("."))

    def sizes(self, relative: str) -> dict[str, int]:
        """Return the sizes of the files in a folder by name, from one listing; none if it is not there."""
        folder = self.path(relative)
        try:
            with accessing(folder, "read"):
                if self.is_local:
                    return _sizes(str(folder))
                listed = self._fs.ls(folder.path, detail=True)
        except FileNotFoundError:
            return {}
        return {each["name"].rsplit("/", 1)[-1]: each["size"] or 0 for each in listed}


def _gone(path: UPath) -> ExportError:
    return ExportError(f"{shown(path)} is gone. Export again without --shard.")


def _sizes(folder: str) -> dict[str, int]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            # What another process was writing may be gone.
            with suppress(FileNotFoundError):
                found[entry.name] = entry.stat().st_size
    return found


class FrameFile:
    """A file that grows by frames and takes its place once it is closed: Parquet, JSON Lines or a list.

    Args:
        folder: where it goes.
        relative: its name there; what it ends in says the format.

    Attributes:
        rows: written so far.
        bytes: written so far; of Parquet, what the parts take until the file is closed.
    """

    def __init__(self, folder: OutFolder, relative: str) -> None:
        self.relative = relative
        self.rows = 0
        self.bytes = 0
        self._parquet = relative.endswith(".parquet")
        self._context = folder.writing(relative)
        self._path = self._context.__enter__()
        self._parts: list[Path] = []

    def write(self, frame: pl.DataFrame) -> None:
        """Add rows. An error ends the file without a trace.

        Raises:
            ExportError: the disk is full or can't be written.
        """
        try:
            if self._parquet:
                part = self._path.with_name(f"{self._path.name}.{len(self._parts)}")
                self._parts.append(part)
                frame.write_parquet(part)
                self.bytes += part.stat().st_size
            else:
                self.bytes += self._append(frame)
            self.rows += frame.height
        except BaseException as error:
            self._end(error)

    def close(self) -> None:
        """Put the file in its place. Raises ExportError; the earlier file stays then."""
        try:
            if self._parquet:
                pl.scan_parquet(self._parts, glob=False).sink_parquet(self._path)
                self.bytes = self._path.stat().st_size
            elif self.relative.endswith(".json"):
                with self._path.open("ab") as file:
                    self.bytes += file.write(b"\n]\n" if self.rows else b"[]\n")
        except BaseException as error:
            self._end(error)
        self._end(None)

    def discard(self) -> None:
        """Leave what stood there before."""
        for part in self._parts:
            part.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def _append(self, frame: pl.DataFrame) -> int:
        lines = frame.write_ndjson().encode()
        if self.relative.endswith(".json"):
            lines = lines.rstrip(b"\n").replace(b"}\n{", b"},\n{")
            lines = (b",\n" if self.rows else b"[\n") + lines
        with self._path.open("ab") as file:
            return file.write(lines)

    def _end(self, error: BaseException | None) -> None:
        for part in self._parts:
            part.unlink(missing_ok=True)
        if error is None:
            self._context.__exit__(None, None, None)
        elif not self._context.__exit__(type(error), error, error.__traceback__):
            raise error
