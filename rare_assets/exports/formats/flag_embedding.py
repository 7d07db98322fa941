"""FlagEmbedding: embedders and rerankers of the BGE family."""

import polars as pl

from rare_assets.exports.format import Format, any_blank, blank, has_negative
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    # Scores are BM25's. Their loader wants numbers throughout: a gold document or positive that was
    # never scored counts as the best.
    best = pl.max_horizontal(
        pl.col("gold_score"), pl.col("negative_scores").list.max(), pl.lit(0.0)
    )
    scores = best.repeat_by(pl.col("positives").list.len())
    return examples.select(
        query="query",
        pos="positives",
        neg="negatives",
        pos_scores=pl.when(pl.col("gold_score").is_null())
        .then(scores)
        .otherwise(pl.col("gold_score").repeat_by(pl.col("positives").list.len())),
        neg_scores="negative_scores",
        # Embedders read `prompt`, rerankers `query_prompt` and `passage_prompt`.
        prompt=pl.lit(options.query_instruction),
        query_prompt=pl.lit(options.query_instruction),
        passage_prompt=pl.lit(options.passage_instruction),
        type=pl.lit("normal"),
    )


FORMAT = Format(
    name="flag-embedding",
    extension=".jsonl",
    reads="questions",
    description="FlagEmbedding's embedders and rerankers (BGE); pos_scores and neg_scores are BM25's.",
    rows=_rows,
    # Their loader divides by the number of negatives.
    fits={"no negative": has_negative},
    broken={
        "blank text": blank("query") | any_blank("pos") | any_blank("neg"),
        "scores do not go with texts": (pl.col("pos").list.len() != pl.col("pos_scores").list.len())
        | (pl.col("neg").list.len() != pl.col("neg_scores").list.len()),
    },
)
