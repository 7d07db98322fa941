"""What a stored shard's blocking checks say to a step that is made from it.

Dagster has a blocking check stop what follows in its own run. A later run, of a backfill say, starts
without it, and would pay for what is built on a shard that was stopped; so each step looks itself.
"""

from __future__ import annotations

import dagster as dg

from rare_assets.checks.by_table import CHECKS
from rare_assets.checks.judgement import StoredShard
from rare_assets.corpus.ids import why_colliding
from rare_assets.resources.dataset import Dataset
from rare_assets.resources.partitions import registered_shards
from rare_assets.storage.tables import ParquetTables


def why_blocked(stored: StoredShard, *checks: str) -> str | None:
    """Return why nothing may be built on a stored shard; None if its blocking checks let it
    through.

    Judged on what is stored now, by the thresholds of now, so a setting that was raised lets it
    through. Rules that need the index are left out: the step may do without.

    Args:
        checks: names of the checks to judge; all blocking ones by default.
    """
    found = [
        finding.sentence
        for check in CHECKS[stored.table]
        if check.blocking
        and (not checks or check.name in checks)
        and (finding := check.judge(stored, with_index=False)).is_error
    ]
    return "\n".join(found) or None


def refuse_if_blocked(
    context: dg.AssetExecutionContext, dataset: Dataset, tables: ParquetTables, *made_from: str
) -> None:
    """Refuse to build on tables of this shard whose blocking checks fail, and on documents that share an
    id with another shard's, before anything is paid.

    Args:
        made_from: the tables that the step is made from.

    Raises:
        dg.Failure: says which table, what is wrong with it and what to do.
    """
    shard = context.partition_key
    for table in made_from:
        if not tables.exists(table, shard):
            continue
        why = why_blocked(StoredShard(table, shard, tables, dataset=dataset))
        if why is not None:
            raise dg.Failure(
                f"{table}: {why}\nNothing is made from it until that is mended.",
                allow_retries=False,
            )
    if "documents" in made_from:
        registered = registered_shards(context.instance, dataset)
        if colliding := why_colliding(tables, shard, registered):
            raise dg.Failure(
                f"documents: {colliding}\nNothing is made from the shard until that is mended.",
                allow_retries=False,
            )
