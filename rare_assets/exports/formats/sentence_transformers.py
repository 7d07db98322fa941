"""sentence-transformers: triplets and n-tuples, read by the order of their columns."""

import polars as pl

from rare_assets.exports.format import Format
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    # Any further column would be tokenised as one more text.
    return examples.select(
        anchor="query",
        positive="passage",
        **{
            f"negative_{n}": pl.col("negatives").list.get(n - 1)
            for n in range(1, options.num_neg + 1)
        },
    )


FORMAT = Format(
    name="sentence-transformers",
    extension=".parquet",
    reads="questions",
    description="Triplets or n-tuples for sentence-transformers' losses with hard negatives.",
    rows=_rows,
    fits={"fewer than num_neg negatives": lambda o: pl.col("negatives").list.len() >= o.num_neg},
    broken={"blank text": pl.any_horizontal(pl.all().fill_null("").str.strip_chars() == "")},
)
