"""Chat messages, as TRL, Axolotl and Unsloth read them."""

import polars as pl

from rare_assets.exports.format import Format, answer_message, chat, has_reasoning
from rare_assets.exports.options import ExportOptions


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    # JSON Lines leaves out no field: an asking message has an empty chain only where one is asked for.
    before = chat(options)
    if options.thinking == "reasoning_content":
        before = before.list.eval(
            pl.struct(
                pl.element().struct.field("role"),
                pl.element().struct.field("content"),
                reasoning_content=pl.lit(""),
            )
        )
    return examples.select(messages=pl.concat_list(before, answer_message(options)))


FORMAT = Format(
    name="messages",
    extension=".jsonl",
    reads="answers",
    description="Chat messages for TRL, Axolotl and Unsloth.",
    rows=_rows,
    fits={"no reasoning": has_reasoning},
    broken={
        "does not end with an answer": pl.col("messages").list.last().struct.field("role")
        != "assistant",
        "blank message": pl.col("messages")
        .list.eval(pl.element().struct.field("content").str.strip_chars() == "")
        .list.any(),
    },
)
