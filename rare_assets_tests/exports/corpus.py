"""A stored corpus of any size, as the graph leaves it: documents, questions, negatives, reasoning.

Texts are of random words, so that no two documents are alike unless a test makes them so.
"""

from __future__ import annotations

import hashlib
import random
from itertools import cycle, islice
from typing import Any

import polars as pl

from rare_assets.schemas import TABLES
from rare_assets.storage.tables import ParquetTables

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("a", "ei", "o", "u") for c in "lmnrstx"]
NEGATIVES = 3


def document(number: int, **changes: Any) -> dict[str, Any]:
    """A row of documents."""
    chosen = random.Random(number)
    text = f"About {number}: " + " ".join(chosen.choices(WORDS, k=40))
    row = {
        "doc_id": f"d{number}",
        "text": text,
        "title": f"Title {number}",
        "answer": f"answer {number}" if number % 2 else None,
        "source": f"a.jsonl:{number + 1}",
        "n_words": 42,
        **changes,
    }
    row["text_hash"] = hashlib.sha256(row["text"].encode()).hexdigest()[:32]
    return row


def store(
    tables: ParquetTables,
    shards: dict[str, list[dict[str, Any]]],
    *,
    of: list[dict[str, Any]] | None = None,
    answers: dict[str, Any] | None = None,
) -> None:
    """Store all four tables of some shards.

    Args:
        shards: their documents.
        of: where negatives are taken from; default all those documents.
        answers: columns of reasoning that are otherwise in every row.
    """
    corpus = of or [row for rows in shards.values() for row in rows]
    for shard, documents in shards.items():
        write(tables, "documents", shard, documents)
        write(tables, "questions", shard, [question(row) for row in documents])
        mined = [negatives(row, corpus) for row in documents]
        write(tables, "hard_negatives", shard, mined)
        made = [
            reasoning(row, mine, **(answers or {}))
            for row, mine in zip(documents, mined, strict=True)
        ]
        write(tables, "reasoning", shard, made)


def write(tables: ParquetTables, table: str, shard: str, rows: list[dict[str, Any]]) -> None:
    """Store one table of a shard."""
    frame = pl.DataFrame(rows, infer_schema_length=None)
    schema = TABLES[table].schema.create_empty().schema
    frame = frame.cast({name: dtype for name, dtype in schema.items() if name in frame.columns})
    made_from = {"options": '{"num_neg": 3}', "teacher": "m", "prompt": "p", "index": "i"}
    tables.write(table, shard, frame, made_from=made_from)


def question(row: dict[str, Any]) -> dict[str, Any]:
    """A row of questions."""
    return {
        "question_id": f"{row['doc_id']}-q0",
        "doc_id": row["doc_id"],
        "text_hash": row["text_hash"],
        "question": f"Why does {row['text'].split()[3]} follow from {row['doc_id']}?",
        "origin": "given",
        "reference_answer": row["answer"],
        "scenario": f"Somebody reads of {row['doc_id']}.",
        "model": "m",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "attempts": 1,
    }


def negatives(row: dict[str, Any], corpus: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of hard_negatives: the documents that follow in the corpus, no twin among them."""
    place = corpus.index(row)
    following = islice(cycle(corpus), place + 1, place + len(corpus))
    unlike = (other for other in following if other["text_hash"] != row["text_hash"])
    others = list(islice(unlike, NEGATIVES))
    return {
        "question_id": f"{row['doc_id']}-q0",
        "doc_id": row["doc_id"],
        "query": question(row)["question"],
        "hard_negatives": [other["text"] for other in others],
        "negatives": [
            {"doc_id": other["doc_id"], "score": 6.0 - rank, "rank": rank}
            for rank, other in enumerate(others, start=2)
        ],
        "gold_score": 10.0,
        "gold_rank": 1,
        "judged_relevant": [],
    }


def reasoning(row: dict[str, Any], mined: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A row of reasoning: the gold document stood second."""
    asked = question(row)
    ids = [each["doc_id"] for each in mined["negatives"]]
    answer = f"answer {row['doc_id']}"
    return {
        "question_id": asked["question_id"],
        "sample_index": 0,
        "doc_id": row["doc_id"],
        "text": row["text"],
        "question": asked["question"],
        "scenario": asked["scenario"],
        "hard_negatives": mined["hard_negatives"],
        "reasoning": f"Document 2 says why, of {row['doc_id']}.",
        "answer": answer,
        "raw_answer": f"<think>...</think>{answer}",
        "context_doc_ids": [*ids[:1], row["doc_id"], *ids[1:]],
        "gold_position": min(1, len(ids)),
        "model": "m",
        "finish_reason": "stop",
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "attempts": 1,
        "answer_correct": None,
        **changes,
    }
