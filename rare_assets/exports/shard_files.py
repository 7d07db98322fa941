"""Write the files of one shard in one format: filtered, split, bounded in size, with a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from rare_assets.exports.examples import filters
from rare_assets.exports.folder import FrameFile, OutFolder
from rare_assets.exports.format import Format
from rare_assets.exports.options import SPLITS, ExportOptions
from rare_assets.storage.parquet_files import EXTENSION
from rare_assets.storage.tables import file_name

COPIES = "data/"
SIDECAR = f".ids{EXTENSION}"


class Written(NamedTuple):
    """The manifest of a shard's files in one format: which there are, and what they were made from.

    `counts` has `[step, rows before, rows after]` in order; `splits` for each split with rows its
    `rows`, `bytes` and `files`; `negatives` how many rows have how many; `words` how many rows have
    up to so many words, by text.
    """

    format: str
    shard: str
    made_from: Mapping[str, str]
    counts: list[list[Any]]
    splits: dict[str, dict[str, Any]]
    negatives: dict[str, int]
    words: dict[str, dict[str, int]]
    held_out_negatives: int
    shows_held_out: int

    @property
    def rows(self) -> int:
        """Rows of all splits."""
        return sum(split["rows"] for split in self.splits.values())


class ShardFiles:
    """The files of one shard in one format, filled batch by batch."""

    def __init__(self, folder: OutFolder, each: Format, shard: str, options: ExportOptions) -> None:
        self.format = each
        self._folder = folder
        self._shard = shard
        self._options = options
        self._filters = filters(options, each.reads)
        self._open: dict[str, _Files] = {}
        self._counts: dict[str, list[int]] = {}
        self._negatives: Counter[str] = Counter()
        self._words: dict[str, Counter[str]] = {}
        self._held_out_negatives = 0
        self._shows_held_out = 0

    def add(self, batch: pl.DataFrame, excluded: int) -> None:
        """Filter a batch of examples, count what each filter leaves, and write the rows."""
        self._count("not in the evaluation texts", batch.height + excluded, batch.height)
        for each in self._filters:
            batch = self._keep(batch, each.name, each.keeps)
        if self.format.reads == "questions":
            first = batch.unique("question_id", keep="first", maintain_order=True)
            self._count("one row a question", batch.height, first.height)
            batch = first
        for reason, fits in self.format.fits.items():
            batch = self._keep(batch, f"without: {reason}", fits(self._options))
        self._measure(batch)
        for split in SPLITS:
            rows = batch.filter(pl.col("split") == split)
            if rows.height:
                self._files(split).write(rows)

    def close(self) -> None:
        """Put the files in their places."""
        for each in self._open.values():
            each.close()

    def discard(self) -> None:
        """Leave what stood there before."""
        for each in self._open.values():
            each.discard()

    def written(self, made_from: Mapping[str, str]) -> Written:
        """Return the manifest of what was written."""
        return Written(
            self.format.name,
            self._shard,
            made_from,
            [[step, *counts] for step, counts in self._counts.items()],
            {split: each.summary() for split, each in self._open.items()},
            dict(sorted(self._negatives.items())),
            {name: dict(counts) for name, counts in self._words.items()},
            self._held_out_negatives,
            self._shows_held_out,
        )

    def _files(self, split: str) -> _Files:
        if split not in self._open:
            self._open[split] = _Files(self._folder, self.format, self._shard, split, self._options)
        return self._open[split]

    def _keep(self, batch: pl.DataFrame, step: str, keeps: pl.Expr) -> pl.DataFrame:
        left = batch.filter(keeps.fill_null(False))
        self._count(step, batch.height, left.height)
        return left

    def _count(self, step: str, before: int, after: int) -> None:
        counts = self._counts.setdefault(step, [0, 0])
        counts[0] += before
        counts[1] += after

    def _measure(self, batch: pl.DataFrame) -> None:
        n = batch["negatives"].list.len().cast(pl.String)
        self._negatives.update(dict(n.value_counts().iter_rows()))
        self._held_out_negatives += int(batch["negatives_held_out"].sum() or 0)
        self._shows_held_out += int(batch["shows_held_out"].sum())
        texts = ["question", "passage"]
        texts += ["reasoning"] if self.format.reads == "answers" else []
        for name in texts:
            # Powers of two: shards add up, and a chart has few bars.
            upper = (batch[name].drop_nulls().str.count_matches(r"\S+").clip(1).log(2).ceil()).cast(
                pl.Int64
            )
            counts = self._words.setdefault(name, Counter())
            counts.update({str(2**power): n for power, n in upper.value_counts().iter_rows()})


class _Files:
    """The files of a shard, format and split: a new one before the last grows beyond its bound."""

    def __init__(
        self, folder: OutFolder, each: Format, shard: str, split: str, options: ExportOptions
    ) -> None:
        self._folder = folder
        self._format = each
        self._name = f"{each.folder}/{split}/{file_name(shard)}"
        self._split = split
        self._options = options
        self._bound = options.max_file_mb * 1_000_000
        self._all: list[_Part] = []

    def write(self, batch: pl.DataFrame) -> None:
        """Add the rows of some examples."""
        size = max(1, int(batch.estimated_size()))
        # A slice can't be longer than Polars can count.
        step = max(1, min(batch.height, batch.height * self._bound // size))
        for part in batch.iter_slices(step):
            if not self._all or self._all[-1].is_full(int(part.estimated_size()), self._bound):
                self._all.append(self._next())
            self._all[-1].write(part, self._format, self._options, self._split)

    def close(self) -> None:
        for file in self._files():
            file.close()

    def discard(self) -> None:
        for file in self._files():
            file.discard()

    def summary(self) -> dict[str, Any]:
        """Return the rows, and the names and bytes of all files."""
        return {
            "rows": sum(part.rows.rows for part in self._all),
            "bytes": sum(file.bytes for file in self._files()),
            "files": [file.relative for file in self._files()],
        }

    def _files(self) -> list[FrameFile]:
        return [file for part in self._all for file in part if file is not None]

    def _next(self) -> _Part:
        name = self._name if not self._all else f"{self._name}.file-{len(self._all) + 1:05d}"
        each, folder = self._format, self._folder
        rows = FrameFile(folder, f"{name}{each.extension}")
        ids = None if each.ids else FrameFile(folder, f"{name}{SIDECAR}")
        copied = each.extension == EXTENSION and not each.parts
        return _Part(rows, ids, FrameFile(folder, f"{COPIES}{name}.jsonl") if copied else None)


class _Part(NamedTuple):
    """A file of rows, the sidecar with their ids, and the copy that `datasets` reads."""

    rows: FrameFile
    ids: FrameFile | None
    copy: FrameFile | None

    def is_full(self, more: int, bound: int) -> bool:
        """Return whether so many bytes more would make the file too large."""
        return bool(self.rows.bytes) and self.rows.bytes + more > bound

    def write(self, batch: pl.DataFrame, each: Format, options: ExportOptions, split: str) -> None:
        """Add the rows of some examples."""
        numbered = batch.with_columns(index=pl.int_range(pl.len(), dtype=pl.Int64) + self.rows.rows)
        if self.ids is not None:
            ids = numbered.select("question_id", "doc_id", row="index")
            self.ids.write(ids.select("row", "question_id", "doc_id"))
        rows = each.rows(numbered, options, split)
        self.rows.write(rows)
        if self.copy is not None:
            self.copy.write(rows)
