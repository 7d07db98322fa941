"""The one partitioning: a shard of the corpus is a partition of every table.

Keys are added by the `new_shards` sensor, by `rare-assets run`, or by hand in the UI; they come from
`CorpusSource.shards` and sort as their files do. The name is global in a Dagster instance.
"""

from collections.abc import Sequence

import dagster as dg

SHARDS = "rare_document_shards"
TRIES = 5
document_shards = dg.DynamicPartitionsDefinition(name=SHARDS)


def registered_shards(instance: dg.DagsterInstance) -> list[str]:
    """Return the keys of the shards that are partitions of an instance, in the order they were added."""
    return list(instance.get_dynamic_partitions(SHARDS))


def add_shards(instance: dg.DagsterInstance, keys: Sequence[str]) -> None:
    """Add partitions to an instance, whoever adds the same at the same time.

    Dagster looks which of them are there and inserts the others; of two that do so at once, one fails.
    """
    from sqlalchemy.exc import IntegrityError

    for left in reversed(range(TRIES)):
        try:
            instance.add_dynamic_partitions(SHARDS, list(keys))
            return
        except IntegrityError:
            # What the other has added is seen now.
            if not left:
                raise
