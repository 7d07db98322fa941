"""Put many small files into shards: by a hash of each file's path alone.

Files are parted by the bits of their hash, and a part that has too many is halved by the next bit. So an added
file changes its own shard, or halves it, and moves no other; of the halves, one keeps the shard's key.

>>> sorted(packed(["a.txt", "b.txt", "c.txt"], at_most=200, of="texts"))
['texts.0']
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Collection

# So many text files are a shard each; more are packed. Data files are where there are hundreds of small ones:
# a larger one has rows enough for a shard.
PACKED_ABOVE, DATA_PACKED_ABOVE = 50, 200
SMALL_BYTES = 64 << 10
TEXTS, DATA = "texts", "rows"
_KEY = re.compile(rf"(?:{TEXTS}|{DATA})\.(?:0|[01]*1)")
_BITS = 64


def packed(paths: Collection[str], at_most: int, of: str) -> dict[str, list[str]]:
    """Return the shards of some files, by key, each with its files in order of their paths.

    A key is what the files are (`of`: TEXTS or DATA) and the first bits of the hashes that it has, without zeros at the end.
    """
    files = sorted((_hash(path), path) for path in paths)
    hashes = [number for number, _ in files]
    shards: dict[str, list[str]] = {}
    todo = [("", 0, len(files))]
    while todo:
        prefix, first, last = todo.pop()
        if last - first > at_most and len(prefix) < _BITS:
            middle = int(prefix + "1", 2) << (_BITS - 1 - len(prefix))
            half = bisect_left(hashes, middle, first, last)
            todo += [(f"{prefix}0", first, half), (f"{prefix}1", half, last)]
        elif last > first:
            shards[f"{of}.{prefix.rstrip('0') or '0'}"] = sorted(p for _, p in files[first:last])
    return shards


def is_packed_key(key: str) -> bool:
    """Return True if a shard's key is one of several files."""
    return _KEY.fullmatch(key) is not None


def version_of(files: Collection[tuple[str, str]]) -> str:
    """Return what changes when one of some files does, or comes or goes: of their paths and versions."""
    digest = hashlib.blake2b(digest_size=8)
    for path, version in sorted(files):
        digest.update(f"{path}\0{version}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _hash(path: str) -> int:
    encoded = path.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=_BITS // 8).digest())
