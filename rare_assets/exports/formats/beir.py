"""BEIR: a folder a split, with the whole corpus, the split's questions and their relevant documents.

Shards write parts; `rare_assets.exports.complete` puts them together.
"""

import polars as pl

from rare_assets.exports.format import Format, blank
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    return examples.select(
        _id="question_id", text="query", relevant=pl.concat_list("positive_ids", "twin_ids")
    )


def corpus(documents: pl.DataFrame) -> pl.DataFrame:
    """Return the corpus' rows of a shard of documents."""
    return documents.select(_id="doc_id", title=pl.col("title").fill_null(""), text="text")


def _ids(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(question_id="_id", doc_id="relevant").explode("doc_id")


FORMAT = Format(
    name="beir",
    extension=".parquet",
    reads="questions",
    description="BEIR: corpus.jsonl, queries.jsonl, qrels/test.tsv in a folder a split.",
    rows=_rows,
    broken={"blank text": blank("text"), "nothing relevant": pl.col("relevant").list.len() == 0},
    ids=_ids,
    parts=True,
)
