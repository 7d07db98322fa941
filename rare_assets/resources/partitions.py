"""The one partitioning: a shard of the corpus is a partition of every table.

Keys are added by the `new_shards` sensor, by `rare-assets run`, or by hand in the UI; they come from
`CorpusSource.shards` and sort as their files do. The name is global in a Dagster instance.
"""

import dagster as dg

SHARDS = "rare_document_shards"
document_shards = dg.DynamicPartitionsDefinition(name=SHARDS)


def registered_shards(instance: dg.DagsterInstance) -> list[str]:
    """Return the keys of the shards that are partitions of an instance, in the order they were added."""
    return list(instance.get_dynamic_partitions(SHARDS))
