"""The embedded index's folder: its states, the one that is current, its lock, its remote home.

    current.json       names the state that readers open; replaced atomically
    states/<name>/     what is in the index:
        state.json         shards, ranking and statistics, the segments that hold the documents
        owners.npy         for each row of the segments in turn, its shard's place among the shards,
                           -1 if it is gone
        order.npy          rows of the documents in the order of their ids, one for each id
        gone_*.npy         terms of the rows that are gone, and in how many of them each one is
        duplicates.arrow   texts that stand twice
    segments/<name>/   documents: `documents.arrow`, `texts` and their postings
    analyzed/<hash>/   a shard's documents on their way into a segment, kept for the next sync if
                       this one is killed

A state and a segment never change and no name comes twice. So a reader may open whatever state is
current, and keeps what it has opened when a sync removes the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from rare_assets.resources.retriever import embedded_postings
from rare_assets.resources.retriever.interface import Bm25, IndexMissing, IndexState, ShardContent

if TYPE_CHECKING:
    from upath import UPath

ENGINE = "embedded"
# Raise it when the files' layout or an analyzer's terms change.
FORMAT = 2
UNFINISHED = ".part"
STATE_FILES = (
    "state.json",
    "owners.npy",
    "order.npy",
    "gone_terms.npy",
    "gone_frequencies.npy",
    "duplicates.arrow",
)
SEGMENT_FILES = ("documents.arrow", "texts", *embedded_postings.FILES)
Opened = TypeVar("Opened")


class Segment(NamedTuple):
    """A segment and how many documents lie in it."""

    name: str
    n_rows: int


class Manifest(NamedTuple):
    """What `state.json` says of a state.

    `n_counted` documents have a term, `n_terms` is the sum of their lengths: both count each row,
    `n_documents` each id.
    """

    name: str
    bm25: Bm25
    shards: dict[str, ShardContent]
    n_documents: int
    n_duplicates: int
    n_counted: int
    n_terms: int
    segments: list[Segment]

    @property
    def state(self) -> IndexState:
        """The same for those outside the engine."""
        shown = {key: content.content_hash for key, content in self.shards.items()}
        return IndexState(ENGINE, self.bm25, shown, self.n_documents)

    @property
    def files(self) -> list[str]:
        """Every file of the state, relative to the index folder."""
        return [f"states/{self.name}/{file}" for file in STATE_FILES] + [
            f"segments/{segment.name}/{file}" for segment in self.segments for file in SEGMENT_FILES
        ]

    def write(self, folder: Path) -> None:
        (folder / "state.json").write_text(
            json.dumps(self._asdict() | {"bm25": self.bm25._asdict()})
        )

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        content = json.loads((folder / "state.json").read_text())
        return cls(**content)._replace(
            bm25=Bm25(**content["bm25"]),
            shards={key: ShardContent(*of) for key, of in content["shards"].items()},
            segments=[Segment(*of) for of in content["segments"]],
        )


def new_name() -> str:
    """A name that no state and no segment had before."""
    return uuid.uuid4().hex


class IndexFolder:
    """A local index folder, or the local cache of a remote one.

    Args:
        path: the folder or its URL.
        cache: local folder for a remote index. Default: `$XDG_CACHE_HOME/rare_assets`.
    """

    def __init__(self, path: str, cache: str | None = None) -> None:
        from upath import UPath

        target = UPath(path)
        self.path = str(target)
        self._remote: UPath | None = None
        if target.protocol in ("", "file"):
            self.root = Path(target.path).expanduser().absolute()
        else:
            self._remote = target
            folder = cache or Path(
                os.environ.get("XDG_CACHE_HOME") or "~/.cache", "rare_assets", "index"
            )
            self.root = (
                Path(folder).expanduser() / hashlib.sha256(self.path.encode()).hexdigest()[:32]
            )

    @contextlib.contextmanager
    def locked(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Hold the writer's lock, which the system frees when its holder dies."""
        from filelock import FileLock, Timeout

        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / "sync.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"another sync of {self.path} is at work; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def segment(self, name: str) -> Path:
        return self.root / "segments" / name

    def state(self, name: str) -> Path:
        return self.root / "states" / name

    def analyzed(self, name: str) -> Path:
        return self.root / "analyzed" / name

    def current(self) -> Manifest | None:
        """The current state; None if there is none that is whole and of this format; needs the lock."""
        try:
            if self._remote is not None:
                self._download(self._remote)
            manifest = self._read()
        except FileNotFoundError:
            return None
        whole = manifest and all((self.root / file).exists() for file in manifest.files)
        return manifest if whole else None

    def open(self, opener: Callable[[Manifest], Opened], progress: Callable[[str], None]) -> Opened:
        """Open the current state's files. Raises IndexMissing if there is no state."""
        missing = IndexMissing(f"there is no index in {self.path}: materialize corpus_index")
        try:
            if self._remote is not None:
                with self.locked(progress):
                    self._download(self._remote)
                    if there := self._read():
                        self.sweep(there)
            # A sync may remove the state between reading its name and opening its files.
            for _ in range(100):
                before = self._pointer.read_bytes()
                try:
                    manifest = self._read()
                    if manifest is None:
                        raise missing
                    return opener(manifest)
                except FileNotFoundError:
                    if self._pointer.read_bytes() == before:
                        raise
        except FileNotFoundError as error:
            raise missing from error
        raise missing

    def publish(self, manifest: Manifest) -> None:
        """Make a state whose files lie here the current one; needs the lock."""
        if self._remote is not None:
            self._upload(self._remote, manifest)
        self._switch(manifest.name)

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

    def _read(self) -> Manifest | None:
        name = _pointed_to(self._pointer.read_text())
        return Manifest.read(self.state(name)) if name else None

    def _switch(self, name: str) -> None:
        pointer = self._pointer.with_suffix(UNFINISHED)
        pointer.write_text(_pointing_to(name))
        os.replace(pointer, self._pointer)

    def _upload(self, remote: UPath, manifest: Manifest) -> None:
        """Put what the remote folder lacks, make the state its current one, remove what only the
        one before had."""
        before = _remote_pointer(remote)
        old: set[str] = set()
        if before:
            with contextlib.suppress(FileNotFoundError):
                old = set(Manifest.read(self.state(before)).files)
        for file in manifest.files:
            if file not in old:
                target = remote / file
                target.fs.put_file(str(self.root / file), target.path)
        (remote / "current.json").write_text(_pointing_to(manifest.name))
        for file in old.difference(manifest.files):
            with contextlib.suppress(FileNotFoundError):
                (remote / file).unlink()

    def _download(self, remote: UPath) -> None:
        """Make the remote folder's current state the local one; needs the lock.

        Raises:
            FileNotFoundError: a file of it is missing.
        """
        name = _remote_pointer(remote)
        while name:
            try:
                self._fetch(remote, f"states/{name}/state.json")
                manifest = Manifest.read(self.state(name))
                for file in manifest.files:
                    self._fetch(remote, file)
                break
            except FileNotFoundError:
                # A sync elsewhere may have replaced this state while it was being copied.
                before, name = name, _remote_pointer(remote)
                if name == before:
                    raise
        if name is None:
            self._pointer.unlink(missing_ok=True)
            return
        self._switch(name)

    def _fetch(self, remote: UPath, file: str) -> None:
        target = self.root / file
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + UNFINISHED)
        source = remote / file
        source.fs.get_file(source.path, str(unfinished))
        os.replace(unfinished, target)


def _pointing_to(name: str) -> str:
    return json.dumps({"format": FORMAT, "state": name})


def _pointed_to(pointer: str) -> str | None:
    """Name of the current state, None if another version wrote it."""
    content = json.loads(pointer)
    return str(content["state"]) if content["format"] == FORMAT else None


def _remote_pointer(remote: UPath) -> str | None:
    try:
        return _pointed_to((remote / "current.json").read_text())
    except FileNotFoundError:
        return None
