"""ReasonIR, which trains by GritLM's code: every text is a pair of instruction and text."""

import polars as pl

from rare_assets.exports.format import Format, has_negative
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    passage = pl.concat_list(pl.lit(options.passage_instruction), pl.element())
    return examples.select(
        query=pl.concat_list(pl.lit(options.query_instruction), "query"),
        pos=pl.col("positives").list.eval(passage),
        neg=pl.col("negatives").list.eval(passage),
    )


FORMAT = Format(
    name="reasonir",
    extension=".jsonl",
    reads="questions",
    description="ReasonIR and GritLM: [instruction, text] for query, pos and neg.",
    rows=_rows,
    fits={"no negative": has_negative},
    broken={
        "not a pair": pl.col("query").list.len() != 2,
        "no passage": (pl.col("pos").list.len() == 0) | (pl.col("neg").list.len() == 0),
    },
)
