"""What holds for a teacher's answers: whole, and made from the documents that the row names."""

from __future__ import annotations

import polars as pl

from rare_assets.checks.judgement import Judgement, StoredShard, none_of
from rare_assets.teacher.finish import is_whole


def gold_position_points_at_gold(stored: StoredShard) -> Judgement:
    """`context_doc_ids[gold_position]` is the gold document, in every row."""
    wrong = stored.rows.filter(
        pl.col("context_doc_ids")
        .list.get(pl.col("gold_position"), null_on_oob=True)
        .ne_missing(pl.col("doc_id"))
    )["question_id"]
    return none_of("wrong", wrong)


def context_is_gold_and_negatives(stored: StoredShard) -> Judgement:
    """The documents shown are the gold one and the question's negatives, each once, in any order."""
    negatives = stored.other("hard_negatives").select(
        "question_id",
        negative_ids=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
    )
    shown = pl.col("context_doc_ids").list.sort()
    given = pl.concat_list("doc_id", "negative_ids").list.sort()
    wrong = (
        stored.rows.lazy()
        .join(negatives, on="question_id", how="left")
        .filter(shown.ne_missing(given))
        .select("question_id")
        .collect()["question_id"]
    )
    return none_of("differing", wrong)


def answers_finished(stored: StoredShard) -> Judgement:
    """Every answer came to its own end: none was cut, withheld or broken off."""
    words = stored.rows["finish_reason"].unique().to_list()
    whole = [word for word in words if is_whole(word)]
    wrong = stored.rows.filter(~pl.col("finish_reason").is_in(whole))
    return none_of(
        "unfinished",
        wrong["question_id"],
        reasons=dict(stored.rows["finish_reason"].value_counts(sort=True).iter_rows()),
    )


def judged_by_gold_answer_alone(stored: StoredShard) -> Judgement:
    """`answer_correct` is null where the document has no gold answer to judge by."""
    gold = stored.other("documents").select(
        "doc_id", has_gold=pl.col("answer").fill_null("").str.contains(r"\S")
    )
    rows = stored.rows.lazy().join(gold, on="doc_id", how="left").collect()
    judged = pl.col("answer_correct").is_not_null()
    with_gold = rows.filter(pl.col("has_gold"))
    return none_of(
        "judged_without_gold_answer",
        rows.filter(judged & ~pl.col("has_gold").fill_null(False))["question_id"],
        answers_with_gold=with_gold.height,
        answers_correct=int(with_gold["answer_correct"].sum()),
    )
