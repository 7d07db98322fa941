"""Tevatron (version 2): rows of ids, and a corpus beside them that has the texts."""

import polars as pl

from rare_assets.exports.examples import passage
from rare_assets.exports.format import Format, blank, has_negative
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    return examples.select(
        query_id="question_id",
        query_text="query",
        query_image=pl.lit(None, pl.String),
        positive_document_ids="positive_ids",
        negative_document_ids="negative_ids",
        # A null here and a text in the next file would be two schemas.
        answer=pl.coalesce("gold_answer", "answer", pl.lit("")),
        source=pl.lit("rare_assets"),
    )


def corpus(documents: pl.DataFrame) -> pl.DataFrame:
    """Return the corpus' rows of a shard of documents."""
    # Tevatron puts no title before the text.
    return documents.select(
        docid="doc_id", text=passage("title", "text"), image=pl.lit(None, pl.String)
    )


def _ids(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(question_id="query_id", doc_id="positive_document_ids").explode("doc_id")


FORMAT = Format(
    name="tevatron",
    extension=".jsonl",
    reads="questions",
    description="Tevatron 2; documents by id, their texts in corpus/.",
    rows=_rows,
    fits={"no negative": has_negative},
    broken={
        "blank text": blank("query_text"),
        "no document": (pl.col("positive_document_ids").list.len() == 0)
        | (pl.col("negative_document_ids").list.len() == 0),
    },
    ids=_ids,
)
