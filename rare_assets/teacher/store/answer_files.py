"""Files of answers: gzip JSON lines in frames that stand alone, and an index of their keys.

A file is a chain of gzip members ("frames"), so that `zcat` and every data tool read it, a frame is
read by its byte range alone, and gzip's own checksum tells a torn or rotten frame. A line is
`{"key": <64 hex digits>, "at": <seconds since 1970>, "answer": {...}}`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import secrets
import socket
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rare_assets.files.cache import temporary_folder

try:
    import fcntl
except ImportError:  # no such locks on this platform: writers are then told apart by age
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

DATA = ".jsonl.gz"
KEYS = ".keys.npz"
TEMPORARY = ".tmp"
# Below this a file is read whole as fast as an index of its keys.
INDEXED_FROM = 256 * 1024
FRAME_BYTES = 128 * 1024
READ_BYTES = 8 * 1024 * 1024
_NAME = re.compile(
    r"(?P<kind>journal|part|segment)-(?P<time>\d{8}T\d{6})-[^/]+(\.jsonl\.gz|\.keys\.npz)(\.[0-9a-f]{8}\.tmp)?"
)
# The first bytes of every frame `pack` writes: gzip, deflate, no flags, no time.
_FRAME_START = bytes.fromhex("1f8b080000000000")
_KEY_AT = len('{"key":"')

Fingerprints = npt.NDArray[np.uint64]


def new_name(kind: str) -> str:
    """A file name nobody else will choose: when, where, which process, and 32 random bits."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:24] or "host"
    return f"{kind}-{now}-{host}-{os.getpid()}-{secrets.token_hex(4)}{DATA}"


def kind_of(name: str) -> str | None:
    """`journal`, `part` or `segment`; None for a file that is not one of ours."""
    match = _NAME.fullmatch(name)
    return match["kind"] if match else None


def age_s(name: str) -> float:
    """Seconds since the file of this name was begun, by the time in its name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return 0.0
    begun = datetime.strptime(match["time"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return time.time() - begun.timestamp()


def encode(key: bytes, at: float, answer: Mapping[str, Any]) -> bytes:
    """One answer as a line."""
    line = {"key": key.hex(), "at": round(at, 3), "answer": dict(answer)}
    try:
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which only the escaped form can hold
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def key_of(line: bytes) -> bytes:
    """The key of a line, without parsing the rest."""
    return bytes.fromhex(line[_KEY_AT : _KEY_AT + 64].decode())


def fingerprint(key: bytes) -> int:
    """The first 64 bits of a key: enough to find it, its line then proves it."""
    return int.from_bytes(key[:8], "big")


def fingerprints(lines: Iterable[bytes]) -> Fingerprints:
    """The fingerprints of some lines, in their order."""
    return np.fromiter((int(line[_KEY_AT : _KEY_AT + 16], 16) for line in lines), np.uint64)


def pack(lines: Iterable[bytes]) -> bytes:
    """Lines as one frame."""
    return zlib.compress(b"".join(lines), 6, wbits=31)


def unpack(frame: bytes) -> list[bytes]:
    """The lines of one frame. Raises zlib.error if it is torn or rotten."""
    return zlib.decompress(frame, wbits=31).splitlines(keepends=True)


class Frame(NamedTuple):
    """Where a frame lies in its file, and the lines it holds."""

    start: int
    end: int
    lines: list[bytes]


def scan(
    read: Callable[[int, int], bytes],
    start: int,
    stop: int,
    gaps: list[tuple[int, int]] | None = None,
) -> Iterator[Frame]:
    """The whole frames between two offsets; what is torn or rotten between them is passed over.

    Where each passage that can't be read begins and ends is appended to `gaps`. One that reaches
    `stop` may be no damage: in a journal its writer was killed, or is still writing.
    """
    window, base = b"", start
    at, broken_at = start, None
    while at < stop:
        inflate = zlib.decompressobj(wbits=31)
        parts: list[bytes] = []
        pos = at
        # Small bites, since zlib copies whatever follows the frame.
        with contextlib.suppress(zlib.error):
            while not inflate.eof and pos < stop:
                if not base <= pos < base + len(window):
                    window, base = read(pos, min(pos + READ_BYTES, stop)), pos
                    if not window:
                        break
                bite = window[pos - base : pos - base + 16384]
                pos += len(bite)
                parts.append(inflate.decompress(bite))
        if inflate.eof:
            if broken_at is not None and gaps is not None:
                gaps.append((broken_at, at))
            broken_at = None
            end = pos - len(inflate.unused_data)
            yield Frame(at, end, b"".join(parts).splitlines(keepends=True))
            at = end
            continue
        if broken_at is None:
            broken_at = at
        at = _next_frame(read, at + 1, stop)
    if broken_at is not None and gaps is not None:
        gaps.append((broken_at, stop))


def _next_frame(read: Callable[[int, int], bytes], start: int, stop: int) -> int:
    """Offset of what looks like the start of a frame, or `stop`."""
    at = start
    while at < stop:
        window = read(at, min(at + READ_BYTES, stop))
        found = window.find(_FRAME_START)
        if found >= 0:
            return at + found
        if len(window) < len(_FRAME_START):
            break
        # A start may lie across two windows.
        at += len(window) - len(_FRAME_START) + 1
    return stop


class Place(NamedTuple):
    """Where an answer may lie in a file: the frame's byte range, and the line in it."""

    start: int
    end: int
    line: int


class KeyIndex:
    """The keys of one file and where they lie: 12 bytes an answer, no Python object a key."""

    def __init__(self) -> None:
        self.size = 0
        self._starts = np.empty(0, np.uint64)
        self._ends = np.empty(0, np.uint64)
        self._firsts = np.zeros(1, np.uint64)
        self._sorted: Fingerprints = np.empty(0, np.uint64)
        self._order = np.empty(0, np.uint32)
        self._new: list[tuple[int, int, Fingerprints]] = []

    def __len__(self) -> int:
        return len(self._sorted) + sum(len(added) for _, _, added in self._new)

    def add(self, start: int, end: int, added: Fingerprints) -> None:
        """Take in a frame that follows those known."""
        self._new.append((start, end, added))
        self.size = end

    def find(self, wanted: Fingerprints) -> Iterator[tuple[int, Place]]:
        """Position in `wanted` and place, for every answer that may be one of those wanted."""
        self._settle()
        left = np.searchsorted(self._sorted, wanted, "left")
        right = np.searchsorted(self._sorted, wanted, "right")
        for position in np.flatnonzero(right > left):
            for record in self._order[left[position] : right[position]]:
                frame = int(np.searchsorted(self._firsts, record, "right")) - 1
                yield (
                    int(position),
                    Place(
                        int(self._starts[frame]),
                        int(self._ends[frame]),
                        int(record - self._firsts[frame]),
                    ),
                )

    def in_frame(self, start: int) -> int:
        """How many answers lie in the frame that begins there."""
        self._settle()
        frame = int(np.searchsorted(self._starts, np.uint64(start)))
        return int(self._firsts[frame + 1] - self._firsts[frame])

    def frames(self) -> Iterator[tuple[int, int, Fingerprints]]:
        """Every frame in the file's order: start, end, fingerprints."""
        everything = self.all()
        for number, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            first, stop = int(self._firsts[number]), int(self._firsts[number + 1])
            yield int(start), int(end), everything[first:stop]

    def all(self) -> Fingerprints:
        """Every fingerprint in the file's order."""
        self._settle()
        everything = np.empty_like(self._sorted)
        everything[self._order] = self._sorted
        return everything

    def dump(self) -> bytes:
        """The index as a NumPy archive, to lie beside the file."""
        everything = self.all()
        out = io.BytesIO()
        np.savez(
            out,
            size=np.uint64(self.size),
            keys=everything,
            starts=self._starts,
            ends=self._ends,
            firsts=self._firsts,
        )
        return out.getvalue()

    @classmethod
    def load(cls, dumped: bytes) -> KeyIndex:
        """Raises ValueError (or zipfile.BadZipFile, KeyError, OSError) if it is not one of ours."""
        index = cls()
        with np.load(io.BytesIO(dumped), allow_pickle=False) as archive:
            index.size = int(archive["size"])
            index._starts, index._ends = archive["starts"], archive["ends"]
            index._firsts = archive["firsts"]
            index._sort(archive["keys"])
        frames = len(index._starts)
        if not len(index._ends) == frames == len(index._firsts) - 1:
            raise ValueError("it does not agree with itself")
        if frames and (index._ends[-1] != index.size or index._firsts[-1] != len(index._order)):
            raise ValueError("it does not agree with itself")
        return index

    def _settle(self) -> None:
        if not self._new:
            return
        new, self._new = self._new, []
        counts = np.cumsum([len(added) for _, _, added in new], dtype=np.uint64)
        known = self.all()
        self._starts = np.append(self._starts, np.array([s for s, _, _ in new], np.uint64))
        self._ends = np.append(self._ends, np.array([e for _, e, _ in new], np.uint64))
        self._firsts = np.append(self._firsts, counts + np.uint64(len(known)))
        self._sort(np.concatenate([known, *(added for _, _, added in new)]))

    def _sort(self, in_file_order: Fingerprints) -> None:
        self._order = np.argsort(in_file_order, kind="stable").astype(np.uint32)
        self._sorted = in_file_order[self._order]


class Folder:
    """The folder of answer files, on this machine or behind any URL that fsspec knows.

    Args:
        root: local folder or URL; made at the first write.
        storage_options: passed to the fsspec file system.
    """

    def __init__(self, root: str, storage_options: Mapping[str, Any] | None = None) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.root = root
        self._storage_options = storage_options
        self._fs, self._path = url_to_fs(root, **(storage_options or {}))
        self.local = Path(self._path) if isinstance(self._fs, LocalFileSystem) else None

    def folder(self, name: str) -> Folder:
        """A folder in this one."""
        return Folder(f"{self.root.rstrip('/')}/{name}", self._storage_options)

    def sizes(self, wanted: Callable[[str], object] = kind_of) -> dict[str, int]:
        """Every file whose name is wanted (default: those of answers), with its size in bytes.

        None where there is no folder yet. Raises whatever the file system does, if it can't tell.
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
        """Byte ranges of a file, in the order asked. Raises FileNotFoundError."""
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
        """Some small files at once, whole; None for one that is not there (any more)."""
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
        """A whole file. Raises FileNotFoundError."""
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
        """A file to write to, that appears under its name, whole and durable, when the block ends."""
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
        """Make the folder's own entries durable."""
        if self.local is None:
            return
        descriptor = os.open(self.local, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock a file as long as it is open: False if another has it, None if it can't be told."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def create_locked(folder: Folder, new: Callable[[], str]) -> tuple[str, Path, int, bool]:
    """Create a local file that only its writer may take for its own, as long as it is open.

    Returns its name, path and descriptor (to read and to append), and whether a lock tells others.
    """
    assert folder.local is not None
    folder.local.mkdir(parents=True, exist_ok=True)
    while True:
        name = new()
        path = folder.local / name
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        locked = lock(descriptor)
        # Somebody tidying up may have been at it between the two calls.
        if locked is not False and os.fstat(descriptor).st_nlink:
            return name, path, descriptor, bool(locked)
        os.close(descriptor)


def remove_if_unlocked(path: Path, *, only_look: bool = False) -> bool | None:
    """Whether nobody has a file locked, which is then removed; None if that can't be told."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        free = lock(descriptor, shared=True)
        if free and not only_look:
            with not_found_is_fine():
                os.unlink(path)
        return free
    finally:
        os.close(descriptor)


def check_place(descriptor: int, path: Path) -> None:
    """Raise FileNotFoundError if an open file is not found under its path any more."""
    ours, there = os.fstat(descriptor), os.stat(path)
    if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
        raise FileNotFoundError(errno.ENOENT, "another file has taken its place", str(path))


def not_found_is_fine() -> contextlib.AbstractContextManager[None]:
    """Whether a file is there does not matter."""
    return contextlib.suppress(FileNotFoundError)
