"""BM25HardNeg as one function over a frame of questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import polars as pl

from rare_assets.operators.bm25_hard_neg.batch import Batch, Considered
from rare_assets.operators.bm25_hard_neg.kept import queries_of, still_holding
from rare_assets.operators.bm25_hard_neg.options import (
    DEFAULT_FALLBACK_RANGE_MIN,
    DEFAULT_RELATIVE_MARGIN,
    MiningOptions,
    Query,
    check_options,
    duplicate_threshold,
)
from rare_assets.operators.bm25_hard_neg.siblings import SameParent, Siblings
from rare_assets.operators.bm25_hard_neg.stats import MiningStats, stats_of
from rare_assets.retriever import Retriever
from rare_assets.schemas import HardNegatives, HardNegativesRejects, Produced

_BATCH = 1_000


class MinedNegatives(NamedTuple):
    """Rows and rejects of `hard_negatives`, and figures about how they came out."""

    produced: Produced
    stats: MiningStats


def bm25_hard_neg(
    questions: pl.DataFrame,
    retriever: Retriever,
    *,
    num_neg: int = 3,
    query: Query = "question",
    range_min: int = 0,
    range_max: int = 100,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = DEFAULT_RELATIVE_MARGIN,
    fallback_range_min: int | None = DEFAULT_FALLBACK_RANGE_MIN,
    sampling_strategy: Literal["top", "random"] = "top",
    seed: int = 0,
    near_duplicate_threshold: float | None = None,
    same_parent: SameParent = "allow",
    documents: pl.DataFrame | None = None,
    is_relevant: Callable[[pl.DataFrame], Sequence[bool | None]] | None = None,
    relabel: bool = False,
    earlier: pl.DataFrame | None = None,
    progress: Callable[[int, int], None] | None = None,
    trace: Callable[[str, list[Considered]], None] | None = None,
) -> MinedNegatives:
    """Mine up to `num_neg` hard negatives a question from the ranking of the whole corpus.

    In this order: the gold document and every document with its text are left out, then every
    text that ranks higher already and passages of the gold's own parent that hold the answer; of what
    remains, ranks `range_min` to `range_max` are candidates (counted from 0, the end not included);
    scores and margins leave out candidates; near-duplicates are left out; then the best are taken, or
    a random choice. Where margins leave fewer than `num_neg`, as for a gold that itself ranks low,
    candidates from rank `fallback_range_min` on make up for it. What `is_relevant` objects to is
    replaced by the next candidate, which is judged in its turn. A question that still has fewer keeps
    what there is, possibly nothing.

    The ranking is by the question, by the gold document's best terms (so that a question in other words
    than its document's still gets passages of the subject), or by both. Where a ranking by the question
    missed the subject, since the gold is not within `range_max` or scores 0, the one by the gold takes its
    place. Scores and margins are compared within each ranking.

    The options are named and meant as in sentence-transformers' `mine_hard_negatives`, but for two:
    a `relative_margin` of 0 is off, and so is the near-duplicate rule then unless it is set; and
    there is no fallback there. So `relative_margin=0, range_min=0` gives plain BM25HardNeg: the
    best-ranked texts but the gold's.

    Many of the best-ranked texts are relevant themselves. On five public collections (Cranfield,
    CACM, MED, NPL, CISI; every relevant document taken for the gold once) 36 to 76 % of plain top
    3 are; with the defaults 7 to 27 %, 0.20 to 0.47 times as many, at a mean rank of 23 to 30; for
    golds in the top 10, 14 to 51 %, 0.33 to 0.61 times as many, at rank 13 to 23. Every question
    had its three. A higher margin, or a `range_min`, leaves fewer and easier ones.

    Args:
        questions: `schemas.Questions`.
        retriever: an index that holds the whole corpus.
        num_neg: negatives a question at most.
        query: search with the question alone, with scenario and question, with the gold document's best
            terms, or "fused": reciprocal rank fusion of question and gold.
        range_min: candidates to skip at the top.
        range_max: candidates considered end here, at most 10,000; `gold_rank` is null beyond it.
        max_score, min_score: keep scores of at most, at least this much. None: off.
        absolute_margin: keep scores <= gold score - this; 0 means not above the gold. None: off.
        relative_margin: keep scores <= gold score * (1 - this). None or 0: off. Neither margin
            applies to a question whose gold scores 0, since a share of nothing bounds nothing: it
            gets what is found by its gold, then candidates from `fallback_range_min` on, then those above.
        fallback_range_min: slots that margins leave empty are filled with candidates ranked from
            here on, counted as `range_min` is, after those that are found by the gold's terms where the
            question missed its gold. None: such slots stay empty.
        sampling_strategy: "top" takes the best candidates, "random" draws among all of them; a draw
            depends on `seed` and the question_id, not on the shard or the order of the rows.
        near_duplicate_threshold: leave out a candidate whose words (the set of them) and those of
            the gold, or of a negative chosen before it, overlap by at least this share of the
            smaller set (where a script sets no blanks: neighbouring letters, `pieces_in`). 0: off.
            None: 0.8 while `relative_margin` is on, else off.
        same_parent: "exclude" leaves out every passage of the gold's parent; "allow" those only that
            hold the answer, by the words that they share with the reference answer and the question.
        documents: `doc_id, parent_id, title, text` of the questions' shards, which tell what has one
            parent. None: no passage is left out for its parent.
        is_relevant: judges whether passages answer questions. Called with a frame of `question_id,
            query, question, scenario, doc_id, title, text` (`query` as searched), one row a pair that would
            be taken and was not judged before; returns for each row True, False, or None for
            undecided. The relevant are left out and noted in `judged_relevant`, the undecided are
            left out as well. One call has all pairs that a batch of 1,000 questions needs at once;
            the next has their replacements. None: nothing is judged.
        relabel: name the texts of `judged_relevant` as `extra_positives`: a passage that answers the
            question is a further positive (RLHN, Thakur et al. 2025; ReasonEmbed, Chen et al. 2025).
        earlier: `schemas.HardNegatives` mined with the same options from an earlier state of the
            corpus. Its rows that still hold are kept, and only the other questions are mined: rows
            with all their negatives, searched with the same words, every negative still in the index
            with the same text. So a corpus that grows by a little leaves prompts made from them,
            and paid answers to those, as they are. None: all are mined.
        progress: called with (questions done, questions in all) after each batch of 1,000.
        trace: called once for each question that is mined, with what was ranked for it, best first.

    Returns:
        `schemas.HardNegatives` in the questions' order, best negative first;
        `schemas.HardNegativesRejects` with reason `gold_not_in_index`; and figures.

    Raises:
        ValueError: an option is out of its range, or the ranks hold fewer than `num_neg`; or
            `is_relevant` gave more or fewer verdicts than it was asked for.
        RuntimeError: the index lost a document while it was being mined.

    See `rare_assets.operators` for an example.
    """
    options = MiningOptions(
        num_neg=num_neg,
        range_min=range_min,
        range_max=range_max,
        max_score=max_score,
        min_score=min_score,
        absolute_margin=absolute_margin,
        relative_margin=relative_margin or None,
        fallback_range_min=fallback_range_min,
        sampling_strategy=sampling_strategy,
        seed=seed,
        near_duplicate_threshold=duplicate_threshold(near_duplicate_threshold, relative_margin),
    )
    check_options(options, query)
    kept: pl.DataFrame = HardNegatives.create_empty()
    if earlier is not None:
        kept = still_holding(earlier, queries_of(questions, query), num_neg, retriever)
    if relabel and is_relevant is None:
        raise ValueError("relabel needs a judge of relevance (is_relevant).")
    order = questions.select("question_id")
    questions = questions.join(kept, on="question_id", how="anti", maintain_order="left")
    rows: list[pl.DataFrame] = [kept]
    rejects: list[pl.DataFrame] = [HardNegativesRejects.create_empty()]
    dropped: Counter[str] = Counter()
    siblings = Siblings(questions, documents, same_parent) if documents is not None else None
    for batch in questions.iter_slices(_BATCH):
        work = Batch(
            batch,
            query,
            retriever,
            options,
            is_relevant,
            siblings=siblings,
            relabel=relabel,
            trace=trace,
        )
        mined, missing = work.mine(dropped)
        rows.append(mined)
        rejects.append(missing)
        if progress is not None:
            progress(sum(map(len, rows)) + sum(map(len, rejects)), len(order))
    in_order = order.join(pl.concat(rows), on="question_id", maintain_order="left")
    mined = HardNegatives.validate(in_order)
    return MinedNegatives(
        Produced(mined, HardNegativesRejects.validate(pl.concat(rejects))),
        stats_of(mined, options, dropped, len(kept)),
    )
