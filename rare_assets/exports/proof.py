"""Prove, from the files as they are written, that no document is on two sides of the splits."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from rare_assets.exports.examples import passage
from rare_assets.exports.export import Export, stored_shards
from rare_assets.exports.families import crossings
from rare_assets.exports.formats import FORMATS
from rare_assets.exports.shard_files import COPIES, SIDECAR, Written

_NEGATIVES = ("negative_document_ids", "negative_", "neg", "docs", "hard_negatives")
_SHOWN = 5


class Proof(NamedTuple):
    """Documents that stand on two sides of the splits, by kind; none where the splits hold.

    `held_out` and `training` are the gold documents that were compared.
    """

    held_out: int
    training: int
    on_two_sides: list[str]
    twins: list[str]
    siblings: list[str]
    near_duplicates: list[str]
    negatives_in_training: list[str]
    options: list[str]

    @property
    def holds(self) -> bool:
        """True if nothing was found."""
        return not any(self[2:])


def prove(export: Export) -> Proof:
    """Compare the gold documents of all written rows, and the negatives of the training rows.

    Gold documents of different splits are no two of one text, one parent or nearly the same words, and
    no gold document of validation or test is a negative of a training row. (The other way round is
    allowed: what is searched is one corpus.) Besides, all files come from the same options.
    """
    written = list(export.all_written())
    golds = _golds(export, written)
    by_split = golds.group_by("doc_id").agg(pl.col("split").unique().sort())
    twice = by_split.filter(pl.col("split").list.len() > 1)["doc_id"]
    one = golds.unique("doc_id", keep="first")
    known = _documents(export, one)
    near = crossings(one, export.sketches(), export.options.near_duplicate_threshold)
    held = one.filter(pl.col("split") != "train")
    return Proof(
        held.height,
        one.height - held.height,
        _first(twice),
        _across(known, "text_hash"),
        _across(known, "parent"),
        [f"{row[0]} ({row[1]}) and {row[2]} ({row[3]})" for row in near.head(_SHOWN).iter_rows()],
        _held_out_negatives(export, written, held["doc_id"]),
        _options_that_differ(written),
    )


def rows_of(export: Export, file: str) -> pl.DataFrame:
    """Return the rows of a written file: JSON Lines, a JSON list or Parquet, by its name."""
    if file.endswith(".jsonl"):
        return pl.read_ndjson(export.folder.require_bytes(file), infer_schema_length=None)
    if file.endswith(".json"):
        return pl.read_json(export.folder.require_bytes(file), infer_schema_length=None)
    return export.folder.scan(file).collect()


def ids_of(export: Export, written: Written, split: str) -> pl.DataFrame:
    """Return `question_id, doc_id` of the rows of a split, each relevant document a row."""
    inside = FORMATS[written.format].ids
    frames = [
        inside(rows_of(export, file)) if inside else export.folder.scan(file).collect()
        for file in written.splits[split]["files"]
        if not file.startswith(COPIES) and (inside or file.endswith(SIDECAR))
    ]
    return pl.concat(frame.select("question_id", "doc_id") for frame in frames)


def _golds(export: Export, written: list[Written]) -> pl.DataFrame:
    frames = [pl.DataFrame(schema={"doc_id": pl.String, "split": pl.String})]
    for each in written:
        for split in each.splits:
            ids = ids_of(export, each, split)
            frames.append(ids.select("doc_id", split=pl.lit(split)).unique())
    return pl.concat(frames).unique()


def _documents(export: Export, golds: pl.DataFrame) -> pl.DataFrame:
    """Return `split, text_hash, parent` of gold documents, from the documents themselves."""
    frames = []
    for shard in stored_shards(export.tables, "documents"):
        with export.tables.reading("documents", shard):
            documents = export.tables.scan("documents", shard)
            is_cut = "parent_id" in documents.collect_schema()
            parent = pl.coalesce("parent_id", "doc_id") if is_cut else pl.col("doc_id")
            frames.append(
                documents.select("doc_id", "text_hash", parent=parent)
                .join(golds.lazy(), on="doc_id")
                .collect()
            )
    return pl.concat(frames)


def _across(known: pl.DataFrame, key: str) -> list[str]:
    sides = known.group_by(key).agg("doc_id", n=pl.col("split").n_unique()).filter(pl.col("n") > 1)
    return [", ".join(ids[:_SHOWN]) for ids in sides["doc_id"].head(_SHOWN)]


def _held_out_negatives(export: Export, written: list[Written], held_out: pl.Series) -> list[str]:
    """Find the held-out documents whose passage or id stands among the negatives of training
    rows."""
    hashes = _passage_hashes(export, held_out)
    found: set[str] = set()
    for each in written:
        if "train" not in each.splits or FORMATS[each.format].reads != "questions":
            continue
        for file in each.splits["train"]["files"]:
            if file.endswith(SIDECAR) or file.startswith(COPIES):
                continue
            rows = rows_of(export, file)
            for name in rows.columns:
                if not name.startswith(_NEGATIVES) or name.endswith("_scores"):
                    continue
                texts = _flat(rows[name])
                hit = (
                    texts.to_frame("value")
                    .select(value=pl.col("value").hash())
                    .join(hashes, on="value")
                )
                found.update(hit["doc_id"])
    return sorted(found)[:_SHOWN]


def _passage_hashes(export: Export, held_out: pl.Series) -> pl.DataFrame:
    """Return `value, doc_id`: hashes of each held-out document's passage, and of its id."""
    frames = []
    for shard in stored_shards(export.tables, "documents"):
        with export.tables.reading("documents", shard):
            documents = (
                export.tables.scan("documents", shard)
                .join(held_out.to_frame("doc_id").lazy(), on="doc_id", how="semi")
                .select("doc_id", passage=passage("title", "text"))
                .collect()
            )
        frames += [
            documents.select("doc_id", value=pl.col(value).hash())
            for value in ("passage", "doc_id")
        ]
    return pl.concat(frames)


def _flat(values: pl.Series) -> pl.Series:
    while isinstance(values.dtype, pl.List):
        values = values.explode(empty_as_null=False, keep_nulls=False)
    return values


def _options_that_differ(written: list[Written]) -> list[str]:
    """Find the shards that were exported with other options than most."""
    by_options: dict[str, set[str]] = {}
    for each in written:
        key = each.made_from["options"] + each.made_from["exclude"]
        by_options.setdefault(key, set()).add(each.shard)
    usual = max(by_options.values(), key=len, default=set())
    return sorted(set().union(*by_options.values()) - usual)[:_SHOWN]


def _first(values: pl.Series) -> list[str]:
    return [str(value) for value in values.sort().head(_SHOWN)]
