"""Build a new state of the embedded index, at a cost proportional to what changed.

Documents that did not change stay in their segment, which is not written again; the others are analyzed and
put into a new segment. Once the rows that are gone from the largest segment, and those outside of it, are
more than a quarter of its rows, all segments are merged into one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from rare_assets.retriever.analyzers import ANALYZERS
from rare_assets.retriever.embedded.folder import IndexFolder, new_name
from rare_assets.retriever.embedded.manifest import Manifest, Segment
from rare_assets.retriever.embedded.postings import frequencies_among, merge_postings
from rare_assets.retriever.embedded.segment import (
    DOCUMENTS,
    Analyzed,
    ReusableRows,
    analyze_shard,
    analyzed_name,
    read_analyzed,
    read_documents,
    write_array,
    write_arrow,
    write_texts,
)
from rare_assets.retriever.interface import Bm25, IndexConflict, ShardContent

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LISTED_DUPLICATES = 1_000
# Rows gone from the largest segment and rows outside it, beside its own: above, all becomes one.
_LOOSE = 0.25
_DUPLICATES: dict[str, Any] = {
    "text_hash": pl.String,
    "doc_ids": pl.List(pl.String),
    "shards": pl.List(pl.String),
}


def build(
    folder: IndexFolder,
    before: Manifest | None,
    held: Mapping[str, ShardContent],
    read: Callable[[str], pl.LazyFrame],
    bm25: Bm25,
    progress: Callable[[str], None],
) -> Manifest:
    """Write a new state of the index, which is not made the current one.

    Args:
        folder: of the index; its lock is held.
        before: the current state; None if there is none of use.
        held: every shard with documents that the state is to hold.
        read, progress: as of `Retriever.sync`; shards that are new or changed are read.
        bm25: how the state ranks.

    Raises:
        IndexConflict: one doc_id has two texts, or a shard's rows are not what `held` says.
    """
    import numpy as np

    old = _old_segments(folder, before, held, bm25)
    known = before.shards if before and old else {}
    new = [key for key in held if known.get(key) != held[key]]
    analyzed = _analyze(folder, held, new, old, read, bm25, progress)

    progress(f"building the index of {len(held)} shards")
    kept, written = _put_together(folder, old, analyzed)
    owners = np.concatenate(
        [np.empty(0, np.int32), *(part.owners for part in kept), *written.owners]
    )
    (present,) = np.nonzero(owners >= 0)
    rows = _rows(kept, written, owners, present)
    order = _order(rows, list(held), read)
    duplicates = _duplicates(rows, list(held))
    segments = [part.segment for part in kept]
    if written.n_rows:
        segments.append(written.write())
    lengths = rows["length"].to_numpy()
    manifest = Manifest(
        name=new_name(),
        bm25=bm25,
        shards=dict(held),
        n_documents=len(order),
        n_duplicates=len(duplicates),
        # Lucene counts only documents that have a term.
        n_counted=int(np.count_nonzero(lengths)),
        n_terms=int(lengths.sum(dtype=np.int64)),
        segments=segments,
    )
    state = folder.state(manifest.name)
    state.mkdir(parents=True)
    write_array(owners, state / "owners.npy")
    write_array(present[order].astype(np.int32), state / "order.npy")
    terms, frequencies = _gone_frequencies(kept)
    write_array(terms, state / "gone_terms.npy")
    write_array(frequencies, state / "gone_frequencies.npy")
    write_arrow(duplicates.head(LISTED_DUPLICATES), state / "duplicates.arrow")
    return folder.write(manifest, before)


def _put_together(
    folder: IndexFolder, old: Sequence[_Old], analyzed: Mapping[int, Analyzed]
) -> tuple[list[_Old], _NewSegment]:
    """Return the segments that stay as they are, and a new one of all other rows."""
    rewritten = _to_rewrite(old, sum(len(shard.new) for shard in analyzed.values()))
    written = _NewSegment(folder.segment(new_name()))
    for part in rewritten:
        written.add_segment(part)
    for owner, shard in analyzed.items():
        written.add_shard(owner, shard)
    return [part for part in old if part not in rewritten], written


def _rows(
    kept: Sequence[_Old], written: _NewSegment, owners: Array, present: Array
) -> pl.DataFrame:
    """Return the rows that are not gone: `doc_id`, `text_hash`, `length`, and the place of their `shard`."""
    documents = pl.concat(
        [
            pl.DataFrame(schema=DOCUMENTS),
            *(part.documents.select(*DOCUMENTS) for part in kept),
            *written.documents,
        ]
    )
    rows = documents.select("doc_id", "text_hash", "length", shard=owners)
    return rows[present] if len(present) < len(rows) else rows


class _Old:
    """A segment of the state before; its rows with an owner go into the new state."""

    def __init__(self, segment: Segment, folder: Path, owners: Array) -> None:
        self.segment, self.folder, self.owners = segment, folder, owners
        self.documents = read_documents(folder)

    @property
    def n_gone(self) -> int:
        """Number of rows without an owner."""
        return int((self.owners < 0).sum())


class _NewSegment:
    """A new segment, put together from older ones and from analyzed shards."""

    def __init__(self, folder: Path) -> None:
        self.n_rows = 0
        self.owners: list[Array] = []
        self.documents: list[pl.DataFrame] = []
        self._folder = folder
        self._texts: list[tuple[Path, list[tuple[int, int]]]] = []
        self._postings: list[tuple[Path, Array]] = []

    def add_segment(self, part: _Old) -> None:
        """Take over the rows of an older segment that are not gone."""
        import numpy as np

        stays = part.owners >= 0
        new_rows = np.where(stays, self.n_rows + np.cumsum(stays) - 1, -1).astype(np.int32)
        self._postings.append((part.folder, new_rows))
        # Texts are copied in runs of rows that stay.
        bounds = np.flatnonzero(np.diff(stays, prepend=False, append=False))
        sizes = part.documents["n_bytes"].to_numpy()
        starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        runs = [(start, end) for start, end in starts[bounds].reshape(-1, 2).tolist()]
        self._add(part.owners[stays], part.documents.filter(stays), part.folder, runs)

    def add_shard(self, owner: int, shard: Analyzed) -> None:
        """Take in the new documents of an analyzed shard; `owner` is its place among the shards."""
        import numpy as np

        for folder, own in shard.postings():
            self._postings.append((folder, (self.n_rows + own).astype(np.int32)))
        new = shard.new
        run = (0, int(new["n_bytes"].cast(pl.Int64).sum()))
        self._add(np.full(len(new), owner, np.int32), new, shard.folder, [run])

    def _add(
        self, owners: Array, documents: pl.DataFrame, folder: Path, runs: list[tuple[int, int]]
    ) -> None:
        self.owners.append(owners)
        self.documents.append(documents.select(*DOCUMENTS))
        self._texts.append((folder / "texts", runs))
        self.n_rows += len(documents)

    def write(self) -> Segment:
        """Write the segment's files."""
        merge_postings(self._folder, self._postings)
        write_arrow(pl.concat(self.documents), self._folder / "documents.arrow")
        write_texts(self._folder, self._texts)
        return Segment(self._folder.name, self.n_rows)


def _old_segments(
    folder: IndexFolder, before: Manifest | None, held: Mapping[str, ShardContent], bm25: Bm25
) -> list[_Old]:
    """Return the segments of the state before; none if another analyzer made their terms."""
    import numpy as np

    if before is None or before.bm25.analyzer != bm25.analyzer:
        return []
    number = {key: number for number, key in enumerate(held)}
    renumbered = [
        number[key] if held.get(key) == content else -1 for key, content in before.shards.items()
    ]
    # The last one is for the rows that are gone already.
    owners = np.array([*renumbered, -1], np.int32)[
        np.load(folder.state(before.name) / "owners.npy")
    ]
    ends = np.cumsum([segment.n_rows for segment in before.segments])
    return [
        _Old(segment, folder.segment(segment.name), of)
        for segment, of in zip(before.segments, np.split(owners, ends[:-1]), strict=True)
    ]


def _analyze(
    folder: IndexFolder,
    held: Mapping[str, ShardContent],
    new: Sequence[str],
    old: Sequence[_Old],
    read: Callable[[str], pl.LazyFrame],
    bm25: Bm25,
    progress: Callable[[str], None],
) -> dict[int, Analyzed]:
    """Return the new and changed shards by their place among all.

    Rows of older segments that hold the same documents become theirs.
    """
    analyzed = {}
    number = {key: number for number, key in enumerate(held)}
    relevant = old if new else []
    reusable = ReusableRows(
        [part.documents for part in relevant], [part.owners for part in relevant]
    )
    for done, key in enumerate(new, 1):
        target = folder.analyzed(analyzed_name(bm25.analyzer, key, held[key]))
        shard = read_analyzed(target, reusable, number[key])
        if shard is None:
            analyze = ANALYZERS[bm25.analyzer]
            shard = analyze_shard(target, read(key), analyze, reusable, number[key])
            progress(f"analyzed shard {key!r}, {done} of {len(new)}")
        if len(shard.documents) != held[key].n_documents:
            shutil.rmtree(target)
            raise IndexConflict(
                f"shard {key!r} has {len(shard.documents)} rows, not {held[key].n_documents}: it "
                "changed while the index was syncing. Materialize corpus_index again"
            )
        analyzed[number[key]] = shard
    return analyzed


def _to_rewrite(old: Sequence[_Old], n_new: int) -> list[_Old]:
    """Return the segments that become part of the new one: all but the largest, all, or none."""
    if not old:
        return []
    largest = max(old, key=lambda part: part.segment.n_rows)
    others = [part for part in old if part is not largest]
    loose = n_new + largest.n_gone + sum(part.segment.n_rows for part in others)
    if loose > _LOOSE * largest.segment.n_rows:
        return list(old)
    return others if n_new else []


def _order(rows: pl.DataFrame, shards: Sequence[str], read: Callable[[str], pl.LazyFrame]) -> Array:
    """Return the places of the rows in the order of their ids, one for each id.

    Raises:
        IndexConflict: an id stands for two texts.
    """
    order = rows["doc_id"].arg_sort()
    if _differ(rows["doc_id"]):
        return order.to_numpy()
    same_id = rows[order].with_columns(place=order)
    conflict = same_id.filter(pl.col("text_hash").n_unique().over("doc_id") > 1)
    if len(conflict):
        doc_id = conflict["doc_id"][0]
        places = []
        for key in sorted(shards[of] for of in conflict.filter(doc_id=doc_id)["shard"].unique()):
            documents = read(key).filter(pl.col("doc_id") == doc_id).collect()
            sources = documents["source"].to_list() if "source" in documents.columns else []
            places.append(f"shard {key!r}" + "".join(f" ({source})" for source in sources))
        raise IndexConflict(
            f"doc_id {doc_id!r} has two texts, in {' and '.join(places)}: give each text an id of "
            "its own, or remove one. Nothing was indexed"
        )
    return same_id.unique("doc_id", keep="first", maintain_order=True)["place"].to_numpy()


def _duplicates(rows: pl.DataFrame, shards: Sequence[str]) -> pl.DataFrame:
    """Return the texts that stand under several ids or in several shards: a row each, sorted by hash."""
    if _differ(rows["text_hash"]):
        return pl.DataFrame(schema=_DUPLICATES)
    duplicated = rows.filter(pl.col("text_hash").is_duplicated())
    named = pl.Series("shard", shards, dtype=pl.String).gather(duplicated["shard"])
    return (
        duplicated.with_columns(named)
        .group_by("text_hash")
        .agg(
            doc_ids=pl.col("doc_id").unique().sort(),
            shards=pl.col("shard").unique().sort(),
        )
        .filter((pl.col("doc_ids").list.len() > 1) | (pl.col("shards").list.len() > 1))
        .sort("text_hash")
    )


def _differ(values: pl.Series) -> bool:
    """Return whether all values have different hashes."""
    # Hashes take a quarter of the memory that the values would.
    return values.hash().n_unique() == len(values)


def _gone_frequencies(kept: Sequence[_Old]) -> tuple[Array, Array]:
    """Return the terms (ascending) that rows gone from the kept segments have, and in how many of them."""
    import numpy as np

    gone = [frequencies_among(part.folder, part.owners < 0) for part in kept if part.n_gone]
    terms, term_of = np.unique(
        np.concatenate([np.empty(0, np.uint64), *(of[0] for of in gone)]), return_inverse=True
    )
    frequencies = np.zeros(len(terms), np.int64)
    np.add.at(
        frequencies, term_of, np.concatenate([np.empty(0, np.int64), *(of[1] for of in gone)])
    )
    return terms, frequencies
