"""Find the rows of an earlier mining that still hold, and tell what questions are searched with."""

from __future__ import annotations

import polars as pl

from rare_assets.retriever import Retriever


def queries_of(questions: pl.DataFrame, query: str) -> pl.DataFrame:
    """Return `question_id, doc_id, query`: what each question is searched with, beside its gold's terms."""
    return questions.select("question_id", "doc_id", query=searched_with(query))


def searched_with(query: str) -> pl.Expr:
    """Return the text of a question that is searched with, by the option `query`.

    >>> asked = pl.DataFrame({"scenario": "A road freezes.", "question": "Why salt it?"})
    >>> asked.select(query=searched_with("scenario_question")).item()
    'A road freezes. Why salt it?'
    """
    if query != "scenario_question":
        return pl.col("question")
    return pl.concat_str("scenario", "question", separator=" ").str.strip_chars_start()


def still_holding(
    earlier: pl.DataFrame, queries: pl.DataFrame, num_neg: int, retriever: Retriever
) -> pl.DataFrame:
    """Return the rows of an earlier mining that hold: with all negatives, by the same words, all still there.

    Args:
        earlier: `schemas.HardNegatives`.
        queries: `queries_of` the questions as they are now.
        num_neg: negatives that a whole row has.
        retriever: the index as it is now.
    """
    whole = with_all_negatives(earlier, num_neg).join(
        queries, on=["question_id", "doc_id", "query"], how="semi"
    )
    gone = no_longer_held(one_a_row(whole), retriever)
    return whole.join(gone, on="question_id", how="anti", maintain_order="left")


def with_all_negatives(mined: pl.DataFrame, num_neg: int) -> pl.DataFrame:
    """Return the rows of `schemas.HardNegatives` that have `num_neg` negatives."""
    return mined.filter(pl.col("hard_negatives").list.len() == num_neg)


def one_a_row(mined: pl.DataFrame) -> pl.DataFrame:
    """Return `question_id, doc_id, text, title` of every negative of `schemas.HardNegatives`, a row each."""
    no_titles = pl.lit(None, pl.String).repeat_by(pl.col("hard_negatives").list.len())
    return mined.select(
        "question_id",
        doc_id=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
        text=pl.col("hard_negatives"),
        title=pl.coalesce("hard_negative_titles", no_titles),
    ).explode("doc_id", "text", "title")


def no_longer_held(negatives: pl.DataFrame, retriever: Retriever) -> pl.DataFrame:
    """Return the negatives that the index lacks, or has with another text or title.

    Args:
        negatives: as `one_a_row` gives them; the rows returned are of these.
        retriever: the index.
    """
    if negatives.is_empty():
        return negatives
    held = retriever.texts(negatives["doc_id"].unique(maintain_order=True))
    return negatives.join(held, on=["doc_id", "text", "title"], how="anti", nulls_equal=True)
