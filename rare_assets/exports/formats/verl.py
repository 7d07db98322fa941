"""verl: questions whose answer can be verified, for reinforcement learning."""

import polars as pl

from rare_assets.exports.format import Format, blank, chat
from rare_assets.exports.options import ExportOptions

REWARD = "reward.py"
_ANSWER_HERE = " Put it between <answer> and </answer>."


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    # The reward looks for the answer there, so the task says so.
    told = options.task_instruction.rstrip() + _ANSWER_HERE
    prompt = pl.col("prompt").str.replace(options.task_instruction, told, literal=True)
    return examples.with_columns(prompt=prompt).select(
        data_source=pl.lit(options.data_source),
        prompt=chat(options),
        ability=pl.lit("reasoning"),
        reward_model=pl.struct(style=pl.lit("rule"), ground_truth="gold_answer"),
        extra_info=pl.struct(
            "question_id", "doc_id", "question", split=pl.lit(split), index="index"
        ),
    )


def _ids(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.col("extra_info").struct.unnest()).select("question_id", "doc_id")


FORMAT = Format(
    name="verl",
    extension=".parquet",
    reads="questions",
    description="verl: prompts with a gold answer and the reward that verifies it (verl/reward.py).",
    rows=_rows,
    fits={
        "no gold answer": lambda o: pl.col("gold_answer").is_not_null(),
        "no documents shown": lambda o: pl.col("prompt").is_not_null(),
    },
    broken={
        "no gold answer": pl.col("reward_model")
        .struct.field("ground_truth")
        .fill_null("")
        .str.strip_chars()
        == "",
        "no prompt": pl.col("prompt").list.len() == 0,
        "blank source": blank("data_source"),
    },
    ids=_ids,
)
