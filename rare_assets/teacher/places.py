"""Share the places in flight of a machine among all its steps, so that a step with few requests left leaves
its own to the others.

A place is a byte of a file, locked by the process that has it: a process that is killed gives its places
back. Such locks belong to the process and end when it closes the file. So it opens the file once, and keeps
it open for all of its teachers.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on this platform: each process has as many places as there are
    fcntl = None  # type: ignore[assignment]

_files: dict[Path, _File] = {}
_opening = threading.Lock()


class Places:
    """Take places in flight of this machine, for one teacher.

    Args:
        path: the file, on a disk of this machine; made at the first use.
        count: number of places, at least 1. A teacher with a smaller number uses the first ones.

    Raises:
        ValueError: `count` is below 1.
    """

    def __init__(self, path: Path, count: int) -> None:
        if count < 1:
            raise ValueError(f"there must be at least 1 place in flight, not {count}")
        self._path = path
        self._count = count
        self._kept: int | None = None

    def keep_one(self) -> bool:
        """Keep a place ready for `take`; returns False if all are taken."""
        if self._kept is None:
            self._kept = _file(self._path).take(self._count)
        return self._kept is not None

    def take(self) -> int | None:
        """Take the place that is kept ready; returns None if there is none."""
        kept, self._kept = self._kept, None
        return kept

    def free(self, place: int | None) -> None:
        """Give a place back."""
        if place is not None:
            _file(self._path).free(place)

    def keep_none(self) -> None:
        """Give back the place that is kept ready."""
        self.free(self.take())


class _File:
    """The file of places, opened by this process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Nobody else may have laid a link there.
        flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
        self._descriptor = os.open(path, flags, 0o600)
        self._process = os.getpid()
        self._taken: set[int] = set()
        # Where a free one was last found: the others are then looked at in turn.
        self._next = 0
        self._lock = threading.Lock()

    @property
    def of_this_process(self) -> bool:
        """True if this process opened it, and not the one that it was forked from."""
        return self._process == os.getpid()

    def take(self, count: int) -> int | None:
        """Lock one of the first `count` places; returns None if all are taken."""
        with self._lock:
            for offset in range(count):
                place = (self._next + offset) % count
                if place not in self._taken and self._locked(place):
                    self._taken.add(place)
                    self._next = place
                    return place
            return None

    def free(self, place: int) -> None:
        """Unlock a place of this process."""
        with self._lock:
            if place in self._taken:
                self._taken.discard(place)
                if fcntl is not None:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)

    def _locked(self, place: int) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True


def _file(path: Path) -> _File:
    with _opening:
        file = _files.get(path)
        if file is None or not file.of_this_process:
            file = _files[path] = _File(path)
        return file
