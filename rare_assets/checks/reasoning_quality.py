"""How good a shard's reasoning is: does it use the gold document, and is it in its language?"""

from __future__ import annotations

import polars as pl

from rare_assets.checks.judgement import Judgement, StoredShard, rate_below
from rare_assets.checks.language import in_other_language
from rare_assets.checks.wording import content_stems

# Reasoning written by hand on the sample corpus, in its own words, uses 3 to 15 of its document's
# (`rare_assets_tests/support/written_questions.py`); paired with each other document there, 74 % of it
# uses fewer than two. So does 17 of 22 of the embedded teacher's, which ignores its documents.
FEWEST_USED = 2
# A gold document that brings in fewer says nothing either way.
FEWEST_DISTINCTIVE = 8

_BATCH = 1_000


def reasoning_uses_gold(stored: StoredShard) -> Judgement:
    """Expect little reasoning that says it did without the gold document, or that lacks any word
    that only the gold document brings in.

    What the teacher says comes first; it may say so and not do it, so words are looked at as well. Those
    are the longer words of the gold document that stand neither in the negatives shown beside it nor in
    question and scenario. Reasoning that is surely in another language than its document can't be judged
    by words, and is left to the check on languages. Rows that were shown no gold document are not judged.
    """
    rows = stored.rows.filter(pl.col("gold_position").is_not_null())
    by_word = rows.filter(pl.col("gold_used").fill_null(True))
    judged = pl.concat([_used(batch) for batch in (rows.clear(), *by_word.iter_slices(_BATCH))])
    unused = judged.filter(pl.col("used") < FEWEST_USED)
    elsewhere, _ = in_other_language(
        unused.select("question_id", "sample_index", document="text", text="reasoning")
    )
    flagged = unused.join(
        elsewhere, on=["question_id", "sample_index"], how="anti", maintain_order="left"
    ).drop("text")
    # What names its documents can be judged, however few words tell them apart.
    named = rows.filter(pl.col("gold_used").is_not_null())
    undecided = judged.join(named, on=["question_id", "sample_index"], how="anti").height
    said = rows.filter(~pl.col("gold_used")).select("question_id", "sample_index", "reasoning")
    return rate_below(
        "gold_unused",
        pl.concat([said, flagged], how="diagonal"),
        named.height + undecided - elsewhere.height,
        stored.threshold("max_gold_unused_rate"),
    )


def reasoning_in_language_of_document(stored: StoredShard) -> Judgement:
    """Expect little reasoning to be surely in another language than its document."""
    texts = stored.rows.select("question_id", document="text", text="reasoning")
    found, judged = in_other_language(texts)
    flagged = found.select("question_id", "text", "language", "document_language")
    return rate_below(
        "other_language", flagged, judged, stored.threshold("max_other_language_rate")
    )


def _used(rows: pl.DataFrame) -> pl.DataFrame:
    """Return `question_id, sample_index, text, reasoning, used, distinctive`: how many of the gold
    document's distinctive words the reasoning uses, of how many; only rows whose gold document has
    enough of them."""
    negatives = content_stems(pl.col("hard_negatives").list.join("\n"))
    asked = content_stems(pl.concat_str("question", "scenario", separator="\n"))
    distinctive = (
        content_stems(pl.col("text")).list.set_difference(negatives).list.set_difference(asked)
    )
    used = pl.col("words").list.set_intersection(content_stems(pl.col("reasoning")))
    return (
        rows.select("question_id", "sample_index", "text", "reasoning", words=distinctive)
        .filter(pl.col("words").list.len() >= FEWEST_DISTINCTIVE)
        .select(
            "question_id",
            "sample_index",
            "text",
            "reasoning",
            used=used.list.len(),
            distinctive=pl.col("words").list.len(),
        )
    )
