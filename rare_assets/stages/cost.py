"""Sum what the stored answers of shards took."""

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import dagster as dg
import polars as pl

from rare_assets.resources.dataset import Dataset
from rare_assets.stages.order import AFTER_DOCUMENTS, ASKING
from rare_assets.storage.footers import UNREADABLE
from rare_assets.storage.tables import ParquetTables, TableDamaged, TableMissing
from rare_assets.teacher import Prices

EVENTS_AT_ONCE = 1000


class StoredCost(NamedTuple):
    """Tokens and USD that the answers in stored tables took; `cost_usd` is at online prices, whatever way they
    were asked, and None if a model's price is unknown."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def spent(
    tables: ParquetTables,
    shards: Sequence[str],
    prices: Prices,
    asked: Sequence[str] = ASKING,
) -> StoredCost:
    """Sum the tokens and cost of the stored rows and rejects of shards. An answer shared by several
    rows counts once for each row.

    Args:
        shards: their keys; a table that is missing or damaged counts nothing.
        prices: of tokens, by model.
        asked: the tables to count.

    Raises:
        StorageError: it can't be told what is stored.
    """
    by_model: dict[str, tuple[int, int]] = {}
    for table in asked:
        for model, prompt, completion in _sums_of_all(tables, table, shards):
            so_far = by_model.get(model, (0, 0))
            by_model[model] = (so_far[0] + prompt, so_far[1] + completion)
    costs = [
        prices.cost(model, prompt, completion)
        for model, (prompt, completion) in by_model.items()
        if prompt or completion
    ]
    known = [cost for cost in costs if cost is not None]
    return StoredCost(
        sum(prompt for prompt, _ in by_model.values()),
        sum(completion for _, completion in by_model.values()),
        sum(known) if len(known) == len(costs) else None,
    )


def spent_by_day(
    instance: dg.DagsterInstance, dataset: Dataset, tables: Sequence[str] = AFTER_DOCUMENTS
) -> Iterator[tuple[datetime.date, str, float]]:
    """Yield the day (UTC), the table and the USD of each materialization that paid for answers."""
    for table in tables:
        cursor: str | None = None
        while True:
            page = instance.fetch_materializations(dataset.key(table), EVENTS_AT_ONCE, cursor)
            for record in page.records:
                made = record.asset_materialization
                value = made and made.metadata.get("cost_usd")
                # A materialization that is reported anew, without a run, has paid nothing.
                if record.run_id and value is not None and value.value:
                    when = datetime.datetime.fromtimestamp(record.timestamp, datetime.UTC)
                    yield when.date(), table, float(value.value)  # type: ignore[arg-type]
            if not page.has_more:
                break
            cursor = page.cursor


def _sums_of_all(
    tables: ParquetTables, table: str, shards: Sequence[str]
) -> Iterator[tuple[str, int, int]]:
    """Return model, prompt and completion tokens of many shards, in one query where all can be
    read."""
    stored = {shard: tables.provenance_if_whole(table, shard) for shard in shards}
    paths = [tables.place(table, shard) for shard, found in stored.items() if found is not None]
    paths += [
        tables.place(f"{table}_rejects", shard)
        for shard, found in stored.items()
        if found is not None and found.n_rejects
    ]
    try:
        if paths:
            yield from _summed(tables.scan_files(paths)).collect().iter_rows()
    except (OSError, *UNREADABLE):
        for shard in shards:
            # The state of one that can't be read says so.
            with contextlib.suppress(TableDamaged, TableMissing, *UNREADABLE):
                yield from _sums(tables, table, shard)


def _summed(frame: pl.LazyFrame) -> pl.LazyFrame:
    return frame.group_by("model").agg(
        pl.col("prompt_tokens").sum(), pl.col("completion_tokens").sum()
    )


def _sums(tables: ParquetTables, table: str, shard: str) -> list[tuple[str, int, int]]:
    """Return model, prompt and completion tokens of a shard's rows and rejects."""
    stored = tables.provenance(table, shard)
    if stored is None:
        return []
    frames = [tables.scan(table, shard)]
    if stored.n_rejects:
        frames.append(tables.scan_rejects(table, shard))
    return [row for frame in frames for row in _summed(frame).collect().iter_rows()]
