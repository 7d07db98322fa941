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
    made from them, until they are removed on purpose.
    """

    shards: list[Shard]
    new: list[str]
    changed: list[str]
    gone: list[str]


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
    )
