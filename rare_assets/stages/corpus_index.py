"""The index: its options, and the shards that it is to hold."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import dagster as dg
from pydantic import Field

from rare_assets.corpus.ids import left_out, shared_ids
from rare_assets.corpus.languages import recorded_choice
from rare_assets.retriever import Analyzer, ShardContent
from rare_assets.storage.tables import ParquetTables, TableDamaged

DAMAGED_NAMED = 3


class CorpusIndexConfig(dg.Config):
    """How the index ranks."""

    k1: float = Field(0.9, ge=0, description="BM25: how soon repeated terms stop counting more.")
    b: float = Field(0.4, ge=0, le=1, description="BM25: how much long documents are discounted.")
    analyzer: Literal["auto", Analyzer] = Field(
        "english",
        description="How texts and queries become terms: Elasticsearch's analyzer of this name. auto: the "
        "one that fits most of a sample of the documents, chosen once.",
    )

    def settled_analyzer(self, tables: ParquetTables, engine: str) -> str | None:
        """Return the analyzer's name; None where `auto` has yet to choose it for this engine."""
        return recorded_choice(tables, engine) if self.analyzer == "auto" else self.analyzer


class ToIndex(NamedTuple):
    """The shards that the index is to hold.

    Attributes:
        contents: shard -> content.
        missing: registered shards whose documents have not been made yet.
        colliding: those that are left out since one of their ids is another text's in the index.
    """

    contents: dict[str, ShardContent]
    missing: list[str]
    colliding: list[str]


def shards_to_index(
    tables: ParquetTables, registered: list[str], held: Mapping[str, str]
) -> ToIndex:
    """Return what the index is to hold, from the files' footers.

    Args:
        tables: the storage.
        registered: keys of all shards.
        held: hash of what the index holds now, by shard: of two shards that share an id, the one that
            it holds stays.

    Raises:
        TableDamaged: some are damaged; all of them are named.
        StorageError: it can't be told what is there.
    """
    contents, missing, damaged = {}, [], []
    for shard in sorted(registered):
        try:
            stored = tables.provenance("documents", shard)
        except TableDamaged as error:
            damaged.append(str(error))
            continue
        if stored is None:
            missing.append(shard)
        else:
            contents[shard] = ShardContent(stored.content_hash, stored.n_rows)
    if damaged:
        more = len(damaged) - DAMAGED_NAMED
        named = " ".join(damaged[:DAMAGED_NAMED]) + (f" And {more} more." if more > 0 else "")
        raise TableDamaged(named)
    shared = shared_ids(tables, list(contents))
    hashes = {shard: content.content_hash for shard, content in contents.items()}
    colliding = left_out(shared, hashes, held)
    for shard in colliding:
        contents.pop(shard, None)
    return ToIndex(contents, missing, sorted(colliding))
