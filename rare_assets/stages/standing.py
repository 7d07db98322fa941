"""Find which shards' stored negatives stand as they are in an index that has changed since they were mined.

A sync finds it out and keeps it in `<storage>/corpus_index/standing.parquet`, so that planning reads no
row of a table and asks no index for a text. Without the file none of them is taken to stand: they are
mined again, which keeps what holds and is free.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from rare_assets.corpus.ids import hashed, ids_of
from rare_assets.operators.bm25_hard_neg import no_longer_held, one_a_row, with_all_negatives
from rare_assets.stages.hard_negatives import DEFAULT_GROWTH
from rare_assets.stages.provenance import GROWTH, MINED_FROM
from rare_assets.storage.footers import Provenance
from rare_assets.storage.tables import ParquetTables, TableDamaged, TableMissing

if TYPE_CHECKING:
    from upath import UPath

    from rare_assets.retriever import IndexState, Retriever

# `negatives` is the content hash of the shard's table, `index` the state that they stand in.
SCHEMA = {"shard": pl.String, "negatives": pl.String, "index": pl.String}


class Negatives(NamedTuple):
    """A shard's stored negatives as a sync found them.

    Attributes:
        content_hash: of their table.
        stand: nothing about them is outdated by the index as it is now.
        stood: nor was it by the index before the sync.
    """

    content_hash: str
    stand: bool
    stood: bool


class _Corpus(NamedTuple):
    """The corpus before and after a sync.

    Attributes:
        before: the index before it; None if there was none that was whole.
        now: the index after it.
        engine: what reads its texts.
        unchanged: ids, hashed, of documents that the sync left as they were; None if that is all of
            `before`: nothing was changed or removed.
    """

    before: IndexState | None
    now: IndexState
    engine: Retriever
    unchanged: pl.Series | None


def is_within_growth(made_from: Mapping[str, str], index: IndexState, most: float) -> bool:
    """Return True if the corpus has about the size that a shard's negatives were mined from.

    Args:
        made_from: of the negatives.
        index: as it is now.
        most: share that the corpus may have grown or shrunk by; 0 allows nothing.
    """
    mined_from = int(made_from[MINED_FROM])
    return most > 0 and abs(index.n_documents - mined_from) <= most * mined_from


def standing(tables: ParquetTables, index: IndexState) -> dict[str, str]:
    """Return what the last sync noted: shard -> content hash of the negatives that stand in `index`.

    How much the corpus has grown since they were mined is not looked at: see `is_within_growth`.

    Raises:
        StorageError: it can't be read.
    """
    noted = tables.remembered(_path(tables), SCHEMA).filter(index=index.fingerprint)
    return dict(noted.select("shard", "negatives").iter_rows())


def find_standing(
    tables: ParquetTables,
    shards: Iterable[str],
    engine: Retriever,
    before: IndexState | None,
    now: IndexState,
) -> dict[str, Negatives]:
    """Find out of every stored shard of negatives whether they stand, and note it for planning.

    They stand if mining them again would keep every row as it is: each has all its negatives, and those
    are in the index with the same texts. Rows are read only of shards that were not found to stand
    before, or where documents were changed or removed; texts only of negatives that may be among those.

    Args:
        shards: keys of those to look at.
        engine: the index, synced.
        before: what it held before; None if there was none that was whole.
        now: what it holds.

    Raises:
        StorageError, ElasticsearchError: it can't be told.
    """
    noted = standing(tables, before) if before is not None else {}
    noted_now = standing(tables, now)
    corpus = _Corpus(before, now, engine, _unchanged(tables, before, now))
    found, stand = {}, {}
    for shard in sorted(shards):
        stored = tables.provenance_if_whole("hard_negatives", shard)
        if stored is None:
            continue
        as_noted = noted.get(shard) == stored.content_hash
        if _stand(tables, shard, stored, corpus, as_noted):
            stand[shard] = stored.content_hash
        found[shard] = Negatives(
            stored.content_hash,
            _are_current(stored, now, shard in stand),
            before is not None and _are_current(stored, before, as_noted),
        )
    if stand != noted_now:
        rows = [(shard, content_hash, now.fingerprint) for shard, content_hash in stand.items()]
        tables.write_file(pl.DataFrame(rows, schema=SCHEMA, orient="row"), _path(tables))
    return found


def _path(tables: ParquetTables) -> UPath:
    return tables.root / "corpus_index" / "standing.parquet"


def _are_current(stored: Provenance, index: IndexState, stand: bool) -> bool:
    """Return True if an index does not outdate stored negatives, by the share they were mined
    with."""
    if stored.made_from.get("index") == index.fingerprint:
        return True
    most = float(stored.made_from.get(GROWTH, DEFAULT_GROWTH))
    return stand and is_within_growth(stored.made_from, index, most)


def _unchanged(
    tables: ParquetTables, before: IndexState | None, now: IndexState
) -> pl.Series | None:
    held = before.shards if before is not None else {}
    unchanged = {shard: held[shard] for shard in held if now.shards.get(shard) == held[shard]}
    if before is not None and len(unchanged) == len(held):
        return None
    return ids_of(tables, unchanged)


def _stand(
    tables: ParquetTables, shard: str, stored: Provenance, corpus: _Corpus, noted: bool
) -> bool:
    """Return True if mining a shard again would keep every row, unless the corpus has grown too
    much.

    Args:
        noted: it was found to before.
    """
    if stored.n_rejects or stored.made_from.get("bm25") != corpus.now.bm25.fingerprint:
        return False
    if shard not in corpus.now.shards:
        return False
    if noted and corpus.unchanged is None:
        return True
    try:
        rows = tables.load("hard_negatives", shard).collect()
    except (TableDamaged, TableMissing):
        return False
    num_neg = json.loads(stored.made_from["options"])["num_neg"]
    if with_all_negatives(rows, num_neg).height < rows.height:
        return False
    negatives = one_a_row(rows)
    before = corpus.before
    if noted or (before is not None and stored.made_from.get("index") == before.fingerprint):
        # Their texts were in the index before, and still are where nothing was changed.
        if corpus.unchanged is None:
            return True
        ids = hashed(negatives["doc_id"])
        negatives = negatives.filter(~ids.is_in(corpus.unchanged.implode()))
    return no_longer_held(negatives, corpus.engine).is_empty()
