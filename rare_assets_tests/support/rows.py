"""Small valid rows of every table, for tests that change one thing about them."""

from typing import Any

import polars as pl

from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables

ROWS: dict[str, dict[str, Any]] = {
    "documents": {
        "doc_id": "d1",
        "text": "Cells store charge.",
        "title": None,
        "question": None,
        "scenario": None,
        "answer": None,
        "parent_id": "d1",
        "passage": 1,
        "char_start": None,
        "char_end": None,
        "text_hash": "h1",
        "source": "a.jsonl:1",
        "n_words": 3,
    },
    "questions": {
        "question_id": "d1-q0",
        "doc_id": "d1",
        "text_hash": "h1",
        "question": "Why does a cell lose charge over time?",
        "scenario": "An engineer sees a stored battery go flat.",
        "origin": "written",
        "reference_answer": "Self-discharge.",
        "question_type": "diagnose",
        "length": "short",
        "wording": "expert",
        "persona": None,
        "extra": None,
        "judged": None,
        "model": "m",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "attempts": 1,
    },
    "hard_negatives": {
        "question_id": "d1-q0",
        "doc_id": "d1",
        "query": "Why does a cell lose charge over time?",
        "hard_negatives": ["Cells divide.", "Charge is conserved."],
        "hard_negative_titles": [None, None],
        "negatives": [
            {"doc_id": "d2", "score": 2.0, "rank": 2, "origin": "question"},
            {"doc_id": "d3", "score": 1.0, "rank": 3, "origin": "question"},
        ],
        "gold_score": 3.0,
        "gold_rank": 1,
        "judged_relevant": [],
        "extra_positives": None,
        "extra_positive_ids": None,
    },
    "reasoning": {
        "question_id": "d1-q0",
        "sample_index": 0,
        "doc_id": "d1",
        "text": "Cells store charge.",
        "question": "Why does a cell lose charge over time?",
        "scenario": "An engineer sees a stored battery go flat.",
        "title": None,
        "reference_answer": "Self-discharge.",
        "hard_negatives": ["Cells divide.", "Charge is conserved."],
        "reasoning": "It discharges itself.",
        "answer": "Self-discharge.",
        "raw_answer": "It discharges itself. <answer>Self-discharge.</answer>",
        "context_doc_ids": ["d2", "d1", "d3"],
        "left_out": [],
        "gold_position": 1,
        "context": [
            {"doc_id": "d2", "title": None, "text": "Cells divide."},
            {"doc_id": "d1", "title": None, "text": "Cells store charge."},
            {"doc_id": "d3", "title": None, "text": "Charge is conserved."},
        ],
        "used_doc_ids": ["d1"],
        "gold_used": True,
        "suspected_relevant": [],
        "model": "m",
        "finish_reason": "stop",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "attempts": 1,
        "answer_correct": True,
    },
}
REJECTS: dict[str, dict[str, Any]] = {
    "documents": {"file": "a.jsonl", "row": 2, "reason": "no_text", "detail": None},
    "questions": {
        "question_id": "d9-q0",
        "doc_id": "d9",
        "reason": "refusal",
        "detail": "I can't.",
        "model": "m",
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "attempts": 3,
    },
    "hard_negatives": {
        "question_id": "d9-q0",
        "doc_id": "d9",
        "reason": "gold_not_in_index",
        "detail": None,
    },
}
REJECTS["reasoning"] = REJECTS["questions"]


def rows(table: str, *changes: dict[str, Any]) -> pl.DataFrame:
    """A table with one valid row for each of `changes`, which say what is different in it."""
    schema = TABLES[table].schema.create_empty().schema
    return pl.DataFrame([{**ROWS[table], **change} for change in changes], schema=schema)


def replace_rows(tables: ParquetTables, table: str, shard: str, frame: pl.DataFrame) -> None:
    """Put other rows into a stored table, under its own footer, as another version may have done."""
    provenance = tables.provenance(table, shard)
    assert provenance is not None
    tables._replace(frame.lazy(), tables.path(table, shard), provenance._asdict())


def rejects(table: str, *changes: dict[str, Any]) -> pl.DataFrame:
    """Rejects of a table, one row for each of `changes`."""
    schema = TABLES[table].rejects.create_empty().schema
    return pl.DataFrame([{**REJECTS[table], **change} for change in changes], schema=schema)
