"""Lock local files as long as their writer lives."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from rare_assets.teacher.store.folder import Folder

try:
    import fcntl
except ImportError:  # no such locks on this platform: writers are then told apart by age
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock a file as long as it is open; returns False if another has it, None if that can't be told."""
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
    """Create a local file that is locked as long as it is open.

    Args:
        folder: on a disk of this machine.
        new: returns a name that nobody else chooses.

    Returns:
        Name, path and descriptor of the file, and whether it is locked (some systems have no locks).
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
    """Remove a file that nobody has locked; returns whether that is so, None if it can't be told.

    Args:
        path: of the file; one that is not there counts as removed.
        only_look: do not remove it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        free = lock(descriptor, shared=True)
        if free and not only_look:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return free
    finally:
        os.close(descriptor)


def check_place(descriptor: int, path: Path) -> None:
    """Raise FileNotFoundError if an open file does not lie under its path any more."""
    ours, there = os.fstat(descriptor), os.stat(path)
    if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
        raise FileNotFoundError(errno.ENOENT, "another file has taken its place", str(path))
