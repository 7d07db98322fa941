"""An export: the stored tables of a corpus as training files, shard by shard and only what has changed.

<out>/<format>/<split>/<shard>.<ext>    rows, and <shard>.ids.parquet beside formats without ids
<out>/data/<format>/<split>/...         a copy of Parquet formats as JSON Lines: Hugging Face's datasets
                                        reads all configs of a folder by one reader, the first one's
<out>/rejects/<shard>.parquet           rows left out since they share text with an evaluation set
<out>/splits.parquet                    which document is in which split, and its family
<out>/manifest/<format>/<shard>.json    what a shard's files were made from, and their counts
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import polars as pl

from rare_assets.exports import evaluation, families
from rare_assets.exports.evaluation import EvaluationTexts
from rare_assets.exports.examples import Corpus, examples, needed_ids, require_columns
from rare_assets.exports.folder import OutFolder
from rare_assets.exports.format import Format
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.options import ExportError, ExportOptions
from rare_assets.exports.shard_files import ShardFiles, Written
from rare_assets.files.cache import temporary_folder
from rare_assets.schemas import TABLES
from rare_assets.storage.footers import content_hash
from rare_assets.storage.parquet_files import EXTENSION
from rare_assets.storage.tables import ParquetTables, file_name
from rare_assets.text.shown_url import shown

SPLIT_FILE = "splits.parquet"
_REJECTS = {
    "question_id": pl.String,
    "sample_index": pl.Int64,
    "field": pl.String,
    "rule": pl.String,
    "matched": pl.String,
    "file": pl.String,
    "row": pl.Int64,
}


class Export:
    """The export of one corpus to one folder. Use it as a context manager.

    Args:
        tables: the corpus' stored tables.
        out: folder or URL; default `<storage>/exports`.
        formats: their names; default all.
        options: filters, splits, texts.

    Raises:
        ExportError: from every method: what can't be done, and what to do. Nothing is half-written.
    """

    def __init__(
        self,
        tables: ParquetTables,
        out: str | None,
        options: ExportOptions,
        formats: Sequence[str] = (),
    ) -> None:
        self.tables = tables
        self.options = options
        self.folder = OutFolder(out or str(tables.root / "exports"))
        self.formats = [_known(name) for name in dict.fromkeys(formats or FORMATS)]
        self.shards = stored_shards(tables, "hard_negatives")
        self._temporary = tempfile.TemporaryDirectory(prefix="rare-export-", dir=temporary_folder())
        self._excluded: EvaluationTexts | None = None
        self._exclude_hash = ""
        self._splits_hash = ""
        # Of folders that were listed, the sizes of their files.
        self._listed: dict[str, dict[str, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._temporary.cleanup()

    def prepare(self, shards: Sequence[str] | None = None) -> None:
        """Check what is asked for, take the folder, and put every document into its split.

        Args:
            shards: those to be written; default all.
        """
        if not self.shards:
            raise ExportError(
                f"There is nothing to export: {shown(self.tables.root)} holds no hard_negatives. Make them "
                "first with 'rare-assets run', or name another storage."
            )
        unknown = sorted(set(shards or ()) - set(self.shards))
        if unknown:
            raise ExportError(
                f"No hard negatives are stored for {', '.join(unknown)}. Stored are: "
                f"{', '.join(self.shards[:10])}{', …' if len(self.shards) > 10 else ''}."
            )
        for shard in shards or self.shards:
            require_columns(self.tables, shard, self.options)
        self._exclude_hash = evaluation.fingerprint(self.options.exclude)
        self._listed.clear()
        self.folder.claim()
        self.folder.remove_leftovers()
        self._assign()

    @property
    def corpus(self) -> Corpus:
        """Split, family and title of every document."""
        return Corpus(self.folder.scan(SPLIT_FILE))

    def sketches(self) -> pl.LazyFrame:
        """Return what comparing documents takes, of all stored documents; made where it is not stored."""
        return pl.scan_parquet([str(path) for path, _ in self._sketched()], glob=False)

    def stale(self, shard: str) -> list[Format]:
        """Return the formats whose files of a shard are not as they were written, or were made from something else."""
        return [
            each
            for each in self.formats
            if (stored := self.written(each.name, shard)) is None
            or not self._is_whole(stored)
            or not self._is_current(each, shard, stored)
        ]

    def has(self, files: Iterable[str]) -> bool:
        """Return whether all these files are in the folder, each of whose folders is listed once."""
        return all(self._size(file) is not None for file in files)

    def written(self, name: str, shard: str) -> Written | None:
        """Return the manifest of a shard's files of a format; None if there is none that can be read."""
        return self._read_manifest(_manifest(name, shard))

    def _read_manifest(self, relative: str) -> Written | None:
        stored = self.folder.read_json(relative)
        try:
            return None if stored is None else Written(**stored)
        except TypeError as error:
            self.folder.tell_damage(relative, error)
            return None

    def write(self, shard: str, formats: Sequence[Format]) -> dict[str, Written]:
        """Write a shard's files in some formats. Return their manifests by format.

        Raises:
            TableDamaged: a table of the shard is not what was written; nothing is written then.
        """
        self._require_whole(shard)
        made_from = {each.name: self._made_from(each, shard) for each in formats}
        files = [ShardFiles(self.folder, each, shard, self.options) for each in formats]
        self._listed.clear()
        rejects: list[pl.DataFrame] = []
        try:
            for batch in examples(self.tables, shard, self.corpus, self.options):
                left, rejected = self._without_evaluation(batch)
                rejects.append(rejected)
                for each in files:
                    each.add(left, excluded=batch.height - left.height)
            for each in files:
                each.close()
        except BaseException:
            for each in files:
                each.discard()
            raise
        self._write_rejects(shard, rejects)
        done = {}
        for each in files:
            name = each.format.name
            before = self.written(name, shard)
            done[name] = each.written(made_from[name])
            self.folder.write_text(_manifest(name, shard), json.dumps(done[name]._asdict()))
            now = {file for split in done[name].splits.values() for file in split["files"]}
            for file in _files_of(before) - now:
                self.folder.remove(file)
        return done

    def all_written(self) -> Iterator[Written]:
        """Return every manifest that can be read, shard by shard in each format."""
        for name in FORMATS:
            for file in self.folder.names(f"manifest/{name}"):
                if (stored := self._read_manifest(f"manifest/{name}/{file}")) is not None:
                    yield stored

    def remove_gone(self) -> list[str]:
        """Remove the files of shards that are stored no more. Return their keys."""
        gone = []
        for written in list(self.all_written()):
            if written.shard in self.shards:
                continue
            gone.append(written.shard)
            for file in _files_of(written):
                self.folder.remove(file)
            self.folder.remove(_manifest(written.format, written.shard))
            self.folder.remove(f"rejects/{file_name(written.shard)}{EXTENSION}")
        return sorted(set(gone))

    def _require_whole(self, shard: str) -> None:
        """Compare a shard's tables with their checksums: no step reads all of them as a whole."""
        for table in TABLES:
            if self.tables.exists(table, shard):
                self.tables.load(table, shard)

    def _without_evaluation(self, batch: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        if not self.options.exclude:
            return batch, pl.DataFrame(schema=_REJECTS)
        if self._excluded is None:
            folder = Path(self._temporary.name) / "runs"
            self._excluded = EvaluationTexts.read(self.options.exclude, folder)
        found = self._excluded.find(batch)
        left = batch.join(
            found, on=["question_id", "sample_index"], how="anti", maintain_order="left"
        )
        return left, found.cast(_REJECTS)  # type: ignore[arg-type]

    def _write_rejects(self, shard: str, rejects: list[pl.DataFrame]) -> None:
        relative = f"rejects/{file_name(shard)}{EXTENSION}"
        if not self.options.exclude:
            self.folder.remove(relative)
            return
        with self.folder.writing(relative) as path:
            pl.concat([pl.DataFrame(schema=_REJECTS), *rejects]).write_parquet(path)

    def _assign(self) -> None:
        """Store which document is in which split, unless that is what stands there."""
        sketched = self._sketched()
        options = self.options
        self._splits_hash = _hash(
            [
                *(state for _, state in sketched),
                options.split_seed,
                options.validation_share,
                options.test_share,
                options.near_duplicate_threshold,
            ]
        )
        stored = self.folder.read_json("manifest/splits.json")
        if stored == {"made_from": self._splits_hash} and self.folder.opens(SPLIT_FILE):
            return
        assigned = families.assign(self.sketches(), options)
        with self.folder.writing(SPLIT_FILE) as path:
            assigned.write_parquet(path)
        self.folder.write_text("manifest/splits.json", json.dumps({"made_from": self._splits_hash}))

    def _sketched(self) -> list[tuple[Any, str]]:
        """Return the stored sketch of each shard of documents, and a name for its state."""
        found = []
        for shard in stored_shards(self.tables, "documents"):
            state = f"{families.SKETCH_VERSION} {self._state('documents', shard)}"
            path = self.tables.root / "document_sketches" / f"{file_name(shard)}{EXTENSION}"
            made_from = self.tables.remembered(path, {"made_from": pl.String}, ("made_from",))
            if made_from.is_empty() or made_from.item(0, 0) != state:
                documents = self.tables.load("documents", shard)
                # A shard whose file could not be read has no document.
                batches = chain(
                    [documents.head(0).collect()], documents.collect_batches(chunk_size=10_000)
                )
                whole = pl.concat(map(families.sketch, batches)).with_columns(
                    made_from=pl.lit(state)
                )
                self.tables.write_file(whole, path)
            found.append((path, state))
        return found

    def _state(self, table: str, shard: str) -> str:
        stored = self.tables.provenance(table, shard)
        return "missing" if stored is None else _hash([stored.content_hash, dict(stored.made_from)])

    def _made_from(self, each: Format, shard: str) -> dict[str, str]:
        known = self.corpus.lookup(needed_ids(self.tables, shard))
        return {
            **self._made_from_tables(each, shard),
            "corpus": content_hash(known.sort("doc_id"), ("doc_id", "title", "split")),
            "corpus_state": self._splits_hash,
        }

    def _made_from_tables(self, each: Format, shard: str) -> dict[str, str]:
        return {
            **{table: self._state(table, shard) for table in TABLES},
            "options": self.options.content(),
            "exclude": self._exclude_hash,
            "format": f"{each.name} {each.version}",
        }

    def _is_whole(self, stored: Written) -> bool:
        """Return whether the files of a manifest are there, as large together as they were written."""
        return self.has(_files_of(stored)) and all(
            sum(self._size(file) or 0 for file in split["files"]) == split["bytes"]
            for split in stored.splits.values()
        )

    def _size(self, file: str) -> int | None:
        folder, _, name = file.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = self.folder.sizes(folder)
        return self._listed[folder].get(name)

    def _is_current(self, each: Format, shard: str, stored: Written) -> bool:
        before = dict(stored.made_from)
        now = self._made_from_tables(each, shard)
        if any(before.get(name) != value for name, value in now.items()):
            return False
        # The corpus may have changed where the shard's rows do not see it.
        if before["corpus_state"] == self._splits_hash:
            return True
        return before["corpus"] == self._made_from(each, shard)["corpus"]


def stored_shards(tables: ParquetTables, table: str) -> list[str]:
    """Return the keys of the shards that are stored of a table, sorted. Raises StorageError."""
    return sorted(map(unquote, tables.stored_versions(table)))


def _known(name: str) -> Format:
    if name not in FORMATS:
        raise ExportError(f"There is no format {name!r}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]


def _manifest(name: str, shard: str) -> str:
    return f"manifest/{name}/{file_name(shard)}.json"


def _files_of(written: Written | None) -> set[str]:
    if written is None:
        return set()
    return {file for split in written.splits.values() for file in split["files"]}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
