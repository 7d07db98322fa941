"""Read and write files of answers: gzipped JSON lines, in frames that can be read alone.

A file is a chain of gzip members ("frames"), so that `zcat` and every data tool read it, a frame can be read
by its byte range, and gzip's own checksum tells a torn or damaged frame. A line is
`{"key": <64 hex digits>, "at": <Unix time>, "answer": {...}}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from rare_assets.teacher.store.key_index import Fingerprints

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


def new_name(kind: str) -> str:
    """Return a file name that nobody else will choose: time, host, process, and 32 random bits."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:24] or "host"
    return f"{kind}-{now}-{host}-{os.getpid()}-{secrets.token_hex(4)}{DATA}"


def kind_of(name: str) -> str | None:
    """Return `journal`, `part` or `segment` by a file's name; None if it is no file of answers."""
    match = _NAME.fullmatch(name)
    return match["kind"] if match else None


def age_s(name: str) -> float:
    """Return the seconds since a file was begun, by the time in its name; 0.0 if it is no file of answers."""
    match = _NAME.fullmatch(name)
    if match is None:
        return 0.0
    begun = datetime.strptime(match["time"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return time.time() - begun.timestamp()


def encode(key: bytes, at: float, answer: Mapping[str, Any]) -> bytes:
    r"""Return an answer as a line; `at` is its Unix time.

    Example:
        >>> encode(bytes(32), 1.0, {"content": "It melts."})[73:]
        b',"at":1.0,"answer":{"content":"It melts."}}\n'
    """
    line = {"key": key.hex(), "at": round(at, 3), "answer": dict(answer)}
    try:
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which only the escaped form can hold
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def key_of(line: bytes) -> bytes:
    """Return the key of a line (32 bytes), without parsing the rest."""
    return bytes.fromhex(line[_KEY_AT : _KEY_AT + 64].decode())


def fingerprint(key: bytes) -> int:
    """Return the first 64 bits of a key as an integer: they find its line, which then tells the whole key."""
    return int.from_bytes(key[:8], "big")


def fingerprints(lines: Iterable[bytes]) -> Fingerprints:
    """Return the fingerprints of lines, in their order: uint64 of shape (lines,)."""
    return np.fromiter((int(line[_KEY_AT : _KEY_AT + 16], 16) for line in lines), np.uint64)


def pack(lines: Iterable[bytes]) -> bytes:
    """Return lines as one frame."""
    return zlib.compress(b"".join(lines), 6, wbits=31)


def unpack(frame: bytes) -> list[bytes]:
    """Return the lines of one frame. Raises zlib.error if it is torn or damaged."""
    return zlib.decompress(frame, wbits=31).splitlines(keepends=True)


class Frame(NamedTuple):
    """A frame: its first byte in the file, the byte behind it, and the lines that it holds."""

    start: int
    end: int
    lines: list[bytes]


def scan(
    read: Callable[[int, int], bytes],
    start: int,
    stop: int,
    gaps: list[tuple[int, int]] | None = None,
) -> Iterator[Frame]:
    """Yield the whole frames between two byte offsets, and skip what is torn or damaged.

    Args:
        read: returns the bytes of a file from one offset to another.
        start, stop: byte offsets.
        gaps: start and end of each part that can't be read are appended to it. A gap that reaches `stop`
            may be no damage: in a journal, its writer was killed or is still writing.
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
    """Return the byte offset of what looks like the start of a frame, or `stop`."""
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


def aside_name(name: str) -> str:
    """Return the name under which a damaged file is kept; nobody reads files of such names."""
    return f"damaged-{name}"


def keys_name(name: str) -> str:
    """Return the name of the index of a file of answers."""
    return name.removesuffix(DATA) + KEYS


def data_name(name: str) -> str:
    """Return the name of the file of answers that an index belongs to."""
    return name.removesuffix(KEYS) + DATA
