"""The state of each shard in each stage, rejects, tokens and cost so far, from the stored tables alone."""

from __future__ import annotations

from typing import NamedTuple

from rare_assets.command.plan import Planner
from rare_assets.corpus.shards import Shard
from rare_assets.operators.doc2query import TOO_SHORT
from rare_assets.retriever import IndexState
from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables, TableDamaged
from rare_assets.text.shown_url import shown

REASONS_TOLD = 3


class StageState(NamedTuple):
    """One table of one shard. `state` is `current`, `missing`, `damaged`, or what has changed since."""

    state: str
    rows: int
    rejects: int


def shard_states(
    planner: Planner, shards: list[Shard], index: IndexState | None
) -> dict[str, dict[str, StageState]]:
    """Return the state of each table for each shard key. Without an index, only documents and
    questions can be current."""
    return {shard.key: _stages(planner, shard, index) for shard in shards}


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
