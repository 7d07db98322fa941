"""What the stored answers of shards took."""

from typing import NamedTuple

import polars as pl

from rare_assets.storage.tables import UNREADABLE, ParquetTables, TableDamaged, TableMissing
from rare_assets.teacher.pricing import Prices

ASKED_TABLES = ("questions", "reasoning")


class Spent(NamedTuple):
    """What the answers in stored tables took; `cost_usd` is None if a model's price is unknown."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def spent(tables: ParquetTables, shards: list[str], prices: Prices) -> Spent:
    """Tokens and cost of everything stored for the shards, rejects too. Answers that several rows
    share count for each of them."""
    by_model: dict[str, tuple[int, int]] = {}
    for table in ASKED_TABLES:
        for shard in shards:
            try:
                sums = _sums(tables, table, shard)
            except (TableDamaged, TableMissing, *UNREADABLE):
                # Its state says so.
                continue
            for model, prompt, completion in sums:
                so_far = by_model.get(model, (0, 0))
                by_model[model] = (so_far[0] + prompt, so_far[1] + completion)
    costs = [
        prices.cost(model, prompt, completion)
        for model, (prompt, completion) in by_model.items()
        if prompt or completion
    ]
    known = [cost for cost in costs if cost is not None]
    return Spent(
        sum(prompt for prompt, _ in by_model.values()),
        sum(completion for _, completion in by_model.values()),
        sum(known) if len(known) == len(costs) else None,
    )


def _sums(tables: ParquetTables, table: str, shard: str) -> list[tuple[str, int, int]]:
    """Model, prompt and completion tokens of a shard's rows and rejects."""
    stored = tables.provenance(table, shard)
    if stored is None:
        return []
    frames = [tables.scan(table, shard)]
    if stored.n_rejects:
        frames.append(tables.scan_rejects(table, shard))
    sums = [
        frame.group_by("model").agg(
            pl.col("prompt_tokens").sum(), pl.col("completion_tokens").sum()
        )
        for frame in frames
    ]
    return [row for each in sums for row in each.collect().iter_rows()]
