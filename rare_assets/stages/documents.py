"""Documents: what a shard's are made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rare_assets.operators.read_documents import READER_VERSION
from rare_assets.stages.provenance import what_differs

if TYPE_CHECKING:
    from rare_assets.corpus.shards import Shard
    from rare_assets.storage.tables import ParquetTables

NAME = "documents"
# Why the file of a table could not be read when the table was last made.
_UNREAD = "unread"


def made_from(shard: Shard) -> dict[str, str]:
    """Name what `documents[shard]` is made from: the file as it is now, and the way rows are read."""
    inputs = {
        "file": shard.file,
        "rows": f"{shard.first_row}-{shard.first_row + shard.n_rows - 1}",
        "version": shard.version,
        "reader": READER_VERSION,
    }
    return inputs | ({"reading": shard.reading} if shard.reading else {})


def made_without_file(inputs: Mapping[str, str], reason: str) -> dict[str, str]:
    """Name what a table is made from that stands for a file that can't be read.

    It is never current, so that the next run tries the file again.

    Args:
        inputs: what was read before was made from; empty if nothing was.
        reason: why the file can't be read.
    """
    return {**inputs, _UNREAD: reason}


def was_read(inputs: Mapping[str, str]) -> bool:
    """Return True if a table holds what a file held, be it now or earlier."""
    return "version" in inputs


def is_current(tables: ParquetTables, shard: Shard) -> bool:
    """Return True if a shard's documents are those of its file as it is now."""
    stored = tables.provenance_if_whole(NAME, shard.key)
    return stored is not None and not what_differs(stored.made_from, made_from(shard))
