"""Find which shards the source has now, against the scan before and the registered partitions.

The last scan lies in `<storage>/corpus_files/shards.parquet`, so that a scan opens only files that
changed and a shard's rows are found without reading the file from its start. Beside each shard stands
the version that was last scanned to be made: what only watches the source hides no change from what
makes its tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from rare_assets.corpus.formats import is_text_file
from rare_assets.corpus.packing import TEXTS, is_packed_key
from rare_assets.corpus.shards import Shard, shard_keys
from rare_assets.corpus.source import CorpusSource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from upath import UPath

    from rare_assets.storage.tables import ParquetTables

SCAN_SCHEMA: dict[str, Any] = {
    "key": pl.String,
    "file": pl.String,
    "part": pl.Int64,
    "first_row": pl.Int64,
    "n_rows": pl.Int64,
    "byte_start": pl.Int64,
    "byte_end": pl.Int64,
    "version": pl.String,
    "reading": pl.String,
    "members": pl.List(pl.String),
}


# The file's version as of the last scan by who makes what has changed.
NOTED = "noted"


class Scan(NamedTuple):
    """The source as a scan found it, against the scan before and the registered partitions.

    `gone` are registered keys that the source no longer has: they stay registered, with everything
    made from them, until they are removed on purpose. `moved` tells that the source has none of the
    registered keys: it is another source rather than one whose files were deleted. `superseded` are
    registered keys whose files are in other shards now, since files are packed or no longer are.
    """

    shards: list[Shard]
    new: list[str]
    changed: list[str]
    gone: list[str]
    moved: bool
    superseded: list[str]


def known_shards(tables: ParquetTables) -> list[Shard]:
    """Return the shards of the last scan; none if there was no scan yet, or its file is damaged.

    Raises:
        StorageError: it can't be read.
    """
    return _shards(_last_scan(tables))


def _shards(scanned: pl.DataFrame) -> list[Shard]:
    rows = scanned.select(list(SCAN_SCHEMA)).to_dicts()
    return [Shard(**{**row, "members": tuple(row["members"])}) for row in rows]


def _scan_path(tables: ParquetTables) -> UPath:
    return tables.root / "corpus_files" / "shards.parquet"


def _last_scan(tables: ParquetTables) -> pl.DataFrame:
    frame = tables.remembered(_scan_path(tables), {**SCAN_SCHEMA, NOTED: pl.String})
    # Written before there were other ways to read a file than one, or two who look.
    older = {
        NOTED: pl.col("version"),
        "reading": pl.lit(""),
        "members": pl.lit([], SCAN_SCHEMA["members"]),
    }
    return frame.with_columns(
        **{name: value for name, value in older.items() if name not in frame.columns}
    )


def scan_source(
    source: CorpusSource,
    tables: ParquetTables,
    registered: Iterable[str],
    *,
    remember: bool = True,
    watching: bool = False,
) -> Scan:
    """Scan the source. Register nothing.

    Args:
        source: what is scanned.
        tables: where the scan before is kept, and this one.
        registered: keys of the registered partitions.
        remember: store the scan, so that what is changed now is not found changed by the next one:
            only for who makes what has changed.
        watching: store it, so that the next one opens only files that change after it, and leave
            what is changed to be found by who makes it.

    Raises:
        SourceError: the source can't be listed, or has files that can't be read, or the storage lies in it.
        StorageError: the scan before can't be read, or this one not be stored.
    """
    source.require_apart(str(tables.root))
    last = _last_scan(tables)
    known = _shards(last)
    noted = dict(last.select("key", NOTED).iter_rows())
    shards = source.shards(known)
    if remember:
        frame = pl.DataFrame([shard._asdict() for shard in shards], schema=SCAN_SCHEMA)
        versions = [noted.get(s.key, s.version) if watching else s.version for s in shards]
        frame = frame.with_columns(pl.Series(NOTED, versions, pl.String))
        if not frame.equals(last):
            tables.write_file(frame, _scan_path(tables))
    registered = set(registered)
    keys = {shard.key for shard in shards}
    superseded = _superseded(shards, registered - keys)
    gone = registered - keys - superseded
    return Scan(
        shards,
        new=[shard.key for shard in shards if shard.key not in registered],
        changed=[
            shard.key
            for shard in shards
            if shard.key in registered and noted.get(shard.key, shard.version) != shard.version
        ],
        gone=sorted(gone),
        moved=bool(gone) and not registered & (keys | superseded),
        superseded=sorted(superseded),
    )


def _superseded(shards: list[Shard], absent: set[str]) -> set[str]:
    """Return the registered keys that the source no longer has, whose files it has in other shards."""
    members = [path for shard in shards for path in shard.members]
    single = [shard.file for shard in shards if not shard.members]
    alone = set(shard_keys([*members, *single]).values()) if members else set()
    files = {is_text_file(path) for path in [*members, *single]}
    return {
        key
        for key in absent
        if key in alone or (is_packed_key(key) and key.startswith(f"{TEXTS}.") in files)
    }
