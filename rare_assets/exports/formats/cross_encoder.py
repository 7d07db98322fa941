"""CrossEncoder of sentence-transformers: a query, its passages, and which of them is relevant."""

import polars as pl

from rare_assets.exports.format import Format, any_blank, blank, has_negative
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    relevant = pl.col("positives").list.eval(pl.lit(1, pl.Int64).repeat_by(pl.len()).explode())
    others = pl.col("negatives").list.eval(pl.lit(0, pl.Int64).repeat_by(pl.len()).explode())
    return examples.select(
        query="query",
        docs=pl.concat_list("positives", "negatives"),
        labels=pl.concat_list(relevant, others),
    )


FORMAT = Format(
    name="cross-encoder",
    extension=".parquet",
    reads="questions",
    description="Lists for sentence-transformers' CrossEncoder: query, docs, labels.",
    rows=_rows,
    fits={"no negative": has_negative},
    broken={
        "blank text": blank("query") | any_blank("docs"),
        "labels do not go with docs": pl.col("labels").list.len() != pl.col("docs").list.len(),
        "one label only": pl.col("labels").list.n_unique() != 2,
    },
)
