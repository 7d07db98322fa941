"""Prompt and completion apart, as TRL reads them."""

import polars as pl

from rare_assets.exports.format import Format, answer_message, chat, has_reasoning
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    return examples.select(prompt=chat(options), completion=pl.concat_list(answer_message(options)))


FORMAT = Format(
    name="prompt-completion",
    extension=".jsonl",
    reads="answers",
    description="Prompt and completion as messages for TRL: only the completion is learned.",
    rows=_rows,
    fits={"no reasoning": has_reasoning},
    broken={
        "not one answer": pl.col("completion").list.len() != 1,
        "no prompt": pl.col("prompt").list.len() == 0,
    },
)
