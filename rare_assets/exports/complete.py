"""Write what an export has besides its shards' files: corpora, whole BEIR folders, files that name others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import polars as pl

from rare_assets.exports.export import Export, stored_shards
from rare_assets.exports.folder import FrameFile
from rare_assets.exports.formats import beir, llama_factory, tevatron, verl
from rare_assets.exports.options import SPLITS
from rare_assets.exports.reward import reward_module
from rare_assets.exports.shard_files import Written
from rare_assets.storage.tables import file_name

_BATCH = 5_000
_BEIR_FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")


def complete(export: Export) -> list[Written]:
    """Write what belongs to all shards of the formats that have rows, where it has changed.

    Returns:
        The manifests of all shards and formats in the folder.

    Raises:
        ExportError: a file can't be written; the one before stays.
    """
    export.remove_gone()
    written = list(export.all_written())
    by_format: dict[str, list[Written]] = {}
    for each in written:
        if each.rows:
            by_format.setdefault(each.format, []).append(each)
    if "tevatron" in by_format:
        _tevatron_corpus(export)
    _beir(export, by_format.get("beir", []))
    if "llama-factory" in by_format:
        info = llama_factory.dataset_info(splits_of(by_format["llama-factory"]))
        export.folder.write_text(f"llama-factory/{llama_factory.INFO}", info)
    if "verl" in by_format:
        export.folder.write_text(f"verl/{verl.REWARD}", reward_module())
    return written


def splits_of(written: Iterable[Written]) -> list[str]:
    """Return the splits that have rows, in order."""
    there = {split for each in written for split in each.splits}
    return [split for split in SPLITS if split in there]


def _tevatron_corpus(export: Export) -> None:
    """Write every shard of documents: ids of a row may be of any shard."""
    # An empty file is none that a JSON reader takes.
    shards = [
        shard for shard in stored_shards(export.tables, "documents") if _has_rows(export, shard)
    ]
    for shard in shards:
        relative = f"tevatron/corpus/{file_name(shard)}.jsonl"
        state = f"manifest/tevatron-corpus/{file_name(shard)}.json"
        rows = _corpus_rows(export, [shard], tevatron.corpus)
        made_from = _documents_state(export, [shard])
        _make(export, state, made_from, [relative], partial(_write, export, relative, rows))
    known = {f"{file_name(shard)}.json" for shard in shards}
    for name in export.folder.names("manifest/tevatron-corpus"):
        if name not in known:
            export.folder.remove(f"tevatron/corpus/{name.removesuffix('.json')}.jsonl")
            export.folder.remove(f"manifest/tevatron-corpus/{name}")


def _beir(export: Export, written: list[Written]) -> None:
    """Write a folder a split: the whole corpus, its questions, and which documents are relevant."""
    there = splits_of(written)
    shards = stored_shards(export.tables, "documents")
    for split in SPLITS:
        state = f"manifest/beir-{split}.json"
        files = [f"beir/{split}/{name}" for name in _BEIR_FILES]
        if split not in there:
            for file in files:
                export.folder.remove(file)
            export.folder.remove(state)
            continue
        parts = [file for each in written for file in each.splits.get(split, {}).get("files", [])]
        made_from = [[each.shard, dict(each.made_from)] for each in written]
        state_now = [_documents_state(export, shards), made_from]
        _make(export, state, state_now, files, partial(_beir_split, export, split, shards, parts))


def _beir_split(export: Export, split: str, shards: list[str], parts: list[str]) -> None:
    _write(export, f"beir/{split}/corpus.jsonl", _corpus_rows(export, shards, beir.corpus))
    queries = (export.folder.scan(part).select("_id", "text").collect() for part in parts)
    _write(export, f"beir/{split}/queries.jsonl", queries)
    _qrels(export, f"beir/{split}/qrels/test.tsv", parts)


def _qrels(export: Export, relative: str, parts: list[str]) -> None:
    with export.folder.writing(relative) as path, path.open("ab") as file:
        # Readers skip the first line, whatever it is.
        file.write(b"query-id\tcorpus-id\tscore\n")
        for part in parts:
            pairs = (
                export.folder.scan(part)
                .select("_id", "relevant")
                .explode("relevant")
                .with_columns(score=pl.lit(1))
                .collect()
            )
            file.write(pairs.write_csv(separator="\t", include_header=False).encode())


def _corpus_rows(
    export: Export, shards: list[str], rows: Callable[[pl.DataFrame], pl.DataFrame]
) -> Iterator[pl.DataFrame]:
    for shard in shards:
        documents = export.tables.scan("documents", shard).select("doc_id", "title", "text")
        yield from map(rows, documents.collect_batches(chunk_size=_BATCH))


def _write(export: Export, relative: str, frames: Iterable[pl.DataFrame]) -> None:
    file = FrameFile(export.folder, relative)
    try:
        for frame in frames:
            file.write(frame)
        file.close()
    except BaseException:
        file.discard()
        raise


def _has_rows(export: Export, shard: str) -> bool:
    stored = export.tables.provenance("documents", shard)
    return stored is not None and stored.n_rows > 0


def _documents_state(export: Export, shards: list[str]) -> list[Any]:
    stored = [(shard, export.tables.provenance("documents", shard)) for shard in shards]
    return [[shard, each.content_hash if each else None] for shard, each in stored]


def _make(
    export: Export, state: str, made_from: Any, files: list[str], make: Callable[[], None]
) -> None:
    """Make files unless they are there and were made from the same, and remember that they were."""
    text = json.dumps(made_from, sort_keys=True)
    now = {"made_from": hashlib.sha256(text.encode()).hexdigest()[:16]}
    if export.folder.read_json(state) != now or not export.has(files):
        make()
        export.folder.write_text(state, json.dumps(now))
