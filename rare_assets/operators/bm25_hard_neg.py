"""BM25HardNeg: for each question, documents that BM25 ranks high and that are not its gold document."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, cast

import polars as pl

from rare_assets.operators.siblings import HOLDS_ANSWER, SAME_PARENT, SameParent, Siblings
from rare_assets.retriever import PAIRS, QUERIES, Retriever
from rare_assets.schemas import HardNegatives, HardNegativesRejects, Produced
from rare_assets.text.titled import titled
from rare_assets.text.words import pieces_in

DEFAULT_RELATIVE_MARGIN = 0.2
DEFAULT_FALLBACK_RANGE_MIN = 20
DEFAULT_NEAR_DUPLICATE_THRESHOLD = 0.8

Query = Literal["question", "scenario_question", "gold", "fused"]
QUERIES_OF = ("question", "scenario_question", "gold", "fused")
BY_QUESTION, BY_GOLD = "question", "gold"
# Ranks by the gold that are skipped where the question missed it: what is nearest to the gold answers the
# question often. On Cranfield 7.4 % of the negatives are relevant with 15 (8.2 % with 10, 11.6 % with 0), where
# low ranks by the question had 8.0 %; a search with the gold's text has them at rank 68 in place of 144.
MISSED_RANGE_MIN = 15
# Reciprocal rank fusion: a rank counts 1 / (60 + rank) (Cormack, Clarke, Buettcher, SIGIR 2009).
_FUSION = 60

# What may leave a candidate out, in the order in which it is tried.
RULES = (
    *("twin_of_gold", "same_text", SAME_PARENT, HOLDS_ANSWER, "max_score", "min_score", "absolute_margin", "relative_margin"),
    *("near_duplicate_of_gold", "near_duplicate_of_negative", "judged_relevant", "judge_undecided"),
)

_BATCH = 1_000
# Elasticsearch's index.max_result_window: no engine is asked for more hits than that.
_MAX_DEPTH = 10_000
_MARGINS = ("absolute_margin", "relative_margin")
GAP_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_VERDICTS = {True: "judged_relevant", None: "judge_undecided", False: None}


class MiningStats(NamedTuple):
    """What mining a shard came to.

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


class Considered(NamedTuple):
    """A document that was ranked for a question, and what became of it.

    Attributes:
        doc_id: the document.
        origin: the ranking that puts it highest, by the question or by its gold.
        rank: in that ranking, from 1.
        score: in that ranking.
        outcome: `taken`, `gold`, the rule that left it out (`RULES`), `range_min`, `range_max`, or
            `not_needed`, where the negatives were complete before it.
    """

    doc_id: str
    origin: str
    rank: int
    score: float
    outcome: str


class MinedNegatives(NamedTuple):
    """The table's rows and rejects, and figures about how they came out."""

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
    text that ranks higher already and passages of the gold's own parent that hold the answer; of what remains, ranks `range_min` to `range_max` are candidates
    (counted from 0, the end not included); scores and margins leave out candidates; near-duplicates
    are left out; then the best are taken, or a random choice. Where margins leave fewer than
    `num_neg`, as for a gold that itself ranks low, candidates from rank `fallback_range_min` on make
    up for it. What `is_relevant` objects to is replaced by the next candidate, which is judged in
    its turn. A question that still has fewer keeps what there is, possibly nothing.

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
    3 are; with the defaults 8 to 25 %, 0.22 to 0.44 times as many, at a mean rank of 27 to 32; for
    golds in the top 10, 14 to 51 %, 0.33 to 0.60 times as many, at rank 13 to 23. Every question
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
            smaller set (where a script sets no blanks: neighbouring letters, `pieces_in`). 0: off. None: 0.8 while `relative_margin` is on, else off.
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
    """
    options = _Options(
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
        near_duplicate_threshold=_threshold(near_duplicate_threshold, relative_margin),
    )
    _check(options, query)
    kept: pl.DataFrame = HardNegatives.create_empty()
    if earlier is not None:
        kept = _still_holding(earlier, _queries(questions, query), num_neg, retriever)
    if relabel and is_relevant is None:
        raise ValueError("relabel needs a judge of relevance (is_relevant).")
    order = questions.select("question_id")
    questions = questions.join(kept, on="question_id", how="anti", maintain_order="left")
    rows: list[pl.DataFrame] = [kept]
    rejects: list[pl.DataFrame] = [HardNegativesRejects.create_empty()]
    dropped: Counter[str] = Counter()
    for batch in questions.iter_slices(_BATCH):
        siblings = Siblings(batch, documents, same_parent) if documents is not None else None
        work = _Batch(
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
        _stats(mined, options, dropped, len(kept)),
    )


class _Options(NamedTuple):
    num_neg: int
    range_min: int
    range_max: int
    max_score: float | None
    min_score: float | None
    absolute_margin: float | None
    relative_margin: float | None
    fallback_range_min: int | None
    sampling_strategy: str
    seed: int
    near_duplicate_threshold: float | None

    @property
    def has_margin(self) -> bool:
        return self.absolute_margin is not None or self.relative_margin is not None


class _Hits(NamedTuple):
    """One question's hits by column, best first, so the first has rank 1."""

    doc_ids: list[str]
    text_hashes: list[str]
    scores: list[float]

    def score_of(self, gold: _Gold) -> float | None:
        """The score of a gold document, or of its best twin; None where neither is a hit."""
        if gold.doc_id in self.doc_ids:
            return self.scores[self.doc_ids.index(gold.doc_id)]
        if gold.text_hash in self.text_hashes:
            return self.scores[self.text_hashes.index(gold.text_hash)]
        return None


class _Scored(NamedTuple):
    """A hit in one ranking, and what the gold document scores in it, None where that is not known."""

    origin: str
    rank: int
    score: float
    gold_score: float | None


class _Candidates(NamedTuple):
    """What is ranked, best first: `scored` has each document in the ranking that puts it highest, then in
    the other, if that has it, too."""

    doc_ids: list[str]
    text_hashes: list[str]
    scored: list[list[_Scored]]


class _Gold(NamedTuple):
    doc_id: str
    text_hash: str
    score: float | None
    rank: int | None


class _Ranking(NamedTuple):
    """One question's candidates, best first.

    Attributes:
        found: what was found.
        candidates: their places among the hits.
        rules: what leaves a hit out, None if nothing does; one for each hit.
        n_first: so many hits come first, whatever else is said: by the gold, where the question missed it.
        low_from: from this place on, a fallback may take what margins leave out.
        complete: a deeper search adds nothing.
    """

    found: _Candidates
    candidates: list[int]
    rules: list[str | None]
    n_first: int
    low_from: int
    complete: bool


class _Picked(NamedTuple):
    """A choice of negatives, as places among the hits.

    Attributes:
        chosen: the negatives.
        left_out: each place that was tried in vain, and the rule that left it out, in order.
        relevant: the places left out as judged relevant.
        lacking: documents whose texts it takes to go on.
    """

    chosen: list[int]
    left_out: list[tuple[int, str]]
    relevant: list[int]
    lacking: list[str]


class _Negative(NamedTuple):
    doc_id: str
    score: float
    rank: int
    origin: str


def _threshold(threshold: float | None, relative_margin: float | None) -> float | None:
    if threshold is None:
        return DEFAULT_NEAR_DUPLICATE_THRESHOLD if relative_margin else None
    return threshold or None


def require_ranks(num_neg: int, range_min: int, range_max: int) -> None:
    """Raise ValueError unless the ranks that are considered can hold so many negatives."""
    if range_min < 0 or range_max > _MAX_DEPTH or range_max - range_min < num_neg:
        raise ValueError(
            f"range_min={range_min} to range_max={range_max} must hold num_neg={num_neg} ranks or "
            f"more, within 0 to {_MAX_DEPTH}."
        )


def _check(options: _Options, query: str) -> None:
    def require(condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(message)

    require(options.num_neg >= 1, f"num_neg must be at least 1, not {options.num_neg}.")
    require_ranks(options.num_neg, options.range_min, options.range_max)
    for name in ("relative_margin", "near_duplicate_threshold"):
        value = getattr(options, name)
        require(value is None or 0 < value <= 1, f"{name} must be between 0 and 1, not {value}.")
    require(
        (options.fallback_range_min or 0) >= 0,
        f"fallback_range_min must be at least 0, not {options.fallback_range_min}.",
    )
    require(
        query in QUERIES_OF,
        f"query must be one of {', '.join(QUERIES_OF)}, not {query!r}.",
    )
    require(
        options.sampling_strategy in ("top", "random"),
        f"sampling_strategy must be 'top' or 'random', not {options.sampling_strategy!r}.",
    )


def _queries(questions: pl.DataFrame, query: str) -> pl.DataFrame:
    """`question_id, doc_id, query`: what each question is searched with, beside its gold's terms."""
    return questions.select("question_id", "doc_id", query=searched_with(query))


def searched_with(query: str) -> pl.Expr:
    """What of a question stands in a search, by the option `query`."""
    if query != "scenario_question":
        return pl.col("question")
    return pl.concat_str("scenario", "question", separator=" ").str.strip_chars_start()


def _still_holding(
    earlier: pl.DataFrame, queries: pl.DataFrame, num_neg: int, retriever: Retriever
) -> pl.DataFrame:
    """The rows of an earlier mining that need not be mined anew."""
    whole = with_all_negatives(earlier, num_neg).join(
        queries, on=["question_id", "doc_id", "query"], how="semi"
    )
    gone = no_longer_held(one_a_row(whole), retriever)
    return whole.join(gone, on="question_id", how="anti", maintain_order="left")


def with_all_negatives(mined: pl.DataFrame, num_neg: int) -> pl.DataFrame:
    """The rows of `schemas.HardNegatives` that have `num_neg` negatives."""
    return mined.filter(pl.col("hard_negatives").list.len() == num_neg)


def one_a_row(mined: pl.DataFrame) -> pl.DataFrame:
    """`question_id, doc_id, text, title` of every negative of `schemas.HardNegatives`."""
    no_titles = pl.lit(None, pl.String).repeat_by(pl.col("hard_negatives").list.len())
    return mined.select(
        "question_id",
        doc_id=pl.col("negatives").list.eval(pl.element().struct.field("doc_id")),
        text=pl.col("hard_negatives"),
        title=pl.coalesce("hard_negative_titles", no_titles),
    ).explode("doc_id", "text", "title")


def no_longer_held(negatives: pl.DataFrame, retriever: Retriever) -> pl.DataFrame:
    """Those of some negatives, as `one_a_row` gives them, that the index lacks or has another text or title of."""
    if negatives.is_empty():
        return negatives
    held = retriever.texts(negatives["doc_id"].unique(maintain_order=True))
    return negatives.join(held, on=["doc_id", "text", "title"], how="anti", nulls_equal=True)


class _Batch:
    """Some questions mined together, so that hits, scores and texts are asked for in bulk."""

    def __init__(
        self,
        questions: pl.DataFrame,
        query: str,
        retriever: Retriever,
        options: _Options,
        is_relevant: Callable[[pl.DataFrame], Sequence[bool | None]] | None,
        *,
        siblings: Siblings | None,
        relabel: bool,
        trace: Callable[[str, list[Considered]], None] | None,
    ) -> None:
        self._trace = trace
        self._siblings = siblings
        self._retriever = retriever
        self._options = options
        self._query = query
        self._relabel = relabel
        self._is_relevant = is_relevant
        self._questions = questions
        self._queries = _queries(questions, query)
        columns = questions.select("question_id", "doc_id", "text_hash")
        self._golds = {
            question_id: _Gold(doc_id, text_hash, None, None)
            for question_id, doc_id, text_hash in columns.iter_rows()
        }
        self._chosen: dict[str, list[_Negative]] = {}
        self._relevant: dict[str, list[str]] = {}
        self._verdicts: dict[tuple[str, str], bool | None] = {}
        # Each question's hits by its gold's best terms, where those were searched for, and how deep.
        self._by_gold: dict[str, tuple[_Hits, int]] = {}
        self._texts: dict[str, str] = {}
        self._titles: dict[str, str | None] = {}
        self._words: dict[str, frozenset[str]] = {}

    def mine(self, dropped: Counter[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows and the rejects, in the questions' order; adds to `dropped`.

        Most questions have their negatives after a shallow search; the others are searched again,
        deeper, and chosen for anew, so that the depth never shows in the result.
        """
        pending, unranked = list(self._golds), set(self._golds)
        for depth in _depths(self._options, whole=self._query == "fused"):
            found = self._search(pending, depth)
            # A gold that may still turn up deeper has no rank yet: its question is searched again.
            settled = self._settle_golds({q: found[q] for q in pending if q in unranked}, depth)
            unranked -= settled
            ready = [
                question_id
                for question_id in pending
                if question_id not in unranked and self._golds[question_id].score is not None
            ]
            missed = [question_id for question_id in ready if self._is_missed(question_id)]
            self._search_by_gold(missed, self._options.range_max)
            if self._query in ("gold", "fused"):
                self._search_by_gold(ready, depth)
            rankings = {
                question_id: self._rank(question_id, found[question_id], depth)
                for question_id in ready
            }
            unfilled = self._pick_all(rankings, dropped)
            pending = [q for q in pending if q in unranked or q in unfilled]
            if not pending:
                break
        needed = {one.doc_id for chosen in self._chosen.values() for one in chosen}
        if self._relabel:
            needed.update(*self._relevant.values())
        self._fetch(needed)
        return self._rows(), self._rejects()

    def _search(self, question_ids: list[str], depth: int) -> dict[str, _Hits]:
        queries = self._queries.filter(pl.col("question_id").is_in(question_ids))
        hits = self._retriever.search(queries.select(list(QUERIES)), depth=depth)
        return _by_question(hits, question_ids)

    def _needs_gold(self, question_id: str) -> bool:
        """Whether a question's candidates come from a search with its gold's terms, too."""
        return self._query in ("gold", "fused") or self._is_missed(question_id)

    def _is_missed(self, question_id: str) -> bool:
        """Whether the ranking by the question missed the subject, and another may fill up for it."""
        options, gold = self._options, self._golds[question_id]
        fills_up = options.fallback_range_min is not None
        fills_up &= options.has_margin or self._is_relevant is not None
        return fills_up and (gold.rank is None or not gold.score)

    def _search_by_gold(self, question_ids: list[str], depth: int) -> None:
        """Search with the best terms of these questions' golds, no deeper than before where that was
        all."""
        depth = max(depth, 2)
        asked = [
            question_id
            for question_id in question_ids
            if (before := self._by_gold.get(question_id)) is None or before[1] < depth
        ]
        if not asked:
            return
        golds = {question_id: self._golds[question_id].doc_id for question_id in asked}
        self._fetch(set(golds.values()))
        texts = {
            question_id: titled(self._titles[doc_id], self._texts[doc_id])
            for question_id, doc_id in golds.items()
        }
        queries = pl.DataFrame({"question_id": list(texts), "query": list(texts.values())})
        found = _by_question(self._retriever.search_like(queries, depth=depth), asked)
        self._by_gold.update({question_id: (hits, depth) for question_id, hits in found.items()})

    def _settle_golds(self, found: Mapping[str, _Hits], depth: int) -> set[str]:
        """Note rank and score of the golds among the hits, and the score of those that can't come.

        Returns the questions settled; a gold that the index lacks keeps a score of None.
        """
        within = self._options.range_max
        settled, absent = set(), []
        for question_id, hits in found.items():
            gold = self._golds[question_id]
            if gold.doc_id in (within_range := hits.doc_ids[:within]):
                place = within_range.index(gold.doc_id)
                self._golds[question_id] = gold._replace(score=hits.scores[place], rank=place + 1)
                settled.add(question_id)
            elif depth >= within or len(hits.doc_ids) < depth:
                absent.append(question_id)
        if absent:
            pairs = self._queries.filter(pl.col("question_id").is_in(absent))
            scores = self._retriever.score(pairs.select(list(PAIRS)))
            for question_id, score in scores.select("question_id", "score").iter_rows():
                self._golds[question_id] = self._golds[question_id]._replace(score=score)
        return settled.union(absent)

    def _rank(self, question_id: str, hits: _Hits, depth: int) -> _Ranking:
        options, gold = self._options, self._golds[question_id]
        fallback = _MAX_DEPTH if options.fallback_range_min is None else options.fallback_range_min
        found, n_first, n_hits = self._candidates(question_id, hits)
        candidates: list[int] = []
        rules: list[str | None] = [None] * len(found.doc_ids)
        low_from = len(found.doc_ids)
        seen: set[str] = set()
        counts = [0, 0]
        for place, (doc_id, text_hash, scored) in enumerate(zip(*found, strict=True)):
            part = int(place >= n_first)
            if counts[part] == options.range_max or doc_id == gold.doc_id:
                continue
            if text_hash == gold.text_hash:
                rules[place] = "twin_of_gold"
            elif text_hash in seen:
                rules[place] = "same_text"
            elif rule := self._siblings and self._siblings.rule(question_id, doc_id):
                rules[place] = rule
            else:
                seen.add(text_hash)
                counts[part] += 1
                if counts[part] <= options.range_min:
                    continue
                broken = (_score_rule(one.score, one.gold_score or 0.0, options) for one in scored)
                rules[place] = next(filter(None, broken), None)
                if part and counts[part] > fallback:
                    low_from = min(low_from, place)
            candidates.append(place)
        full = (
            count == options.range_max or n < depth for count, n in zip(counts, n_hits, strict=True)
        )
        complete = all(full) or depth >= _MAX_DEPTH
        return _Ranking(found, candidates, rules, n_first, low_from, complete)

    def _candidates(self, question_id: str, hits: _Hits) -> tuple[_Candidates, int, list[int]]:
        """What a question's negatives are chosen from, how many of it come first, and the hits of the
        searches for both parts."""
        gold = self._golds[question_id]
        by_question = _scored(BY_QUESTION, hits, gold.score)
        if not self._needs_gold(question_id):
            return _fused(by_question), 0, [0, len(hits.doc_ids)]
        like_gold, _ = self._by_gold[question_id]
        by_gold = _scored(BY_GOLD, like_gold, like_gold.score_of(gold))
        if self._is_missed(question_id):
            # What is of the subject first; what the question found makes up for what is lacking.
            most = self._options.range_max
            near = _first(by_gold, MISSED_RANGE_MIN)
            first = {d: one for d, one in _first(by_gold, most).items() if d not in near}
            if self._query == "gold":
                first = {}
            rest = by_gold if self._query == "gold" else by_question
            both = {**first, **{d: found for d, found in rest.items() if d not in first}}
            n_hits = like_gold if self._query == "gold" else hits
            return _in_order(both), len(first), [0, len(n_hits.doc_ids)]
        if self._query == "fused":
            most = self._options.range_max
            return _fused(_first(by_question, most), _first(by_gold, most)), 0, [0, 0]
        return _fused(by_gold), 0, [0, len(like_gold.doc_ids)]

    def _pick_all(self, rankings: Mapping[str, _Ranking], dropped: Counter[str]) -> set[str]:
        """Choose for each ranking; returns the questions that need a deeper search for it."""
        waiting, unfilled = list(rankings), set()
        while waiting:
            lacking: set[str] = set()
            unjudged: list[tuple[str, str]] = []
            still_waiting = []
            for question_id in waiting:
                ranking = rankings[question_id]
                if not ranking.complete and self._needs_whole(question_id):
                    unfilled.add(question_id)
                    continue
                picked = self._pick(question_id, ranking)
                if picked.lacking:
                    lacking.update(picked.lacking)
                    still_waiting.append(question_id)
                elif len(picked.chosen) < self._options.num_neg and not ranking.complete:
                    unfilled.add(question_id)
                elif pairs := self._unjudged(question_id, ranking, picked):
                    unjudged += pairs
                    still_waiting.append(question_id)
                else:
                    self._take(question_id, ranking, picked)
                    dropped.update(rule for _, rule in picked.left_out)
            if lacking:
                self._fetch(lacking)
            elif unjudged:  # all that need a judgement have their texts: one call for them
                self._judge(unjudged)
            waiting = still_waiting
        return unfilled

    def _take(self, question_id: str, ranking: _Ranking, picked: _Picked) -> None:
        doc_ids, scored = ranking.found.doc_ids, ranking.found.scored
        self._chosen[question_id] = [
            _Negative(doc_ids[place], best.score, best.rank, best.origin)
            for place in sorted(picked.chosen)
            for best in scored[place][:1]
        ]
        self._relevant[question_id] = [doc_ids[place] for place in sorted(picked.relevant)]
        if self._trace is not None:
            self._trace(question_id, self._considered(question_id, ranking, picked))

    def _considered(self, question_id: str, ranking: _Ranking, picked: _Picked) -> list[Considered]:
        """What became of every document that was ranked."""
        left_out, chosen = dict(picked.left_out), set(picked.chosen)
        candidates, gold = set(ranking.candidates), self._golds[question_id]
        beyond = max(ranking.candidates, default=-1)
        found = []
        for place, (doc_id, _, scored) in enumerate(zip(*ranking.found, strict=True)):
            if place in chosen:
                outcome = "taken"
            elif doc_id == gold.doc_id:
                outcome = "gold"
            elif rule := left_out.get(place):
                outcome = rule
            elif place in candidates:
                outcome = ranking.rules[place] or "not_needed"
            else:
                outcome = "range_max" if place > beyond else "range_min"
            best = scored[0]
            found.append(Considered(doc_id, best.origin, best.rank, best.score, outcome))
        return found

    def _needs_whole(self, question_id: str) -> bool:
        """Whether a choice takes the whole ranking, not only its top."""
        options = self._options
        return options.sampling_strategy == "random" or (
            options.has_margin and not self._golds[question_id].score
        )

    def _order(self, question_id: str, ranking: _Ranking) -> list[tuple[int, str | None]]:
        """The candidates' places in the order in which they are tried, with their rules."""
        options, rules = self._options, ranking.rules
        draw = random.Random(f"{options.seed}:{question_id}")
        is_random = options.sampling_strategy == "random"

        def drawn(places: list[int]) -> list[int]:
            if not is_random:
                return places
            out = [place for place in places if rules[place] is not None]
            return out + _shuffled([place for place in places if rules[place] is None], draw)

        first = drawn([place for place in ranking.candidates if place < ranking.n_first])
        rest = drawn([place for place in ranking.candidates if place >= ranking.n_first])
        if options.has_margin and not self._golds[question_id].score:
            rest = sorted(rest, key=lambda place: place < ranking.low_from)
        tried = [(place, rules[place]) for place in first + rest]
        if not ranking.complete:
            return tried
        fallback = [p for p in ranking.candidates if p >= ranking.low_from and rules[p] in _MARGINS]
        if is_random:
            fallback = _shuffled(fallback, draw)
        return tried + [(place, None) for place in fallback]

    def _pick(self, question_id: str, ranking: _Ranking) -> _Picked:
        options, gold = self._options, self._golds[question_id]
        doc_ids = ranking.found.doc_ids
        left_out: list[tuple[int, str]] = []
        chosen: list[int] = []
        relevant: list[int] = []
        order = self._order(question_id, ranking)
        for position, (place, rule) in enumerate(order):
            if rule is None and options.near_duplicate_threshold is not None:
                if doc_ids[place] not in self._texts or gold.doc_id not in self._texts:
                    ahead = [doc_ids[p] for p, rule in order[position:] if rule is None]
                    lacking = [doc_id for doc_id in ahead if doc_id not in self._texts]
                    # A few at once: a round of reading texts costs more than some that go unused.
                    lacking = lacking[: options.num_neg]
                    if gold.doc_id not in self._texts:
                        lacking.append(gold.doc_id)
                    return _Picked(chosen, left_out, relevant, lacking)
                others = [doc_ids[p] for p in chosen]
                rule = self._near_duplicate(
                    doc_ids[place], gold, others, options.near_duplicate_threshold
                )
            if rule is None and (pair := (question_id, doc_ids[place])) in self._verdicts:
                rule = _VERDICTS[self._verdicts[pair]]
                if self._verdicts[pair]:
                    relevant.append(place)
            if rule is not None:
                left_out.append((place, rule))
                continue
            chosen.append(place)
            if len(chosen) == options.num_neg:
                break
        return _Picked(chosen, left_out, relevant, [])

    def _unjudged(
        self, question_id: str, ranking: _Ranking, picked: _Picked
    ) -> list[tuple[str, str]]:
        """Pairs of question and chosen document that are still to be judged."""
        if self._is_relevant is None:
            return []
        pairs = [(question_id, ranking.found.doc_ids[place]) for place in sorted(picked.chosen)]
        return [pair for pair in pairs if pair not in self._verdicts]

    def _judge(self, pairs: list[tuple[str, str]]) -> None:
        assert self._is_relevant
        self._fetch({doc_id for _, doc_id in pairs})
        asked = (
            pl.DataFrame(
                [(*pair, self._titles[pair[1]], self._texts[pair[1]]) for pair in pairs],
                schema=dict.fromkeys(("question_id", "doc_id", "title", "text"), pl.String),
                orient="row",
            )
            .join(self._queries.drop("doc_id"), on="question_id", maintain_order="left")
            .join(
                self._questions.select("question_id", "question", "scenario"),
                on="question_id",
                maintain_order="left",
            )
            .select("question_id", "query", "question", "scenario", "doc_id", "title", "text")
        )
        verdicts = self._is_relevant(asked)
        if len(verdicts) != len(pairs):
            raise ValueError(f"is_relevant judged {len(verdicts)} of {len(pairs)} pairs.")
        self._verdicts.update(zip(pairs, verdicts, strict=True))

    def _near_duplicate(
        self, doc_id: str, gold: _Gold, chosen: list[str], threshold: float
    ) -> str | None:
        words = self._words_of(doc_id)
        if _overlap(words, self._words_of(gold.doc_id)) >= threshold:
            return "near_duplicate_of_gold"
        if any(_overlap(words, self._words_of(other)) >= threshold for other in chosen):
            return "near_duplicate_of_negative"
        return None

    def _words_of(self, doc_id: str) -> frozenset[str]:
        words = self._words.get(doc_id)
        if words is None:
            words = self._words[doc_id] = pieces_in(self._texts[doc_id])
        return words

    def _fetch(self, doc_ids: set[str]) -> None:
        lacking = doc_ids - self._texts.keys()
        if not lacking:
            return
        texts = self._retriever.texts(lacking)
        self._texts.update(texts.select("doc_id", "text").iter_rows())
        self._titles.update(texts.select("doc_id", "title").iter_rows())
        if gone := sorted(lacking - self._texts.keys()):
            raise RuntimeError(
                f"The index ranked or scored document {gone[0]!r} and then had no text for it: it "
                "changed while it was being mined. Wait for the index sync to end and run this "
                "shard again."
            )

    def _rows(self) -> pl.DataFrame:
        schema = HardNegatives.create_empty().schema
        golds = [
            (question_id, gold.score, gold.rank, self._relevant[question_id])
            for question_id, gold in self._golds.items()
            if question_id in self._chosen
        ]
        chosen = [
            (
                *(question_id, *negative),
                self._texts[negative.doc_id],
                self._titles[negative.doc_id],
            )
            for question_id, negatives in self._chosen.items()
            for negative in negatives
        ]
        negative = {
            "doc_id": pl.String,
            "score": pl.Float64,
            "rank": pl.Int64,
            "origin": pl.String,
        }
        texts = ("hard_negatives", "hard_negative_titles")
        lists = (
            pl.DataFrame(
                chosen,
                schema={"question_id": pl.String, **negative, **dict.fromkeys(texts, pl.String)},
                orient="row",
            )
            .group_by("question_id", maintain_order=True)
            .agg(*texts, negatives=pl.struct(*negative))
        )
        extra = {
            name: pl.Series(name, values, schema[name])
            for name, values in self._extra_positives().items()
        }
        of_gold = ("question_id", "gold_score", "gold_rank", "judged_relevant")
        return (
            pl.DataFrame(golds, schema={name: schema[name] for name in of_gold}, orient="row")
            .join(self._queries, on="question_id", maintain_order="left")
            .join(lists, on="question_id", how="left", maintain_order="left")
            .with_columns(pl.col(*texts, "negatives").fill_null([]), **extra)
            .select(schema.names())
        )

    def _extra_positives(self) -> dict[str, list[list[str] | None]]:
        """The columns of passages that are relabelled, a value a row."""
        relevant = [
            self._relevant[question_id]
            for question_id in self._golds
            if question_id in self._chosen
        ]
        if not self._relabel:
            nothing: list[list[str] | None] = [None] * len(relevant)
            return {"extra_positives": nothing, "extra_positive_ids": nothing}
        return {
            "extra_positives": [[self._texts[doc_id] for doc_id in ids] for ids in relevant],
            "extra_positive_ids": list(relevant),
        }

    def _rejects(self) -> pl.DataFrame:
        rows = [
            {
                "question_id": question_id,
                "doc_id": gold.doc_id,
                "reason": "gold_not_in_index",
                "detail": f"the index holds no document {gold.doc_id!r}",
            }
            for question_id, gold in self._golds.items()
            if gold.score is None
        ]
        return pl.DataFrame(rows, schema=HardNegativesRejects.create_empty().schema)


def _by_question(hits: pl.DataFrame, question_ids: list[str]) -> dict[str, _Hits]:
    found = {question_id: _Hits([], [], []) for question_id in question_ids}
    by_question = hits.group_by("question_id", maintain_order=True)
    for question_id, *columns in by_question.agg("doc_id", "text_hash", "score").iter_rows():
        found[question_id] = _Hits(*columns)
    return found


def _scored(origin: str, hits: _Hits, gold_score: float | None) -> dict[str, tuple[str, _Scored]]:
    """Hits of one ranking by document: hash of its text, and how it is ranked."""
    return {
        doc_id: (text_hash, _Scored(origin, rank, score, gold_score))
        for rank, (doc_id, text_hash, score) in enumerate(zip(*hits, strict=True), start=1)
    }


def _first(ranking: Mapping[str, tuple[str, _Scored]], most: int) -> dict[str, tuple[str, _Scored]]:
    """The best of a ranking: a rank beyond is none, however deep the search was."""
    return {doc_id: found for doc_id, found in ranking.items() if found[1].rank <= most}


def _in_order(ranking: Mapping[str, tuple[str, _Scored]]) -> _Candidates:
    hashes = [text_hash for text_hash, _ in ranking.values()]
    return _Candidates(list(ranking), hashes, [[one] for _, one in ranking.values()])


def _fused(*rankings: Mapping[str, tuple[str, _Scored]]) -> _Candidates:
    """Rankings as one, by the sum of 1 / (60 + rank); equal sums in the order of the rankings."""
    scored: dict[str, list[_Scored]] = {}
    hashes: dict[str, str] = {}
    for ranking in rankings:
        for doc_id, (text_hash, one) in ranking.items():
            hashes[doc_id] = text_hash
            scored.setdefault(doc_id, []).append(one)
    if len(rankings) > 1:
        scored = dict(
            sorted(
                scored.items(), key=lambda each: -sum(1 / (_FUSION + one.rank) for one in each[1])
            )
        )
        for each in scored.values():
            each.sort(key=lambda one: one.rank)
    return _Candidates(list(scored), [hashes[doc_id] for doc_id in scored], list(scored.values()))


def _depths(options: _Options, *, whole: bool) -> Iterator[int]:
    """How deep to search, one time after the other; `whole`: never less than all ranks considered."""
    # Room for the gold and a few twins, so that the second search is nearly always the last.
    full = min(options.range_max + 10, _MAX_DEPTH)
    first = options.range_min + 2 * options.num_neg + 10
    if options.sampling_strategy == "top" and first < full and not whole:
        yield first
    while full < _MAX_DEPTH:
        yield full
        full = min(2 * full, _MAX_DEPTH)
    yield _MAX_DEPTH


def _score_rule(score: float, gold_score: float, options: _Options) -> str | None:
    if options.max_score is not None and score > options.max_score:
        return "max_score"
    if options.min_score is not None and score < options.min_score:
        return "min_score"
    if gold_score <= 0:
        return None
    if options.absolute_margin is not None and score > gold_score - options.absolute_margin:
        return "absolute_margin"
    if options.relative_margin is not None and score > gold_score * (1 - options.relative_margin):
        return "relative_margin"
    return None


def _shuffled(places: list[int], draw: random.Random) -> list[int]:
    order = list(places)
    draw.shuffle(order)
    return order


def _overlap(words: frozenset[str], others: frozenset[str]) -> float:
    smaller = min(len(words), len(others))
    return len(words & others) / smaller if smaller else 0.0


def score_gaps(mined: pl.DataFrame) -> pl.Series:
    """(gold score - best negative's score) / gold score, of each question that has both in its own
    ranking."""
    first = pl.col("negatives").list.first()
    best = first.struct.field("score")
    by_question = first.struct.field("origin") == BY_QUESTION
    return mined.filter(pl.col("gold_score") > 0, by_question).select(
        gap=(pl.col("gold_score") - best) / pl.col("gold_score")
    )["gap"]


def _stats(mined: pl.DataFrame, options: _Options, dropped: Counter[str], kept: int) -> MiningStats:
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
            gold_score <= 0 or _score_rule(score, gold_score, options) in _MARGINS
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
