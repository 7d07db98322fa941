"""How the shards of the source become partitions of the Dagster instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rare_assets.corpus.scan import Scan
from rare_assets.corpus.source import CorpusSource
from rare_assets.resources.dataset import Dataset
from rare_assets.resources.partitions import add_shards
from rare_assets.stages.source_states import report_states, source_states
from rare_assets.text.shown import first_names

if TYPE_CHECKING:
    import dagster as dg

    from rare_assets.storage.tables import ParquetTables


def register(
    scan: Scan,
    source: CorpusSource,
    tables: ParquetTables,
    instance: dg.DagsterInstance,
    dataset: Dataset,
    *,
    remove_deleted: bool,
) -> list[str]:
    """Make partitions of the new shards, remove what is superseded, and what is gone if that is
    wanted, and have the UI show which files are new, changed or gone.

    Return the keys that were removed.
    """
    if scan.new:
        add_shards(instance, scan.new, dataset)
    removed = remove_tables(scan, tables, remove_deleted=remove_deleted)
    for shard in removed:
        instance.delete_dynamic_partition(dataset.partitions_name, shard)
    report_states(source_states(scan, tables, removed), source, scan, instance, dataset)
    return removed


def remove_tables(scan: Scan, tables: ParquetTables, *, remove_deleted: bool) -> list[str]:
    """Delete the stored tables of shards whose files are in others now, and if that is wanted of those
    that are gone, unless the source is another one; the answers paid for stay.

    Return the keys whose partitions are to be removed, too.
    """
    gone = scan.gone if remove_deleted and not scan.moved else []
    for shard in (*scan.superseded, *gone):
        tables.delete(shard)
    return [*scan.superseded, *gone]


def describe_missing(scan: Scan, removed: list[str]) -> str:
    """Describe the shards that are gone or superseded, for a person; return "" if none is."""
    packed = ""
    if scan.superseded:
        packed = (
            f"{len(scan.superseded)} shards were replaced, since many small files are packed by RARE_FILES_PER_SHARD: "
            f"{first_names(scan.superseded)}. Their rows are made again in the shards that hold their files, from "
            "stored answers. "
        )
    if not scan.gone:
        return packed.strip()
    return packed + _describe_gone(scan, removed)


def _describe_gone(scan: Scan, removed: list[str]) -> str:
    names = first_names(scan.gone)
    if set(scan.gone) & set(removed):
        return (
            f"{len(scan.gone)} shards whose files are gone were removed with their tables, the answers "
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
