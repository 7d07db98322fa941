"""What holds for a teacher's answers: whole, and made from the documents that the row names."""

from __future__ import annotations

import polars as pl

from rare_assets.checks.judgement import Judgement, StoredShard, no_rows, rate_below
from rare_assets.teacher import CUT_FROM, is_cut, is_whole

# So many prompts of different lengths that took the same number of tokens were cut to it.
_SAME_NUMBER = 3


def gold_position_points_at_gold(stored: StoredShard) -> Judgement:
    """Require that `context_doc_ids[gold_position]` is the gold document in each row that saw
    it."""
    shown = pl.col("context_doc_ids")
    points = shown.list.get(pl.col("gold_position"), null_on_oob=True).eq_missing(pl.col("doc_id"))
    hidden = pl.col("gold_position").is_null() & ~shown.list.contains(pl.col("doc_id"))
    wrong = stored.rows.filter(~(points | hidden))["question_id"]
    return no_rows("wrong", wrong)


def context_is_gold_and_negatives(stored: StoredShard) -> Judgement:
    """Require that the documents shown are the gold one, unless it was left out on purpose, and the
    question's negatives, each once, in any order; but those that `left_out` names."""
    negatives = stored.other("hard_negatives").select(
        "question_id",
        negative_ids=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
    )
    shown = pl.col("context_doc_ids").list.sort()
    gold = pl.when(pl.col("gold_position").is_null()).then([]).otherwise(pl.concat_list("doc_id"))
    given = (
        pl.concat_list(gold, "negative_ids")
        .list.set_difference(pl.col("left_out").fill_null([]))
        .list.sort()
    )
    wrong = (
        stored.rows.lazy()
        .join(negatives, on="question_id", how="left")
        .filter(shown.ne_missing(given))
        .select("question_id")
        .collect()["question_id"]
    )
    return no_rows("differing", wrong)


def prompts_read_whole(stored: StoredShard) -> Judgement:
    """Expect no answer to have taken so few prompt tokens that the endpoint can't have read all
    documents.

    Those are fewer than half of four bytes a token, or one and the same number for most prompts,
    whatever their length.
    """
    texts = pl.concat_list(pl.concat_list("text"), "hard_negatives")
    rows = stored.rows.select(
        "question_id",
        "prompt_tokens",
        said=pl.col("prompt_tokens") // pl.col("attempts"),
        prompt=texts.list.join("\n"),
    ).with_columns(least=pl.col("prompt").str.len_bytes() // 4)
    suspected = rows.filter(pl.col("said") < pl.col("least"), pl.col("least") >= CUT_FROM)
    same = (
        suspected.group_by("said")
        .agg(pl.len(), lengths=pl.col("least").n_unique())
        .filter(pl.col("lengths") >= _SAME_NUMBER, 2 * pl.col("len") >= suspected.height)["said"]
        .to_list()
    )
    cut = [
        number
        for number, (said, prompt) in enumerate(suspected.select("said", "prompt").iter_rows())
        if said in same or is_cut(said, prompt)
    ]
    flagged = suspected[cut].select("question_id", "said", "least")
    return rate_below("cut_prompts", flagged, rows.height, 0.0)


def answers_finished(stored: StoredShard) -> Judgement:
    """Require that every answer came to its own end: none was cut, withheld or broken off."""
    words = stored.rows["finish_reason"].unique().to_list()
    whole = [word for word in words if is_whole(word)]
    wrong = stored.rows.filter(~pl.col("finish_reason").is_in(whole))
    return no_rows(
        "unfinished",
        wrong["question_id"],
        reasons=dict(stored.rows["finish_reason"].value_counts(sort=True).iter_rows()),
    )


def judged_by_reference_alone(stored: StoredShard) -> Judgement:
    """Require that `answer_correct` is null where the question has no reference to judge by."""
    has_reference = pl.col("reference_answer").fill_null("").str.contains(r"\S")
    judged = pl.col("answer_correct").is_not_null()
    with_reference = stored.rows.filter(has_reference)
    return no_rows(
        "judged_without_reference",
        stored.rows.filter(judged & ~has_reference)["question_id"],
        answers_with_reference=with_reference.height,
        answers_correct=int(with_reference["answer_correct"].sum()),
    )
