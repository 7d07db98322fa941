"""The footer of a stored Parquet file: what it was made from, and the checksum of the file it stands in.

The checksum is that of the file with eight zeros in its place, so that damage anywhere shows.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import polars as pl

from rare_assets.files.stored_bytes import (
    BLOCK,
    ChecksumWriter,
    StorageError,
    accessing,
    checksum,
    explained,
)

FOOTER_KEY = "rare_assets"
MAGIC = b"PAR1"
# In place of MAGIC at the end of a file that was found damaged: nobody reads it any more, as a whole
# or by its footer, until it is made again.
FOUND_DAMAGED = b"DAMG"
# Read from a file's end; holds all of most footers.
TAIL = 1 << 16
_UNSTAMPED = "00000000"
_STAMP = re.compile(rb'\{"checksum": "([0-9a-f]{8})"')

# What Polars says of a file that is no Parquet file, or no longer is.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


class Provenance(NamedTuple):
    """What a stored shard is and what it was made from, read from its footer alone.

    `content_hash` changes only when the content that downstream depends on does (the table's
    identity columns); `made_from` names every input and setting that went in, by its own hash or
    value, so that comparing two of them tells what has changed.
    """

    content_hash: str
    n_rows: int
    n_rejects: int
    made_from: Mapping[str, str]


def content_hash(frame: pl.DataFrame, columns: tuple[str, ...]) -> str:
    """Hash some columns of a frame to 16 hex digits, independent of how the file is written."""
    digest = hashlib.sha256()
    for batch in frame.select(columns).iter_slices(10_000):
        digest.update(batch.write_ndjson().encode())
    return digest.hexdigest()[:16]


class Damage(Exception):
    """What is wrong with a footer."""


def last(file: IO[bytes]) -> bytes:
    """Return the end of a file, its whole footer included."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - TAIL))
    tail = file.read()
    needed = footer_size(tail)
    if len(tail) < needed <= size:
        file.seek(size - needed)
        tail = file.read()
    return tail


def footer_size(tail: bytes) -> int:
    """Return how many bytes a file's footer takes, with what stands behind it."""
    return int.from_bytes(tail[-8:-4], "little") + 8 if tail.endswith(MAGIC) else 0


def parsed(tail: bytes, *, bare: bool = False) -> tuple[Provenance | None, re.Match[bytes] | None]:
    """Return provenance and place of the checksum in the end of a file; None for what older files lack.

    Args:
        tail: the end of a file, with its footer.
        bare: the file is no table, so has no provenance.

    Raises:
        Damage: the footer is not what was written, or the file was found damaged before.
    """
    if tail.endswith(FOUND_DAMAGED):
        raise Damage("it was found damaged before")
    if not tail.endswith(MAGIC) or footer_size(tail) > len(tail):
        raise Damage("its end is not that of a Parquet file")
    try:
        metadata = pl.read_parquet_metadata(io.BytesIO(tail))
    except (*UNREADABLE, OSError) as error:
        raise Damage(f"its footer can't be read ({error})") from error
    if FOOTER_KEY not in metadata:
        if bare:
            return None, None
        raise Damage("its footer does not say that rare_assets wrote it")
    try:
        content = json.loads(metadata[FOOTER_KEY])
        stamped = content.pop("checksum", None) is not None
        provenance = Provenance(**content) if content else None
    except (ValueError, TypeError, AttributeError) as error:
        raise Damage("its footer is garbled") from error
    stamp = _STAMP.search(tail) if stamped else None
    if (stamped and stamp is None) or (provenance is None) is not bare:
        raise Damage("its footer is garbled")
    return provenance, stamp


def write_stamped(frame: pl.LazyFrame, path: Path, footer: Mapping[str, Any]) -> None:
    """Write a Parquet file with its own checksum in its footer, and wait until it is on the disk.

    Raises:
        StorageError: there is no room, or the file can't be written.
    """
    content = json.dumps({"checksum": _UNSTAMPED, **footer})
    with accessing(path, "write"):
        file = path.open("wb")
    writer = ChecksumWriter(file)
    try:
        frame.sink_parquet(cast("IO[bytes]", writer), metadata={FOOTER_KEY: content})
    except Exception as error:
        if writer.error is not None:
            raise StorageError(explained(path.parent, "write", writer.error)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            file.close()
    with accessing(path.parent, "write"), path.open("r+b") as written:
        tail = last(written)
        stamp = _STAMP.search(tail)
        assert stamp is not None
        written.seek(written.seek(0, io.SEEK_END) - len(tail) + stamp.start(1))
        written.write(f"{writer.checksum:08x}".encode())
        written.flush()
        os.fsync(written.fileno())


def has_checksum(file: IO[bytes], tail: bytes, stamp: re.Match[bytes]) -> bool:
    """Return whether a file has the checksum that its footer names. Reads all of it, a block at a time.

    Args:
        file: opened for reading.
        tail: its end, as `last` gives it.
        stamp: the checksum's place in that, as `parsed` gives it.
    """
    place = file.seek(0, io.SEEK_END) - len(tail) + stamp.start(1)
    file.seek(0)
    found = 0
    for at in range(0, place, BLOCK):
        found = zlib.crc32(file.read(min(BLOCK, place - at)), found)
    found = zlib.crc32(_UNSTAMPED.encode(), found)
    file.seek(place + len(_UNSTAMPED))
    return f"{checksum(file, found):08x}" == stamp[1].decode()
