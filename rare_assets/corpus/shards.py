"""Shards of a source, and their keys.

A shard is what one partition processes. Its key is stable: the same file has the same keys in every
scan, and a file that grows keeps the keys it has and gains new ones.

>>> shard_keys(["notes/ice.jsonl", "Grüße.csv"])
{'notes/ice.jsonl': 'notes__ice.jsonl', 'Grüße.csv': 'Grue-csv-fe088918'}
>>> part_key("notes__ice.jsonl", 2)
'notes__ice.jsonl.part-00002'
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

_PART = re.compile(r"\.part-\d{5,}$")
_SEGMENT = r"(?![.-])[A-Za-z0-9._-]+"
_PLAIN_PATH = re.compile(
    rf"(?!.*(?:__|_/|/_|\.\.|\.part-\d{{5}})){_SEGMENT}(?:/{_SEGMENT})*", re.DOTALL
)
_PLAIN_LENGTH = 150


class Shard(NamedTuple):
    """Consecutive rows of one file.

    `part` counts from 0, `first_row` from 1. `byte_start` and `byte_end` are None for Parquet and
    text files. `version` is the file's when it was cut. Where the file could not be read, it begins
    with "unread:", and the rest is what was known before, else a shard of 0 rows. `reading` names
    the settings by which such files are read, where they are not the default ones. `members` are the
    files of a shard of several: `file` is its key then; text files count as a row each.
    """

    key: str
    file: str
    part: int
    first_row: int
    n_rows: int
    byte_start: int | None
    byte_end: int | None
    version: str
    reading: str = ""
    members: tuple[str, ...] = ()


def shard_keys(paths: Iterable[str]) -> dict[str, str]:
    """Return the key of each file's first shard, by its path.

    A key is a safe file name and object name, and no two paths share one. A plain path is its own
    key, with "__" for "/"; any other gets a readable part and a hash. So do paths that differ in
    upper and lower case alone: of all keys, only theirs depend on which other files there are.
    """
    paths = list(paths)
    folded = Counter(path.lower() for path in paths)
    return {
        path: path.replace("/", "__")
        if folded[path.lower()] == 1 and len(path) <= _PLAIN_LENGTH and _PLAIN_PATH.fullmatch(path)
        else _hashed_key(path)
        for path in paths
    }


def _hashed_key(path: str) -> str:
    ascii_path = unicodedata.normalize("NFKD", path).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", ascii_path)[:_PLAIN_LENGTH].strip("-") or "file"
    return f"{slug}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def part_key(key: str, part: int) -> str:
    """Return the key of a file's part, counted from 0, by the key of its first shard."""
    return f"{key}.part-{part:05d}" if part else key


def file_key(key: str) -> str:
    """Return the key of a file's first shard, by the key of any of its parts."""
    return _PART.sub("", key)
