"""RARE's own training files: the retrieved documents in the instruction, the chain in `predict`."""

import polars as pl

from rare_assets.exports.format import Format, blank, has_reasoning
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    gold = pl.coalesce("gold_answer", "answer")
    return examples.select(
        instruction="prompt",
        predict=pl.format("<think>\n{}\n</think>\n<answer>{}</answer>", "reasoning", "answer"),
        id="question_id",
        output=pl.format("<answer>{}</answer>", gold),
    )


FORMAT = Format(
    name="rare",
    extension=".json",
    reads="answers",
    description="RARE: instruction with # Retrieved Documents and # Question, predict, output.",
    rows=_rows,
    fits={
        "no reasoning": has_reasoning,
        "no answer set apart": lambda o: pl.col("answer").is_not_null(),
    },
    broken={"blank text": blank("instruction") | blank("predict") | blank("output")},
)
