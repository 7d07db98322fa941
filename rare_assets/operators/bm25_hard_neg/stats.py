"""Figures about how mining came out."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, cast

import polars as pl

from rare_assets.operators.bm25_hard_neg.candidates import BY_GOLD, BY_QUESTION
from rare_assets.operators.bm25_hard_neg.options import MARGINS, MiningOptions, score_rule

GAP_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class MiningStats(NamedTuple):
    """Figures of how mining a shard came out.

    Attributes:
        questions: rows made.
        kept: rows among them that were kept from an earlier mining; `dropped` does not count theirs.
        found: number of negatives -> number of questions that got so many.
        slots_unfilled: negatives wanted and not found, all questions together.
        filled_beyond_margin: negatives that the margins do not allow: from `fallback_range_min` on,
            or found by a question whose gold scores 0.
        dropped: rule (of `RULES`) -> candidates it left out, among those looked at before a question
            had its negatives; rules that left out none are absent.
        margin_not_applicable: questions that a margin was set for and whose gold scores 0.
        by_gold: negatives found by the gold document's terms.
        gold_first: questions whose gold ranks first.
        gold_rank_mean, gold_rank_median: over the golds found; null if none was.
        gold_not_found: questions whose gold is not within the first `range_max` ranks.
        score_gap: quantile -> (gold score - best negative's score) / gold score, over the questions
            with a negative and a gold score above 0; empty if there are none.
    """

    questions: int
    kept: int
    found: dict[int, int]
    slots_unfilled: int
    filled_beyond_margin: int
    dropped: dict[str, int]
    margin_not_applicable: int
    by_gold: int
    gold_first: int
    gold_rank_mean: float | None
    gold_rank_median: float | None
    gold_not_found: int
    score_gap: dict[float, float]


def score_gaps(mined: pl.DataFrame) -> pl.Series:
    """Return (gold score - best negative's score) / gold score, a share, of each question that has both.

    Left out are questions whose gold scores 0, and those whose best negative was found by the gold's terms.

    >>> negatives = [[{"doc_id": "a", "score": 6.0, "rank": 2, "origin": "question"}]]
    >>> score_gaps(pl.DataFrame({"gold_score": [8.0], "negatives": negatives})).to_list()
    [0.25]
    """
    first = pl.col("negatives").list.first()
    best = first.struct.field("score")
    by_question = first.struct.field("origin") == BY_QUESTION
    return mined.filter(pl.col("gold_score") > 0, by_question).select(
        gap=(pl.col("gold_score") - best) / pl.col("gold_score")
    )["gap"]


def stats_of(
    mined: pl.DataFrame, options: MiningOptions, dropped: Counter[str], kept: int
) -> MiningStats:
    """Count how a mining came out.

    Args:
        mined: `schemas.HardNegatives`, the kept rows among them.
        options: that it was mined with.
        dropped: candidates left out, by rule.
        kept: rows that were kept from an earlier mining.
    """
    n_found = mined["negatives"].list.len()
    found = dict(sorted(Counter(n_found.to_list()).items()))
    ranks = mined["gold_rank"]
    beyond = (
        mined.select("gold_score", "negatives")
        .explode("negatives")
        .unnest("negatives")
        .filter(origin=BY_QUESTION)
        .select("gold_score", "score")
    )
    origins = mined["negatives"].explode().drop_nulls().struct.field("origin")
    gaps = score_gaps(mined)
    return MiningStats(
        questions=len(mined),
        kept=kept,
        found=found,
        slots_unfilled=sum((options.num_neg - n) * count for n, count in found.items()),
        filled_beyond_margin=sum(
            gold_score <= 0 or score_rule(score, gold_score, options) in MARGINS
            for gold_score, score in beyond.drop_nulls().iter_rows()
        )
        if options.has_margin
        else 0,
        dropped=dict(sorted(dropped.items())),
        margin_not_applicable=int((mined["gold_score"] <= 0).sum()) if options.has_margin else 0,
        by_gold=int((origins == BY_GOLD).sum()),
        gold_first=int((ranks == 1).sum()),
        gold_rank_mean=cast(float | None, ranks.mean()),
        gold_rank_median=cast(float | None, ranks.median()),
        gold_not_found=ranks.null_count(),
        score_gap={
            quantile: value
            for quantile in GAP_QUANTILES
            if (value := gaps.quantile(quantile, interpolation="linear")) is not None
        },
    )
