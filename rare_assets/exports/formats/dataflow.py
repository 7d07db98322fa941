"""DataFlow: the five columns of its RARE pipeline."""

import polars as pl

from rare_assets.exports.format import Format, any_blank, blank, has_negative, has_reasoning
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    return examples.select(
        "question",
        "scenario",
        "reasoning",
        text="passage",
        hard_negatives="negatives",
    ).select("text", "question", "scenario", "hard_negatives", "reasoning")


FORMAT = Format(
    name="dataflow",
    extension=".jsonl",
    reads="answers",
    description="DataFlow: text, question, scenario, hard_negatives, reasoning.",
    rows=_rows,
    fits={"no reasoning": has_reasoning, "no negative": has_negative},
    broken={
        "blank text": blank("text")
        | blank("question")
        | blank("reasoning")
        | any_blank("hard_negatives")
    },
)
