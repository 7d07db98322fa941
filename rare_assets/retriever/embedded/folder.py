"""Keep the embedded index's folder: its states, the current one, its lock, its remote copy.

    current.json       names the state that readers open, with the checksum of its `state.json`;
                       replaced atomically
    states/<name>/     what is in the index:
        state.json         shards, ranking and statistics, the segments that hold the documents, and
                           length and checksum of every file
        owners.npy         for each row of the segments in turn, its shard's place among the shards,
                           -1 if it is gone
        order.npy          rows of the documents in the order of their ids, one for each id
        gone_*.npy         terms of the rows that are gone, and in how many of them each one is
        duplicates.arrow   texts that stand twice
    segments/<name>/   documents: `documents.arrow`, `texts` and their postings
    analyzed/<hash>/   a shard's documents on their way into a segment, kept for the next sync if
                       this one is killed

A state or segment never changes, and no name is used twice. So a reader may open the current state at any
time, and keeps what it has opened when a sync removes the files. All files of a state are on the disk before
`current.json` names it. Before files are opened, they are compared with what was written: their lengths each
time, the checksum of each file once in a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from rare_assets.files.cache import cache_folder
from rare_assets.files.stored_bytes import (
    StorageError,
    accessing,
    checksum,
    explained,
    sync_file,
)
from rare_assets.retriever.embedded import postings as embedded_postings
from rare_assets.retriever.embedded.manifest import FileSum, Manifest, Pointer, damaged
from rare_assets.retriever.interface import IndexDamaged, IndexMissing
from rare_assets.text.shown_url import shown

if TYPE_CHECKING:
    from upath import UPath

UNFINISHED = ".part"
Opened = TypeVar("Opened")
# Files read or written out at once.
_THREADS = 4

# Files that this process has read or written whole: what their status was, and their checksum.
_seen: dict[Path, tuple[tuple[int, ...], int]] = {}
_SEEN_AT_MOST = 10_000


def new_name() -> str:
    """Return a name that no state and no segment had before."""
    return uuid.uuid4().hex


class IndexFolder:
    """A local index folder, or the local cache of a remote one.

    Args:
        path: of the folder, or its URL.
        cache: local folder for a remote index. Default: `index` in RARE_CACHE.

    Attributes:
        path: as it was given.
        root: the local folder.
    """

    def __init__(self, path: str, cache: str | None = None) -> None:
        from upath import UPath

        # A listing that is remembered would tell of files as they were.
        options: dict[str, Any] = {"use_listings_cache": False} if "://" in path else {}
        target = UPath(path, **options)
        self.path = str(target)
        self._remote: UPath | None = None
        if target.protocol in ("", "file"):
            self.root = Path(target.path).expanduser().absolute()
        else:
            self._remote = target
            folder = Path(cache).expanduser() if cache else cache_folder() / "index"
            self.root = folder / hashlib.sha256(self.path.encode()).hexdigest()[:32]

    @contextlib.contextmanager
    def locked(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Hold the writer's lock, which the system frees when its holder dies.

        Raises:
            StorageError: the folder can't be written.
        """
        from filelock import FileLock, Timeout

        with accessing(self.root, "write"):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "sync.lock")
            try:
                lock.acquire(timeout=0)
                waits = False
            except Timeout:
                waits = True
        if waits:
            progress(f"another sync of {shown(self.path)} is at work; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def segment(self, name: str) -> Path:
        """Return the folder of a segment."""
        return self.root / "segments" / name

    def state(self, name: str) -> Path:
        """Return the folder of a state."""
        return self.root / "states" / name

    def analyzed(self, name: str) -> Path:
        """Return the folder of a shard that was analyzed for the next segment."""
        return self.root / "analyzed" / name

    def current(self, progress: Callable[[str], None]) -> Manifest | None:
        """Return the current state; None if there is none that is whole and of this format. Needs the lock.

        Raises:
            StorageError: its files can't be read.
        """
        try:
            with self._reading():
                manifest = self._download(self._remote) if self._remote else self._read()
                if manifest is not None:
                    self._require_whole(manifest)
                elif self._remote is None:
                    progress(
                        f"the index in {shown(self.path)} is of an earlier version: it is made anew, once"
                    )
                return manifest
        except FileNotFoundError:
            return None
        except IndexDamaged as error:
            progress(f"{error}: it is made anew now")
            return None

    def open(self, opener: Callable[[Manifest], Opened], progress: Callable[[str], None]) -> Opened:
        """Return what `opener` makes of the current state.

        Args:
            opener: opens the files of a state, which are whole.
            progress: called with a line for the log.

        Raises:
            IndexMissing: there is no state.
            IndexDamaged: its files are not what was written.
            StorageError: they can't be read.
        """
        missing = IndexMissing(f"there is no index in {shown(self.path)}: materialize corpus_index")
        with self._reading():
            if self._remote is not None:
                with self.locked(progress):
                    if there := self._download(self._remote):
                        self.sweep(there)
            # A sync may remove the state between reading its name and opening its files.
            for _ in range(100):
                try:
                    before = self._pointer.read_bytes()
                except FileNotFoundError as error:
                    raise missing from error
                try:
                    manifest = self._read()
                    if manifest is None:
                        raise missing
                    self._require_whole(manifest)
                    return opener(manifest)
                except FileNotFoundError as error:
                    if not self._pointer.exists() or self._pointer.read_bytes() == before:
                        lost = f"{error.filename or 'a file'} is not there"
                        raise damaged(self.path, lost) from error
                except (OSError, IndexMissing):
                    raise
                except Exception as error:
                    # Only a state without checksums can be so far from what was written.
                    raise damaged(self.path, f"{type(error).__name__}: {error}") from error
        raise missing

    def write(self, manifest: Manifest, before: Manifest | None) -> Manifest:
        """Make a new state durable, and write its `state.json` with the checksums of its files.

        Args:
            manifest: the state; its other files are written.
            before: the verified state that it shares segments with; None without.

        Returns:
            The same with the checksums.
        """
        known = dict(before.sums) if before else {}
        new = [file for file in manifest.data_files if file not in known]
        with ThreadPoolExecutor(_THREADS) as threads:
            found = dict(zip(new, threads.map(self._settled, new), strict=True))
        sums = {file: found[file] if file in found else known[file] for file in manifest.data_files}
        manifest = manifest._replace(sums=sums)
        folder = self.state(manifest.name)
        (folder / "state.json").write_text(manifest.as_json())
        sync_file(folder / "state.json")
        parents = {(self.root / file).parent for file in new} | {folder}
        for parent in sorted(parents | {above.parent for above in parents}):
            sync_file(parent)
        return manifest

    def publish(self, manifest: Manifest) -> None:
        """Make a state that was written here the current one; needs the lock."""
        state = (self.state(manifest.name) / "state.json").read_bytes()
        pointer = Pointer(manifest.name, zlib.crc32(state))
        if self._remote is not None:
            self._upload(self._remote, manifest, pointer)
        self._switch(pointer)

    def sweep(self, manifest: Manifest) -> None:
        """Remove every other state and segment; needs the lock."""
        used = {manifest.name, *(segment.name for segment in manifest.segments)}
        for kind in ("states", "segments"):
            for folder in (self.root / kind).glob("*"):
                if folder.name not in used:
                    shutil.rmtree(folder, ignore_errors=True)

    def forget_analyzed(self) -> None:
        """Remove what was analyzed, once it is part of the current state; needs the lock."""
        shutil.rmtree(self.root / "analyzed", ignore_errors=True)

    @property
    def _pointer(self) -> Path:
        return self.root / "current.json"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Raise an OSError as StorageError, except FileNotFoundError."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(explained(self.path, "read", error)) from error

    def _read(self) -> Manifest | None:
        pointer = Pointer.from_json(self._pointer.read_bytes(), self.path)
        return self._manifest(pointer) if pointer else None

    def _manifest(self, pointer: Pointer) -> Manifest:
        """Return a state by its `state.json`. Raises FileNotFoundError and IndexDamaged."""
        content = (self.state(pointer.state) / "state.json").read_bytes()
        broken = damaged(self.path, f"state.json of {pointer.state} is not what was written")
        if pointer.checksum is not None and zlib.crc32(content) != pointer.checksum:
            raise broken
        try:
            return Manifest.from_json(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise broken from error

    def _require_whole(self, manifest: Manifest, files: Collection[str] | None = None) -> None:
        """Raise IndexDamaged or FileNotFoundError unless files are as they were written."""
        files = manifest.data_files if files is None else files
        if not manifest.sums:
            # Written by an earlier version, so their lengths are all there is.
            for file in files:
                (self.root / file).stat()
            if files == manifest.data_files and (wrong := self._inconsistent(manifest)):
                raise damaged(self.path, wrong)
            return
        with ThreadPoolExecutor(min(_THREADS, len(files))) as threads:
            for file, found in zip(files, threads.map(self._sum, files), strict=True):
                if file not in manifest.sums:
                    raise damaged(self.path, f"state.json of {manifest.name} does not list {file}")
                if found.size != manifest.sums[file].size:
                    sizes = f"{found.size} bytes, not {manifest.sums[file].size}"
                    raise damaged(self.path, f"{file} has {sizes}")
                if found != manifest.sums[file]:
                    raise damaged(self.path, f"{file} is not what was written")

    def _inconsistent(self, manifest: Manifest) -> str | None:
        """Return which files of a state without checksums can't belong together; None if all may."""
        import numpy as np

        for segment in manifest.segments:
            folder = self.segment(segment.name)
            try:
                scanned = pl.scan_ipc(folder / "documents.arrow", glob=False)
                n_bytes = scanned.select(pl.col("n_bytes").cast(pl.Int64)).collect().to_series()
            except (pl.exceptions.PolarsError, OSError) as error:
                return f"documents.arrow of {segment.name} can't be read: {error}"
            whole = len(n_bytes) == segment.n_rows
            whole &= n_bytes.sum() == (folder / "texts").stat().st_size
            if not (whole and embedded_postings.fit_together(folder)):
                return f"the files of segment {segment.name} do not fit together"
        state = self.state(manifest.name)
        try:
            owners, order, gone, among = (
                len(np.load(state / f"{name}.npy"))
                for name in ("owners", "order", "gone_terms", "gone_frequencies")
            )
        except (ValueError, EOFError, TypeError) as error:
            return f"state {manifest.name} can't be read: {error}"
        rows = sum(segment.n_rows for segment in manifest.segments)
        whole = (owners, order, gone) == (rows, manifest.n_documents, among)
        return None if whole else f"the files of state {manifest.name} do not fit together"

    def _sum(self, file: str) -> FileSum:
        """Return length and checksum of a file; it is read once in a process, unless its status changes."""
        path = self.root / file
        status = path.stat()
        now = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        seen, found = _seen.get(path, (None, 0))
        if seen != now:
            with path.open("rb", buffering=0) as content:
                found = checksum(content)
            if len(_seen) >= _SEEN_AT_MOST:
                _seen.clear()
            _seen[path] = now, found
        return FileSum(status.st_size, found)

    def _settled(self, file: str) -> FileSum:
        sync_file(self.root / file)
        return self._sum(file)

    def _switch(self, pointer: Pointer) -> None:
        unfinished = self._pointer.with_suffix(UNFINISHED)
        unfinished.write_text(pointer.as_json())
        sync_file(unfinished)
        os.replace(unfinished, self._pointer)
        sync_file(self.root)

    def _upload(self, remote: UPath, manifest: Manifest, pointer: Pointer) -> None:
        """Copy what the remote folder lacks, make the state its current one, and remove files of the one before."""
        old: set[str] = set()
        with contextlib.suppress(FileNotFoundError, IndexDamaged):
            if before := self._remote_pointer(remote):
                old = set(self._manifest(before).files)
        with accessing(self.path, "write"):
            for file in manifest.files:
                if file not in old:
                    target = remote / file
                    target.fs.put_file(str(self.root / file), target.path)
            (remote / "current.json").write_text(pointer.as_json())
            for file in old.difference(manifest.files):
                with contextlib.suppress(FileNotFoundError):
                    (remote / file).unlink()

    def _download(self, remote: UPath) -> Manifest | None:
        """Make the remote folder's current state the local one, and return it; None without. Needs the lock.

        Raises:
            IndexDamaged: the remote state is damaged.
            StorageError: it can't be read.
        """
        pointer = self._remote_pointer(remote)
        while pointer:
            try:
                manifest = self._fetch_state(remote, pointer)
                break
            except (FileNotFoundError, IndexDamaged) as error:
                # A sync elsewhere may have replaced this state while it was being copied.
                before, pointer = pointer, self._remote_pointer(remote)
                if pointer == before:
                    if isinstance(error, FileNotFoundError):
                        raise damaged(self.path, "a file of it is not there") from error
                    raise
        if pointer is None:
            self._pointer.unlink(missing_ok=True)
            return None
        self._switch(pointer)
        return manifest

    def _fetch_state(self, remote: UPath, pointer: Pointer) -> Manifest:
        """Copy the files of a state that the local folder lacks, or that differ from what was written."""
        state = f"states/{pointer.state}/state.json"
        if not (self.root / state).exists():
            self._fetch(remote, state)
        try:
            manifest = self._manifest(pointer)
        except IndexDamaged:
            self._fetch(remote, state)
            manifest = self._manifest(pointer)
        for file in manifest.data_files:
            try:
                self._require_whole(manifest, [file])
            except (FileNotFoundError, IndexDamaged):
                self._fetch(remote, file)
                self._require_whole(manifest, [file])
        return manifest

    def _fetch(self, remote: UPath, file: str) -> None:
        target = self.root / file
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + UNFINISHED)
        source = remote / file
        with accessing(f"{self.path}/{file}", "read"):
            source.fs.get_file(source.path, str(unfinished))
        os.replace(unfinished, target)

    def _remote_pointer(self, remote: UPath) -> Pointer | None:
        try:
            with accessing(f"{self.path}/current.json", "read"):
                content = (remote / "current.json").read_bytes()
        except FileNotFoundError:
            return None
        return Pointer.from_json(content, self.path)
