"""Files of the storage as bytes: whole or not at all, durable, with a checksum; and errors for people.

A file that can't be reached is an error, never a file that isn't there: only "not found" is absence.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from rare_assets.files.object_store import unreadable_authorities
from rare_assets.text.shown_url import shown, without_secrets

BLOCK = 1 << 20
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "'rare-assets[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LEAVE = {errno.EACCES, errno.EPERM, errno.EROFS}


class StorageError(RuntimeError):
    """A file of the storage can't be read or written; the message says which, why and what to do."""


class StorageDamaged(StorageError):
    """A file of the storage is not what was written."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def accessing(path: object, what: Literal["read", "write"]) -> Iterator[None]:
    """Raise whatever goes wrong with a file as StorageError; "not found" while reading stays as it is.

    Hold nothing but reading and writing in it: every exception is taken for the storage's.

    Raises:
        FileNotFoundError: while reading; there is no file.
        StorageError: anything else; its message says what to do.
    """
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        if what == "read":
            raise
        raise StorageError(explained(path, what, error)) from error
    except Exception as error:
        raise StorageError(explained(path, what, error)) from error


def explained(path: object, what: Literal["read", "write"], error: Exception) -> str:
    """Return what a person is told of an error with a file, and what to do."""
    number = error.errno if isinstance(error, OSError) else None
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    reason = without_secrets(re.sub(r"\[Errno \d+\] ", "", reason), str(path))
    reason = " ".join(reason.split())[:300] or type(error).__name__
    if isinstance(error, ImportError | ValueError) and "://" in str(path):
        scheme = shown(path).partition("://")[0]
        return f"{shown(path)} can't be opened: {reason}. Storage on {scheme}:// needs {package_for(scheme)}."
    reason += unreadable_authorities(str(path))
    if isinstance(error, NotADirectoryError | FileExistsError):
        hint = "a file lies where a folder is needed; is RARE_STORAGE a folder?"
    elif isinstance(error, IsADirectoryError):
        hint = "a folder lies where the file should be; move it away"
    elif number in _NO_ROOM:
        hint = "make room, then run again; what is stored stays"
    elif number in _NO_LEAVE or isinstance(error, PermissionError):
        hint = f"may this user {what} there?"
    elif what == "read":
        hint = "nothing was changed; run again once the storage can be read"
    else:
        hint = "what is stored stays; run again once the storage can be written"
    return f"{shown(path)} can't be {'read' if what == 'read' else 'written'}: {reason} ({hint})."


def package_for(scheme: str) -> str:
    """Return the command that installs what opens URLs of a scheme, or what to look for.

    >>> package_for("gs")
    'pip install gcsfs'
    """
    named = _PACKAGES.get(scheme)
    return f"pip install {named}" if named else "the package that is named"


def checksum(file: _Readable, so_far: int = 0) -> int:
    """Return the CRC-32 of what is left to read, a MiB in memory at a time.

    CRC-32 finds every flipped bit and every burst of up to 32 bits, other damage but for one in four
    billion; it is in the standard library, lets other threads run, and is as fast as any hash there.

    Args:
        so_far: the CRC-32 of what was read before.
    """
    while block := file.read(BLOCK):
        so_far = zlib.crc32(block, so_far)
    return so_far


def sync_file(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ChecksumWriter:
    """A file being written: keeps the CRC-32 of what went in, and the error that broke it off.

    Polars tells of a write that failed in words alone; here the error is kept as it was.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.checksum = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write and count it; returns the bytes written. Raises OSError."""
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.checksum = zlib.crc32(data, self.checksum)
        return len(data)

    def flush(self) -> None:
        """Hand on what is buffered. Raises OSError."""
        try:
            self._file.flush()
        except OSError as error:
            self.error = error
            raise


def file_version(details: dict[str, Any]) -> str:
    """Return what changes when a file does: the store's etag, else time of change and size.

    Args:
        details: what fsspec's `info` says of the file.

    >>> file_version({"mtime": 1735689600.0, "size": 120})
    '1735689600.0-120'
    """
    for name in ("ETag", "etag", "md5Hash"):
        if details.get(name):
            return str(details[name]).strip('"')
    size = int(details.get("size") or 0)
    for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        if changed := details.get(name):
            seconds = changed.timestamp() if isinstance(changed, datetime) else changed
            return f"{seconds}-{size}"
    return f"size-{size}"
