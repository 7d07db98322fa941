"""The one partitioning: a shard of the corpus is a partition of every table.

Keys are added by the sensors, by `rare-assets run` and `register`, or by hand in the UI; they come from
`CorpusSource.shards` and sort as their files do. The partitions' name is global in a Dagster instance.
"""

from collections.abc import Sequence

import dagster as dg

from rare_assets.resources.dataset import Dataset

TRIES = 5


def registered_shards(instance: dg.DagsterInstance, dataset: Dataset) -> list[str]:
    """Return the keys of the shards that are partitions of an instance, in the order they were added."""
    return list(instance.get_dynamic_partitions(dataset.partitions_name))


def add_shards(instance: dg.DagsterInstance, keys: Sequence[str], dataset: Dataset) -> None:
    """Add partitions to an instance, whoever adds the same at the same time.

    Dagster looks which of them are there and inserts the others; of two that do so at once, one fails.

    Raises:
        sqlalchemy.exc.IntegrityError: others came first at every try.
    """
    from sqlalchemy.exc import IntegrityError

    for left in reversed(range(TRIES)):
        try:
            instance.add_dynamic_partitions(dataset.partitions_name, list(keys))
            return
        except IntegrityError:
            # What the other has added is seen now.
            if not left:
                raise
