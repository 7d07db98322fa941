"""LLaMA-Factory: alpaca rows, and the dataset_info.json that names them.

Its loader reads every file of a folder and wants one type: so the rows hold their ids themselves, and
no sidecar stands beside them.
"""

import json
from collections.abc import Iterable

import polars as pl

from rare_assets.exports.format import Format, blank, completion, has_reasoning
from rare_assets.exports.options import ExportOptions

INFO = "dataset_info.json"


def _rows(examples: pl.DataFrame, options: ExportOptions, split: str) -> pl.DataFrame:
    # The format has one text for the answer: a chain kept apart has no place in it.
    output = completion(options)
    return examples.select(
        instruction="prompt",
        input=pl.lit(""),
        output=output,
        system=pl.lit(options.system_prompt),
        history=pl.lit([], pl.List(pl.List(pl.String))),
        question_id="question_id",
        doc_id="doc_id",
    )


def dataset_info(splits: Iterable[str]) -> str:
    """Return the file that LLaMA-Factory finds the splits by, as `rare_train` and so on."""
    columns = {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "system": "system",
        "history": "history",
    }
    info = {
        f"rare_{split}": {"file_name": split, "formatting": "alpaca", "columns": columns}
        for split in splits
    }
    return json.dumps(info, indent=2) + "\n"


def _ids(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("question_id", "doc_id")


FORMAT = Format(
    name="llama-factory",
    extension=".jsonl",
    reads="answers",
    description="LLaMA-Factory's alpaca rows with dataset_info.json.",
    rows=_rows,
    fits={"no reasoning": has_reasoning},
    broken={"blank text": blank("instruction") | blank("output")},
    ids=_ids,
)
