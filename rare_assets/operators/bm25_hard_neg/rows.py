"""Mined negatives as rows of `hard_negatives`, and its rejects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from rare_assets.operators.bm25_hard_neg.candidates import Gold
from rare_assets.operators.bm25_hard_neg.texts import Texts
from rare_assets.schemas import HardNegatives, HardNegativesRejects


class Negative(NamedTuple):
    """A negative of a question, with its score and its rank from 1 in the ranking that it comes from."""

    doc_id: str
    score: float
    rank: int
    origin: str


def negatives_of(
    queries: pl.DataFrame,
    golds: Mapping[str, Gold],
    chosen: Mapping[str, list[Negative]],
    relevant: Mapping[str, list[str]],
    texts: Texts,
    *,
    relabel: bool,
) -> pl.DataFrame:
    """Return the rows, as `schemas.HardNegatives`, of the questions that negatives were chosen for.

    Args:
        queries: `kept.queries_of` the questions.
        golds: by question_id, in the questions' order; those of the questions chosen for have scores.
        chosen: negatives by question_id, best first.
        relevant: doc_ids judged relevant, by question_id.
        texts: has those of all documents chosen, and with `relabel` of all that are relevant.
        relabel: name relevant texts as further positives.
    """
    schema = HardNegatives.create_empty().schema
    of_golds = [
        (question_id, gold.score, gold.rank, relevant[question_id])
        for question_id, gold in golds.items()
        if question_id in chosen
    ]
    of_negatives = [
        (
            *(question_id, *negative),
            texts.texts[negative.doc_id],
            texts.titles[negative.doc_id],
        )
        for question_id, negatives in chosen.items()
        for negative in negatives
    ]
    negative = {
        "doc_id": pl.String,
        "score": pl.Float64,
        "rank": pl.Int64,
        "origin": pl.String,
    }
    of_texts = ("hard_negatives", "hard_negative_titles")
    lists = (
        pl.DataFrame(
            of_negatives,
            schema={"question_id": pl.String, **negative, **dict.fromkeys(of_texts, pl.String)},
            orient="row",
        )
        .group_by("question_id", maintain_order=True)
        .agg(*of_texts, negatives=pl.struct(*negative))
    )
    ids = [relevant[question_id] for question_id in golds if question_id in chosen]
    extra = {
        name: pl.Series(name, values, schema[name])
        for name, values in _extra_positives(ids, texts, relabel=relabel).items()
    }
    of_gold = ("question_id", "gold_score", "gold_rank", "judged_relevant")
    return (
        pl.DataFrame(of_golds, schema={name: schema[name] for name in of_gold}, orient="row")
        .join(queries, on="question_id", maintain_order="left")
        .join(lists, on="question_id", how="left", maintain_order="left")
        .with_columns(pl.col(*of_texts, "negatives").fill_null([]), **extra)
        .select(schema.names())
    )


def _extra_positives(
    relevant: list[list[str]], texts: Texts, *, relabel: bool
) -> dict[str, list[list[str] | None]]:
    """Return the columns of passages that are relabelled, a value a row."""
    if not relabel:
        nothing: list[list[str] | None] = [None] * len(relevant)
        return {"extra_positives": nothing, "extra_positive_ids": nothing}
    return {
        "extra_positives": [[texts.texts[doc_id] for doc_id in ids] for ids in relevant],
        "extra_positive_ids": list(relevant),
    }


def rejects_of(golds: Mapping[str, Gold]) -> pl.DataFrame:
    """Return the rejects, as `schemas.HardNegativesRejects`, of the questions whose gold the index lacks.

    Args:
        golds: by question_id; one without a score is not in the index.
    """
    rows = [
        {
            "question_id": question_id,
            "doc_id": gold.doc_id,
            "reason": "gold_not_in_index",
            "detail": f"the index holds no document {gold.doc_id!r}",
        }
        for question_id, gold in golds.items()
        if gold.score is None
    ]
    return pl.DataFrame(rows, schema=HardNegativesRejects.create_empty().schema)
