"""Which shards the source has now, and how they become partitions of the Dagster instance.

The last scan lies in `<storage>/corpus_files/shards.parquet`, so that a scan opens only files that
changed and a shard's rows are found without reading the file from its start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from rare_assets.partitions import document_shards
from rare_assets.resources.corpus_source import CorpusSource, Shard

if TYPE_CHECKING:
    import dagster as dg

    from rare_assets.resources.tables import ParquetTables

NAMED = 5
SCAN_SCHEMA = {
    "key": pl.String,
    "file": pl.String,
    "part": pl.Int64,
    "first_row": pl.Int64,
    "n_rows": pl.Int64,
    "byte_start": pl.Int64,
    "byte_end": pl.Int64,
    "version": pl.String,
}


class Scan(NamedTuple):
    """What a scan of the source found, against the scan before and the registered partitions.

    `gone` are registered keys that the source no longer has: they stay registered, with everything
    made from them, until they are removed on purpose. `moved` tells that the source has none of the
    registered keys: it is another source rather than one whose files were deleted.
    """

    shards: list[Shard]
    new: list[str]
    changed: list[str]
    gone: list[str]
    moved: bool


def known_shards(tables: ParquetTables) -> list[Shard]:
    """The shards of the last scan; none if there was no scan yet."""
    path = tables.root / "corpus_files" / "shards.parquet"
    if not path.exists():
        return []
    frame = tables.scan_file(path).select(list(SCAN_SCHEMA)).collect()
    return [Shard(**row) for row in frame.iter_rows(named=True)]


def scan_source(
    source: CorpusSource,
    tables: ParquetTables,
    instance: dg.DagsterInstance,
    *,
    remember: bool = True,
) -> Scan:
    """Scan the source. Raises SourceError; registers nothing.

    Args:
        remember: store the scan, so that what is changed now is not found changed by the next one:
            only for who makes what has changed.
    """
    known = known_shards(tables)
    shards = source.shards(known)
    if remember and shards != known:
        frame = pl.DataFrame([shard._asdict() for shard in shards], schema=SCAN_SCHEMA)
        tables.write_file(frame, tables.root / "corpus_files" / "shards.parquet")
    registered = set(instance.get_dynamic_partitions(document_shards.name or ""))
    versions = {shard.key: shard.version for shard in known}
    keys = {shard.key for shard in shards}
    return Scan(
        shards,
        new=[shard.key for shard in shards if shard.key not in registered],
        changed=[
            shard.key
            for shard in shards
            if shard.key in registered and versions.get(shard.key, shard.version) != shard.version
        ],
        gone=sorted(registered - keys),
        moved=bool(registered) and not registered & keys,
    )


def remove_tables(scan: Scan, tables: ParquetTables) -> list[str]:
    """Delete the stored tables of the shards that are gone; the answers paid for stay.

    Returns the keys whose partitions are to be removed, too: none if the source is another one.
    """
    if scan.moved:
        return []
    for shard in scan.gone:
        tables.delete(shard)
    return scan.gone


def say_gone(scan: Scan, removed: list[str]) -> str:
    """What a person is told of the shards that are gone; "" if none is."""
    if not scan.gone:
        return ""
    names = some(scan.gone)
    if removed:
        return (
            f"{len(removed)} shards whose files are gone were removed with their tables, the answers "
            f"stay stored: {names}. They leave the index when corpus_index is made next."
        )
    told = f"{len(scan.gone)} registered shards are not in this source: {names}."
    if scan.moved:
        return (
            f"{told} Since it has none of those registered, it is taken for another source and "
            "nothing is removed. Use another RARE_STORAGE and DAGSTER_HOME for it, or delete the "
            "partitions."
        )
    return (
        f"{told} They stay in the index until their partitions are deleted, which "
        "RARE_REMOVE_DELETED_SHARDS=true does."
    )


def some(names: list[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
