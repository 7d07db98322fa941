"""Find ids that stand for two texts in different shards, before anything is paid for.

What is known of each shard's ids lies in `<storage>/corpus_index/ids.parquet`, 16 bytes a document, so
that of stored documents each is read once, and of those only the two columns that matter. The file can
be made anew at any time.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl

from rare_assets.files.stored_bytes import StorageDamaged, StorageError
from rare_assets.storage.footers import UNREADABLE
from rare_assets.storage.tables import ParquetTables, TableMissing

if TYPE_CHECKING:
    from upath import UPath

IDS_NAMED = 5
SHARDS_NAMED = 3
# Rows that are compared at once, at some 50 bytes each.
COMPARED_ROWS = 5_000_000
# `version` is the stored file's, `ids` and `texts` are hashes of each document's id and text.
SCHEMA: dict[str, Any] = {
    "shard": pl.String,
    "version": pl.String,
    "content_hash": pl.String,
    "collides": pl.Boolean,
    "ids": pl.List(pl.UInt64),
    "texts": pl.List(pl.UInt64),
}

_log = logging.getLogger(__name__)


def why_colliding(tables: ParquetTables, shard: str, registered: Collection[str]) -> str | None:
    """Return what to tell a user of the ids that a shard shares with others; None if it shares none.

    A shard that was compared with all others as it is now is not compared again: what is stored
    later is, and both are refused then.

    Args:
        registered: keys of the shards that count.

    Raises:
        StorageError: it can't be told.
    """
    stored = tables.provenance("documents", shard)
    if stored is None:
        return None
    path = _path(tables)
    seen = tables.remembered(path, SCHEMA, ("shard", "content_hash", "collides"))
    as_now = seen.filter(shard=shard, content_hash=stored.content_hash, collides=False)
    if not as_now.is_empty():
        return None
    shared = shared_ids(tables, registered)
    n_ids = shared.filter(shard=shard)["id"].n_unique()
    if not n_ids:
        return None
    places = _places(tables, shard, shared)
    more = f" and {n_ids - len(places):,} more ids" if n_ids > len(places) else ""
    named = "; ".join(
        f"doc_id {doc_id!r} has two different texts, in {' and '.join(found)}"
        for doc_id, found in places.items()
    )
    return (
        f"{named}{more}. Give each text an id of its own, or remove one, and materialize documents "
        "again. Shards that share no id go on."
    )


def shared_ids(tables: ParquetTables, registered: Collection[str]) -> pl.DataFrame:
    """Return the ids that stand for different texts in several shards.

    Reads the stored documents that have changed since the last call, one listing says which.

    Returns:
        `shard`, and hashes of `id` and `text`: a row for each place of such an id.

    Raises:
        StorageError: the storage can't be read.
    """
    path = _path(tables)
    before = tables.remembered(path, SCHEMA)
    stored = {unquote(name): at for name, at in tables.stored_versions("documents").items()}
    wanted = pl.DataFrame(
        [(shard, stored[shard]) for shard in sorted(set(registered) & set(stored))],
        schema={"shard": pl.String, "version": pl.String},
        orient="row",
    )
    kept = before.join(wanted, on=["shard", "version"], how="semi")
    changed = wanted.join(kept, on=["shard", "version"], how="anti")
    read = [_read(tables, shard, version) for shard, version in changed.iter_rows()]
    new = pl.DataFrame([row for row in read if row], schema=SCHEMA, orient="row")
    now = pl.concat([kept, new]).sort("shard")
    shared = _shared(now)
    collides = pl.col("shard").is_in(shared["shard"].unique().implode())
    now = now.with_columns(collides=collides)
    if not now.equals(before):
        try:
            tables.write_file(now, path)
        except StorageError as error:
            _log.warning("The ids of the documents will be read again: %s", error)
    return shared


def left_out(
    shared: pl.DataFrame, contents: Mapping[str, str], held: Mapping[str, str]
) -> set[str]:
    """Return the shards that an index leaves out, so that no id stands for two texts in it: those that came
    later than the one that it holds, else than the first by key.

    Args:
        shared: what `shared_ids` returned.
        contents: hash of what is stored, by shard.
        held: hash of what the index holds, by shard.
    """
    texts: dict[int, int] = {}
    out = set()
    places = {shard: rows for (shard,), rows in shared.partition_by("shard", as_dict=True).items()}
    for shard in sorted(places, key=lambda key: (held.get(key) != contents.get(key), key)):
        pairs = list(places[shard].select("id", "text").iter_rows())
        if any(texts.get(doc_id, text) != text for doc_id, text in pairs):
            out.add(shard)
        else:
            texts.update(pairs)
    return out


def ids_of(tables: ParquetTables, shards: Mapping[str, str]) -> pl.Series:
    """Return the ids of shards' documents, `hashed`, of what was read of them before; those of a shard that was
    stored anew since are left out.

    Args:
        shards: shard -> content hash of its documents.

    Raises:
        StorageError: it can't be read.
    """
    wanted = pl.DataFrame(
        list(shards.items()),
        schema={"shard": pl.String, "content_hash": pl.String},
        orient="row",
    )
    known = tables.remembered(_path(tables), SCHEMA, ("shard", "content_hash", "ids"))
    ids = known.join(wanted, on=["shard", "content_hash"], how="semi")["ids"]
    return ids.explode().drop_nulls().unique()


def hashed(ids: pl.Series) -> pl.Series:
    """Return 64 bits of each id, as they are kept: `u64`, the same with every version of Polars."""
    return pl.Series(ids.name, [_hash(doc_id) for doc_id in ids], pl.UInt64)


def _path(tables: ParquetTables) -> UPath:
    return tables.root / "corpus_index" / "ids.parquet"


def _read(tables: ParquetTables, shard: str, version: str) -> tuple[object, ...] | None:
    """Return a shard's row of the file; None if its documents are damaged, as its own steps say."""
    stored = tables.provenance_if_whole("documents", shard)
    if stored is None:
        return None
    try:
        rows = tables.scan("documents", shard).select("doc_id", "text_hash").collect()
    except (TableMissing, StorageDamaged, *UNREADABLE):
        return None
    return (
        *(shard, version, stored.content_hash, False),
        hashed(rows["doc_id"]).to_list(),
        [_hash(text) for text in rows["text_hash"]],
    )


def _hash(value: str) -> int:
    """Return 64 bits of a string, the same with every version of everything."""
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest())


def _shared(known: pl.DataFrame) -> pl.DataFrame:
    rows = (
        known.lazy().select("shard", id="ids", text="texts").explode("id", "text").drop_nulls("id")
    )
    parts = max(1, -(-int(known["ids"].list.len().sum()) // COMPARED_ROWS))
    found = []
    for part in range(parts):
        some = rows.filter(pl.col("id") % parts == part).collect()
        several = some.group_by("id").agg(pl.col("text").n_unique()).filter(pl.col("text") > 1)
        found.append(some.join(several, on="id", how="semi"))
    return pl.concat(found)


def _places(tables: ParquetTables, shard: str, shared: pl.DataFrame) -> dict[str, list[str]]:
    """Return the first few shared ids of a shard, each with the places of its texts, this shard's first."""
    mine = tables.scan("documents", shard).select("doc_id", "text_hash", "source").collect()
    ids = set(shared.filter(shard=shard)["id"])
    few = list(islice((row for row in mine.iter_rows() if _hash(row[0]) in ids), IDS_NAMED))
    named: dict[str, list[str]] = {}
    for doc_id, text, source in few:
        there = shared.filter(pl.col("id") == _hash(doc_id), pl.col("text") != _hash(text))
        others = there["shard"].unique().sort()
        places = [
            f"shard {other!r}{_source(tables, other, doc_id)}"
            for other in others.head(SHARDS_NAMED)
        ]
        if len(others) > SHARDS_NAMED:
            places.append(f"{len(others) - SHARDS_NAMED:,} more shards")
        named[doc_id] = [f"shard {shard!r} ({source})", *places]
    return named


def _source(tables: ParquetTables, shard: str, doc_id: str) -> str:
    try:
        rows = tables.scan("documents", shard).filter(pl.col("doc_id") == doc_id)
        found = rows.select("source").collect()["source"].to_list()
    except (TableMissing, *UNREADABLE):
        return ""
    return f" ({', '.join(found)})" if found else ""
