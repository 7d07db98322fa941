"""Read a file's bytes as its rows stand in them: unpacked, and in UTF-8 where its byte order mark says otherwise."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
from typing import IO, Any, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from rare_assets.text.encodings import wide_encoding

PACKED = (".gz", ".zst")
_CHUNK = 1 << 20
_MAGIC = {
    b"\x1f\x8b": "its bytes are packed by gzip; a name with .gz at its end says so",
    b"\x28\xb5\x2f\xfd": "its bytes are packed by zstd; a name with .zst at its end says so",
    b"PK\x03\x04": "it is a zip archive or a workbook; unpack it, or save it in the format that its name says",
}


def unpacked(stream: IO[bytes], path: str) -> IO[bytes]:
    """Return a stream of the bytes that a file holds, unpacked where its name ends in `.gz` or `.zst`."""
    if path.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream, mode="rb"))
    if path.lower().endswith(".zst"):
        return cast(IO[bytes], zstd.ZstdFile(stream, "rb"))
    return stream


def as_utf8(stream: io.BufferedReader) -> io.BufferedReader:
    """Return the stream itself, or one in UTF-8 of a text that is in UTF-16 or UTF-32.

    Raises:
        ValueError: its bytes are packed, and its name does not say so.
    """
    for magic, kind in _MAGIC.items():
        if stream.peek(4).startswith(magic):
            raise ValueError(kind)
    found = wide_encoding(stream.peek(4)[:4])
    if found is None:
        return stream
    return io.BufferedReader(cast(Any, _Recoded(stream, *found)), _CHUNK)


class _Recoded(io.RawIOBase):
    """UTF-8 of another encoding. What that can't hold becomes bytes that are no UTF-8, so it spoils its own
    row alone. Going back begins anew.
    """

    def __init__(self, stream: IO[bytes], mark: bytes, encoding: str) -> None:
        self._stream = stream
        self._mark = mark
        self._encoding = encoding
        self._ready = b""
        self._at = 0
        self._begin()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._stream.read(_CHUNK)
            text = self._decoder.decode(block, not block)
            self._ready = text.encode("utf-8", "surrogatepass")
            if not block:
                break
        n = min(len(buffer), len(self._ready))
        buffer[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        self._at += n
        return n

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            while self.read(_CHUNK):
                pass
            offset += self._at
        if offset < self._at:
            self._begin()
        while self._at < offset and self.read(min(_CHUNK, offset - self._at)):
            pass
        return self._at

    def _begin(self) -> None:
        self._stream.seek(len(self._mark))
        self._decoder = codecs.getincrementaldecoder(self._encoding)("surrogatepass")
        self._ready = b""
        self._at = 0
