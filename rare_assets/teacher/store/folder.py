"""Read and write a folder of answer files, on this machine or behind a URL."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rare_assets.files.cache import temporary_folder
from rare_assets.files.object_store import wait_while_away
from rare_assets.teacher.store.answer_files import TEMPORARY, kind_of


class Folder:
    """A folder of answer files, on this machine or behind any URL that fsspec knows.

    Args:
        root: local folder or URL; made at the first write.
        storage_options: passed to the fsspec file system.

    Attributes:
        root: as it was given.
        local: path of the folder; None if it is behind a URL.
    """

    def __init__(self, root: str, storage_options: Mapping[str, Any] | None = None) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.root = root
        self._storage_options = storage_options
        self._fs, self._path = url_to_fs(root, **(storage_options or {}))
        wait_while_away()
        self.local = Path(self._path) if isinstance(self._fs, LocalFileSystem) else None

    def folder(self, name: str) -> Folder:
        """Return a folder in this one."""
        return Folder(f"{self.root.rstrip('/')}/{name}", self._storage_options)

    def sizes(self, wanted: Callable[[str], object] = kind_of) -> dict[str, int]:
        """Return the sizes of files in bytes, by name; empty if there is no folder yet.

        Args:
            wanted: tells by a file's name whether to return it. Default: files of answers.

        Raises:
            OSError: or another error of the file system, which can't tell.
        """
        if self.local is not None:
            return self._local_sizes(self.local, wanted)
        self._fs.invalidate_cache(self._path)
        try:
            entries = self._fs.ls(self._path, detail=True)
        except FileNotFoundError:
            return {}
        named = {
            str(entry["name"]).rsplit("/", 1)[-1]: int(entry["size"] or 0) for entry in entries
        }
        return {name: size for name, size in named.items() if wanted(name)}

    @staticmethod
    def _local_sizes(path: Path, wanted: Callable[[str], object]) -> dict[str, int]:
        found: dict[str, int] = {}
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if wanted(entry.name):
                        with contextlib.suppress(FileNotFoundError):  # merged away meanwhile
                            found[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            return {}
        return found

    def read(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read byte ranges of a file, each from its start to before its end, in order. Raises FileNotFoundError."""
        if self.local is None:
            path = f"{self._path}/{name}"
            starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
            return list(self._fs.cat_ranges([path] * len(ranges), starts, ends, on_error="raise"))
        found = []
        with open(self.local / name, "rb") as file:
            for start, end in ranges:
                file.seek(start)
                found.append(file.read(end - start))
        return found

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """Read small files whole, all at once; None for one that is not there."""
        if not names:
            return []
        paths = [f"{self._path}/{name}" for name in names]
        read = self._fs.cat_ranges(paths, [0] * len(paths), [None] * len(paths), on_error="return")
        contents: list[bytes | None] = []
        for content in read:
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
            contents.append(None if isinstance(content, Exception) else bytes(content))
        return contents

    def read_whole(self, name: str) -> bytes:
        """Read a whole file. Raises FileNotFoundError."""
        if self.local is not None:
            return (self.local / name).read_bytes()
        return bytes(self._fs.cat_file(f"{self._path}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        if self.local is None:
            self._fs.pipe_file(f"{self._path}/{name}", content)
            return
        with self.writer(name) as out:
            out.write(content)

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file to write to; it appears under its name, whole and durable, when the block ends."""
        if self.local is None:
            with tempfile.NamedTemporaryFile("wb", suffix=TEMPORARY, dir=temporary_folder()) as out:
                yield out
                out.flush()
                self._fs.put_file(out.name, f"{self._path}/{name}")
            return
        self.local.mkdir(parents=True, exist_ok=True)
        temporary = self.local / f"{name}.{secrets.token_hex(4)}{TEMPORARY}"
        try:
            with open(temporary, "xb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, self.local / name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        self.sync()

    def rename(self, name: str, to: str) -> None:
        """Give a file another name, if it is still there."""
        with contextlib.suppress(FileNotFoundError):
            if self.local is not None:
                os.rename(self.local / name, self.local / to)
            else:
                self._fs.mv(f"{self._path}/{name}", f"{self._path}/{to}")

    def delete(self, name: str) -> None:
        """Remove a file, if it is still there."""
        with contextlib.suppress(FileNotFoundError):
            if self.local is not None:
                os.unlink(self.local / name)
            else:
                self._fs.rm_file(f"{self._path}/{name}")

    def sync(self) -> None:
        """Make the folder's entries durable; does nothing behind a URL."""
        if self.local is None:
            return
        descriptor = os.open(self.local, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
