"""The state of each shard in each stage, rejects, tokens and cost so far, from the stored tables alone."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from rare_assets.command.plan import Planner
from rare_assets.corpus.source import Shard
from rare_assets.operators.doc2query import TOO_SHORT
from rare_assets.retriever.interface import IndexState
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import UNREADABLE, ParquetTables, TableDamaged, TableMissing
from rare_assets.teacher.pricing import Prices
from rare_assets.text.shown_url import shown

REASONS_TOLD = 3
ASKED_TABLES = ("questions", "reasoning")


class StageState(NamedTuple):
    """One table of one shard. `state` is `current`, `missing`, `damaged`, or what has changed since."""

    state: str
    rows: int
    rejects: int


class Spent(NamedTuple):
    """What the answers in stored tables took; `cost_usd` is None if a model's price is unknown."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def shard_states(
    planner: Planner, shards: list[Shard], index: IndexState | None
) -> dict[str, dict[str, StageState]]:
    """For each shard key, the state of each table. Without an index, only documents and questions
    can be current."""
    return {shard.key: _stages(planner, shard, index) for shard in shards}


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


def _stages(planner: Planner, shard: Shard, index: IndexState | None) -> dict[str, StageState]:
    stale = {}
    documents = planner.documents(shard)
    if documents is not None:
        stale["documents"] = documents.why
    elif index is not None:
        stale = {each.stage: each.why for each in planner.asked(shard.key, index)}
    states = {}
    for table in TABLES:
        try:
            stored = planner.tables.provenance(table, shard.key)
        except TableDamaged:
            states[table] = StageState("damaged", 0, 0)
            continue
        if stored is None:
            states[table] = StageState("missing", 0, 0)
            continue
        why = stale.get(table)
        if why is None and "documents" in stale and table != "documents":
            why = "documents"
        state = "current" if why is None else f"changed: {why}"
        states[table] = StageState(state, stored.n_rows, stored.n_rejects)
    return states


def made_nothing(tables: ParquetTables, shard: str) -> str | None:
    """Return what to tell of a shard of which every row was rejected at one stage; None if rows were
    made, or if there was nothing to make them from: an empty file, or documents that `min_words` leaves
    out."""
    for table in TABLES:
        stored = tables.provenance(table, shard)
        if stored is None or (not stored.n_rows and not stored.n_rejects):
            return None
        if not stored.n_rows:
            rejects = tables.scan_rejects(table, shard).collect()
            if (rejects["reason"] == TOO_SHORT).all():
                return None
            reasons = rejects["reason"].value_counts(sort=True).head(REASONS_TOLD)
            counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.iter_rows())
            return (
                f"{table} has no row: all of its {stored.n_rejects:,} rows are rejects ({counts}). They "
                f"are in {shown(tables.rejects_path(table, shard))}, each with its reason."
            )
    return None
