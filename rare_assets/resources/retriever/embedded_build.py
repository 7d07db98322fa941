"""A new state of the embedded index, at a cost proportional to what changed.

Shards that did not change stay where they are, in a segment that is not touched; the others are
analyzed and put into a segment of their own. What the large segment has lost and what lies beside it
is held down to a share of it: beyond that all is merged into one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from rare_assets.resources.retriever.embedded_folder import (
    IndexFolder,
    Manifest,
    Segment,
    SegmentShard,
    new_name,
)
from rare_assets.resources.retriever.embedded_postings import frequencies_among, merge_postings
from rare_assets.resources.retriever.embedded_segment import (
    ANALYZERS,
    DOCUMENTS,
    Analyzed,
    Reusable,
    analyze_shard,
    analyzed_name,
    read_analyzed,
    read_documents,
    write_texts,
)
from rare_assets.resources.retriever.interface import Bm25, IndexConflict, ShardContent

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LISTED_DUPLICATES = 1_000
# Rows gone from the largest segment and rows outside it, beside its own: above, all becomes one.
_LOOSE = 0.25
# All rows of the index, `shard` by its place among the shards, `number` as readers number them.
_ROWS: dict[str, Any] = {
    "doc_id": pl.String,
    "text_hash": pl.String,
    "length": pl.UInt32,
    "shard": pl.Int32,
    "number": pl.Int32,
}
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
    """Write the state that holds these shards; it is not made the current one.

    Raises:
        IndexConflict: one doc_id has two texts, or a shard's rows are not what `held` says.
    """
    import numpy as np

    old = _old_segments(folder, before, held, bm25)
    served = {shard.key for part in old for shard, _ in part.runs}
    new = {key: content for key, content in held.items() if key not in served}
    reusable = _reusable(old if new else [])
    analyzed = _analyze(folder, new, reusable, read, bm25, progress)

    progress(f"building the index of {len(held)} shards")
    rewritten = _to_rewrite(old, sum(content.n_documents for content in new.values()))
    kept = [part for part in old if part not in rewritten]
    number_of_shard = {key: number for number, key in enumerate(held)}
    rows = [pl.DataFrame(schema=_ROWS)]
    first = 0
    for part in kept:
        for shard, start in part.runs:
            documents = part.documents[start : start + shard.n_rows]
            rows.append(_rows(documents, number_of_shard[shard.key], first + start))
        first += len(part.kept)
    written = _NewSegment(folder.segment(new_name()))
    for part in rewritten:
        for shard, start in part.runs:
            documents = part.documents[start : start + shard.n_rows]
            rows.append(_rows(documents, number_of_shard[shard.key], first + written.n_rows))
            written.add_run(part, shard, start, documents)
    for key, outcome in analyzed.items():
        rows.append(_rows(outcome.documents, number_of_shard[key], first + written.n_rows))
        written.add_analyzed(SegmentShard(key, *held[key]), outcome, old, reusable)

    all_rows = pl.concat(rows)
    order = _order(all_rows, list(held), read)
    duplicates = _duplicates(all_rows, list(held))
    segments = [part.segment for part in kept]
    if written.n_rows:
        segments.append(written.write(old))
    lengths = all_rows["length"].to_numpy()
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
    np.save(state / "order.npy", all_rows["number"].to_numpy()[order])
    terms, frequencies = _gone_frequencies(kept)
    np.save(state / "gone_terms.npy", terms)
    np.save(state / "gone_frequencies.npy", frequencies)
    duplicates.head(LISTED_DUPLICATES).write_ipc(state / "duplicates.arrow")
    manifest.write(state)
    return manifest


class _Old:
    """A segment of the state before: its rows, `runs` of which are part of the next state."""

    def __init__(self, segment: Segment, folder: Path) -> None:
        import numpy as np

        self.segment, self.folder = segment, folder
        self.documents = read_documents(folder)
        # Shards and their first rows.
        self.runs: list[tuple[SegmentShard, int]] = []
        self.kept = np.zeros(segment.n_rows, bool)
        # Rows in the segment that is being written; -1: not part of it.
        self.new_rows = np.full(segment.n_rows, -1, np.int32)

    @property
    def n_kept(self) -> int:
        return int(self.kept.sum())

    @property
    def n_gone(self) -> int:
        return len(self.kept) - self.n_kept


class _NewSegment:
    """A segment being put together from runs of older ones and analyzed shards."""

    def __init__(self, folder: Path) -> None:
        self.n_rows = 0
        self._folder = folder
        self._shards: list[SegmentShard] = []
        self._documents: list[pl.DataFrame] = []
        self._texts: list[tuple[Path, int, int]] = []
        self._postings: list[tuple[Path, Array]] = []

    def add_run(self, part: _Old, shard: SegmentShard, start: int, documents: pl.DataFrame) -> None:
        """Take a shard over from another segment, where its documents are from row `start` on."""
        import numpy as np

        numbers = np.arange(self.n_rows, self.n_rows + shard.n_rows)
        part.new_rows[start : start + shard.n_rows] = numbers
        self._add(shard, documents, part.folder / "texts", documents["start"][0])

    def add_analyzed(
        self, shard: SegmentShard, analyzed: Analyzed, old: Sequence[_Old], reusable: Reusable
    ) -> None:
        """Take an analyzed shard."""
        import numpy as np

        for folder, own in analyzed.postings():
            self._postings.append((folder, (self.n_rows + own).astype(np.int32)))
        (own,) = np.nonzero(analyzed.reused >= 0)
        reused = analyzed.reused[own]
        for number, part in enumerate(old):
            mine = reusable.segments[reused] == number
            part.new_rows[reusable.rows[reused[mine]]] = self.n_rows + own[mine]
        self._add(shard, analyzed.documents, analyzed.folder / "texts", 0)

    def _add(self, shard: SegmentShard, documents: pl.DataFrame, texts: Path, start: int) -> None:
        self._shards.append(shard)
        self._documents.append(documents.select(*DOCUMENTS))
        self._texts.append((texts, start, int(documents["n_bytes"].cast(pl.Int64).sum())))
        self.n_rows += shard.n_rows

    def write(self, old: Sequence[_Old]) -> Segment:
        """Write it, with the postings of the older segments' rows that have become part of it."""
        merge_postings(
            self._folder,
            [(part.folder, part.new_rows) for part in old if (part.new_rows >= 0).any()]
            + self._postings,
        )
        pl.concat(self._documents).write_ipc(self._folder / "documents.arrow")
        write_texts(self._folder, self._texts)
        return Segment(self._folder.name, self._shards)


def _old_segments(
    folder: IndexFolder, before: Manifest | None, held: Mapping[str, ShardContent], bm25: Bm25
) -> list[_Old]:
    """The state's segments, if their terms are of the same analyzer, and what of them stays."""
    if before is None or before.bm25.analyzer != bm25.analyzer:
        return []
    old, served = [], set()
    for segment in before.segments:
        part = _Old(segment, folder.segment(segment.name))
        start = 0
        for shard in segment.shards:
            content = ShardContent(shard.content_hash, shard.n_rows)
            if held.get(shard.key) == content and shard.key not in served:
                served.add(shard.key)
                part.runs.append((shard, start))
                part.kept[start : start + shard.n_rows] = True
            start += shard.n_rows
        old.append(part)
    return old


def _reusable(old: Sequence[_Old]) -> Reusable:
    """What of the older segments is not part of the next state."""
    gone = [
        part.documents.select("text_hash", "length")
        .with_row_index("row")
        .filter(~pl.Series(part.kept, dtype=pl.Boolean))
        .with_columns(segment=pl.lit(number, pl.Int32))
        for number, part in enumerate(old)
    ]
    schema = {"row": pl.UInt32, "text_hash": pl.String, "length": pl.UInt32, "segment": pl.Int32}
    return Reusable(pl.concat([pl.DataFrame(schema=schema), *(of.select(*schema) for of in gone)]))


def _analyze(
    folder: IndexFolder,
    shards: Mapping[str, ShardContent],
    reusable: Reusable,
    read: Callable[[str], pl.LazyFrame],
    bm25: Bm25,
    progress: Callable[[str], None],
) -> dict[str, Analyzed]:
    analyzed = {}
    for done, (key, content) in enumerate(shards.items(), 1):
        target = folder.analyzed(analyzed_name(bm25.analyzer, key, content))
        shard = read_analyzed(target, reusable)
        if shard is None:
            shard = analyze_shard(target, read(key), ANALYZERS[bm25.analyzer], reusable)
            progress(f"analyzed shard {key!r}, {done} of {len(shards)}")
        if len(shard.documents) != content.n_documents:
            shutil.rmtree(target)
            raise IndexConflict(
                f"shard {key!r} has {len(shard.documents)} rows, not {content.n_documents}: it "
                "changed while the index was syncing. Materialize corpus_index again"
            )
        analyzed[key] = shard
    return analyzed


def _to_rewrite(old: Sequence[_Old], n_new: int) -> list[_Old]:
    """Which segments become part of the new one: all but the largest, or that one, too."""
    if not old:
        return []
    largest = max(old, key=lambda part: len(part.kept))
    others = [part for part in old if part is not largest]
    loose = n_new + largest.n_gone + sum(len(part.kept) for part in others)
    if loose > _LOOSE * len(largest.kept):
        return list(old)
    return others if n_new else []


def _rows(documents: pl.DataFrame, shard: int, first: int) -> pl.DataFrame:
    return documents.select(
        "doc_id",
        "text_hash",
        "length",
        shard=pl.lit(shard, pl.Int32),
        number=pl.int_range(first, first + pl.len(), dtype=pl.Int32),
    )


def _order(rows: pl.DataFrame, shards: Sequence[str], read: Callable[[str], pl.LazyFrame]) -> Array:
    """Places of the rows in the order of their ids, one for each id.

    Raises:
        IndexConflict: an id stands for two texts.
    """
    order = rows["doc_id"].arg_sort()
    if rows["doc_id"].n_unique() == len(rows):
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
    """Texts that stand under several ids or in several shards, with both, in order."""
    if rows["text_hash"].n_unique() == len(rows):
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


def _gone_frequencies(kept: Sequence[_Old]) -> tuple[Array, Array]:
    """What the kept segments' statistics count and should not: terms, ascending, and how often."""
    import numpy as np

    gone = [frequencies_among(part.folder, ~part.kept) for part in kept if part.n_gone]
    terms, term_of = np.unique(
        np.concatenate([np.empty(0, np.uint64), *(of[0] for of in gone)]), return_inverse=True
    )
    frequencies = np.zeros(len(terms), np.int64)
    np.add.at(
        frequencies, term_of, np.concatenate([np.empty(0, np.int64), *(of[1] for of in gone)])
    )
    return terms, frequencies
