"""Show in the UI which shards' hard negatives are unsynced after a sync: those that it has outdated.

Dagster compares the data version of `corpus_index` with the one that each shard's last materialization
names, for all shards alike. So that version tells how the index ranks, and stays while that does; a
shard whose negatives no longer stand gets its last materialization reported once more, as made from an
older version, and back where they stand again. The others get no event, so keep their pages and checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

from rare_assets.resources.dataset import Dataset
from rare_assets.resources.tags import DATA_VERSION_TAG, input_version_tag

if TYPE_CHECKING:
    from rare_assets.retriever import IndexState
    from rare_assets.stages.standing import Negatives

EVENTS_AT_ONCE = 100


class Version(NamedTuple):
    """The data version of the index, and whether it is the one that it had."""

    now: dg.DataVersion
    is_kept: bool


def version_of(
    instance: dg.DagsterInstance, dataset: Dataset, before: IndexState | None, now: IndexState
) -> Version:
    """Return the data version of a synced index: the last one while it ranks as it did.

    Args:
        before: what it held before the sync; None if there was none that was whole.
        now: what it holds.
    """
    event = instance.get_latest_materialization_event(dataset.key("corpus_index"))
    last = event.asset_materialization if event is not None else None
    version = (last.tags or {}).get(DATA_VERSION_TAG) if last is not None else None
    if version is None or (before is not None and before.bm25 != now.bm25):
        return Version(dg.DataVersion(now.fingerprint), False)
    return Version(dg.DataVersion(version), True)


def report_unsynced(
    instance: dg.DagsterInstance,
    dataset: Dataset,
    negatives: Mapping[str, Negatives],
    version: Version,
    index: IndexState,
) -> None:
    """Have Dagster show as unsynced those shards of `hard_negatives` that no longer stand, and no others.

    Looks only at shards that did not stand before, or do not now. One whose last run failed, or that a
    run is at work on, shows as such and is left alone, and so is one that another instance has made.

    Args:
        instance: where it is reported.
        dataset: whose shards they are.
        negatives: what the sync found, by shard.
        version: of the index.
        index: what it holds.
    """
    doubtful = [
        shard
        for shard, found in negatives.items()
        if not (version.is_kept and found.stand and found.stood)
    ]
    asset, index_tag = dataset.key("hard_negatives"), input_version_tag(dataset.key("corpus_index"))
    statuses = instance.get_status_by_partition(asset, doubtful, dataset.partitions) or {}
    made = {s for s in doubtful if statuses.get(s) is dg.AssetPartitionStatus.MATERIALIZED}
    if not made:
        return
    events = instance.event_log_storage.get_latest_storage_id_by_partition(
        asset, dg.DagsterEventType.ASSET_MATERIALIZATION, made
    )
    storage_ids = sorted(events.values())
    for first in range(0, len(storage_ids), EVENTS_AT_ONCE):
        some = storage_ids[first : first + EVENTS_AT_ONCE]
        ids = dg.AssetRecordsFilter(asset, storage_ids=some)
        for record in instance.fetch_materializations(ids, limit=len(some)).records:
            made_last = record.asset_materialization
            assert made_last is not None
            found = negatives[made_last.partition or ""]
            tags = made_last.tags or {}
            is_shown = tags.get(index_tag) == version.now.value
            if tags.get(DATA_VERSION_TAG) != found.content_hash or is_shown == found.stand:
                continue
            said = version.now.value if found.stand else f"before {index.fingerprint}"
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset,
                    description=made_last.description,
                    partition=made_last.partition,
                    metadata=made_last.metadata,
                    tags={**tags, index_tag: said},
                )
            )
