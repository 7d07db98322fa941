"""Write answers: to a journal, to objects of one commit each, or to a segment."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from rare_assets.teacher.store import answer_files as files
from rare_assets.teacher.store import locks
from rare_assets.teacher.store.folder import Folder
from rare_assets.teacher.store.key_index import Fingerprints, KeyIndex

# A journal is closed and a new one begun at this size; parts at this number.
JOURNAL_BYTES = 32 * 1024 * 1024
PARTS = 64
# A writer never adds to a journal after this pause, others take it over after twice as long.
IDLE_S = 1800.0


class Segment:
    """Write lines in frames of at least `FRAME_BYTES` before compression, and index them."""

    def __init__(self, out: Any) -> None:
        self.index = KeyIndex()
        self._out = out
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, line: bytes) -> None:
        """Add a line to the next frame."""
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= files.FRAME_BYTES:
            self.flush()

    def copy(self, frame: bytes, prints: Fingerprints) -> None:
        """Add a whole frame as it is, with the fingerprints of its keys."""
        self.flush()
        self._write(frame, prints)

    def flush(self) -> None:
        """Write the lines that wait as a frame."""
        if self._lines:
            lines, self._lines, self._bytes = self._lines, [], 0
            self._write(files.pack(lines), files.fingerprints(lines))

    def _write(self, frame: bytes, prints: Fingerprints) -> None:
        self._out.write(frame)
        self.index.add(self.index.size, self.index.size + len(frame), prints)


class Journal:
    """The file that this process adds to, locked as long as it is open."""

    def __init__(self, folder: Folder) -> None:
        new = partial(files.new_name, "journal")
        self._name, self._path, self._descriptor, _ = locks.create_locked(folder, new)
        folder.sync()
        self._size = 0
        self._released = False
        self._last = time.monotonic()

    @property
    def names(self) -> Sequence[str]:
        """Names of the files that only this process may add to."""
        return (self._name,)

    @property
    def stored(self) -> Sequence[str]:
        """Files that are durable."""
        return (self._name,)

    @property
    def full(self) -> bool:
        """True if a new writer is due."""
        return self._size >= JOURNAL_BYTES or time.monotonic() - self._last > IDLE_S

    def append(self, frame: bytes) -> tuple[str, int]:
        """Add a frame durably; returns the file's name and the frame's offset in bytes.

        Raises:
            OSError: it could not be written; the file is as it was before.
        """
        start, rest = self._size, memoryview(frame)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
            self.check()
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, start)
                os.lseek(self._descriptor, start, os.SEEK_SET)
            raise
        self._size += len(frame)
        self._last = time.monotonic()
        return self._name, start

    def check(self) -> None:
        """Raise OSError if the file does not lie under its name any more, so that nobody reads it."""
        locks.check_place(self._descriptor, self._path)

    def release(self) -> None:
        """Close the file, and give up its lock."""
        if not self._released:
            self._released = True
            os.close(self._descriptor)


class Parts:
    """Objects of one commit each, for a storage where a file can't grow."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._stored: list[str] = []
        self._bytes = 0

    @property
    def names(self) -> Sequence[str]:
        """Names of the files that only this process may add to."""
        return tuple(self._names)

    @property
    def stored(self) -> Sequence[str]:
        """Files that are durable."""
        return tuple(self._stored)

    def check(self) -> None:
        """Do nothing: a write that did not reach the store has failed already."""

    @property
    def full(self) -> bool:
        """True if a new writer is due."""
        return len(self._names) >= PARTS or self._bytes >= JOURNAL_BYTES

    def append(self, frame: bytes) -> tuple[str, int]:
        """Write a frame as an object; returns its name and the offset 0. Raises what the file system raises."""
        name = files.new_name("part")
        # Before it is there, so that a listing meanwhile leaves it to us.
        self._names.append(name)
        for pause in (1.0, 4.0, None):
            try:
                self._folder.write(name, frame)
                break
            except Exception:
                if pause is None:
                    self._names.remove(name)
                    raise
                time.sleep(pause)
        self._stored.append(name)
        self._bytes += len(frame)
        return name, 0

    def release(self) -> None:
        """Do nothing: no file is held open."""
