"""Make one list of candidates of the hits of a question's searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from rare_assets.operators.bm25_hard_neg.options import MAX_DEPTH, MiningOptions, score_rule

BY_QUESTION, BY_GOLD = "question", "gold"


# Ranks by the gold that are skipped where the question missed it: what is nearest to the gold answers the
# question often. On Cranfield 7.4 % of the negatives are relevant with 15 (8.2 % with 10, 11.6 % with 0), where
# low ranks by the question had 8.0 %; a search with the gold's text has them at rank 68 in place of 144.
MISSED_RANGE_MIN = 15


# Reciprocal rank fusion: a rank counts 1 / (60 + rank) (Cormack, Clarke, Buettcher, SIGIR 2009).
_FUSION = 60


class Hits(NamedTuple):
    """One question's hits by column, best first, so the first has rank 1."""

    doc_ids: list[str]
    text_hashes: list[str]
    scores: list[float]

    def score_of(self, gold: Gold) -> float | None:
        """Return the score of a gold document, or of its best twin; None where neither is a hit."""
        if gold.doc_id in self.doc_ids:
            return self.scores[self.doc_ids.index(gold.doc_id)]
        if gold.text_hash in self.text_hashes:
            return self.scores[self.text_hashes.index(gold.text_hash)]
        return None


class Scored(NamedTuple):
    """A hit in one ranking, and what the gold document scores in it, None where that is not known."""

    origin: str
    rank: int
    score: float
    gold_score: float | None


class Candidates(NamedTuple):
    """Documents that are ranked, best first: `scored` has each in the ranking that puts it highest, then in
    the other, if that has it, too."""

    doc_ids: list[str]
    text_hashes: list[str]
    scored: Sequence[list[Scored]]


class _OneSearch(Sequence[list[Scored]]):
    """How the hits of one search are ranked: few of them are ever looked at."""

    def __init__(self, origin: str, scores: list[float], gold_score: float | None) -> None:
        self._origin, self.scores, self.gold_score = origin, scores, gold_score

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, place: Any) -> Any:
        return [Scored(self._origin, place + 1, self.scores[place], self.gold_score)]


class Gold(NamedTuple):
    """A question's gold document; score and rank (from 1) are None where the search has not found it."""

    doc_id: str
    text_hash: str
    score: float | None
    rank: int | None


class Ranking(NamedTuple):
    """One question's candidates, best first.

    Attributes:
        found: what was found.
        candidates: their places among the hits.
        rules: what leaves a candidate out, None if nothing does; one for each hit, and nothing is said of
            hits that are no candidates.
        n_first: so many hits come first, whatever else is said: by the gold, where the question missed it.
        low_from: from this place on, a fallback may take what margins leave out.
        complete: a deeper search adds nothing.
    """

    found: Candidates
    candidates: list[int]
    rules: list[str | None]
    n_first: int
    low_from: int
    complete: bool


def hits_by_question(hits: pl.DataFrame, question_ids: list[str]) -> dict[str, Hits]:
    """Return the hits of each question, best first; empty ones for a question without any.

    Args:
        hits: `question_id, doc_id, text_hash, score`, best first within a question.
        question_ids: the questions that were searched with.
    """
    found = {question_id: Hits([], [], []) for question_id in question_ids}
    by_question = hits.group_by("question_id", maintain_order=True)
    for question_id, *columns in by_question.agg("doc_id", "text_hash", "score").iter_rows():
        found[question_id] = Hits(*columns)
    return found


def scored_hits(origin: str, hits: Hits, gold_score: float | None) -> dict[str, tuple[str, Scored]]:
    """Return the hits of one ranking by doc_id: the hash of each text, and how it is ranked.

    >>> hits = Hits(["a", "b"], ["hash a", "hash b"], [9.0, 4.0])
    >>> scored_hits(BY_QUESTION, hits, gold_score=9.0)["b"]
    ('hash b', Scored(origin='question', rank=2, score=4.0, gold_score=9.0))
    """
    return {
        doc_id: (text_hash, Scored(origin, rank, score, gold_score))
        for rank, (doc_id, text_hash, score) in enumerate(zip(*hits, strict=True), start=1)
    }


def best_of(ranking: Mapping[str, tuple[str, Scored]], most: int) -> dict[str, tuple[str, Scored]]:
    """Return the first `most` of a ranking, however deep the search was."""
    return {doc_id: found for doc_id, found in ranking.items() if found[1].rank <= most}


def one_search(origin: str, hits: Hits, gold_score: float | None) -> Candidates:
    """Return the candidates of one search, in its order."""
    return Candidates(hits.doc_ids, hits.text_hashes, _OneSearch(origin, hits.scores, gold_score))


def score_rules(found: Candidates, options: MiningOptions) -> list[str | None]:
    """Return the rule that leaves each candidate out by a score; None where none does.

    >>> hits = Hits(["gold", "a", "b"], ["", "", ""], [9.0, 8.0, 4.0])
    >>> options = MiningOptions(3, 0, 100, None, None, None, 0.2, None, "top", 0, None)
    >>> score_rules(one_search(BY_QUESTION, hits, gold_score=9.0), options)
    ['relative_margin', 'relative_margin', None]
    """
    if isinstance(found.scored, _OneSearch):
        of_gold = found.scored.gold_score or 0.0
        return [score_rule(score, of_gold, options) for score in found.scored.scores]
    broken = (
        (score_rule(one.score, one.gold_score or 0.0, options) for one in scored)
        for scored in found.scored
    )
    return [next(filter(None, rules), None) for rules in broken]


def one_ranking(ranking: Mapping[str, tuple[str, Scored]]) -> Candidates:
    """Return the candidates of one ranking, in its order."""
    hashes = [text_hash for text_hash, _ in ranking.values()]
    return Candidates(list(ranking), hashes, [[one] for _, one in ranking.values()])


def fused_rankings(*rankings: Mapping[str, tuple[str, Scored]]) -> Candidates:
    """Fuse rankings into one, by the sum of 1 / (60 + rank).

    Equal sums stay in the order of the rankings. Reciprocal rank fusion: Cormack, Clarke, Buettcher,
    SIGIR 2009.

    >>> first = scored_hits(BY_QUESTION, Hits(["a", "b"], ["", ""], [9.0, 4.0]), None)
    >>> second = scored_hits(BY_GOLD, Hits(["b", "c"], ["", ""], [7.0, 6.0]), None)
    >>> fused_rankings(first, second).doc_ids
    ['b', 'a', 'c']
    """
    scored: dict[str, list[Scored]] = {}
    hashes: dict[str, str] = {}
    for ranking in rankings:
        for doc_id, (text_hash, one) in ranking.items():
            hashes[doc_id] = text_hash
            scored.setdefault(doc_id, []).append(one)
    scored = dict(
        sorted(scored.items(), key=lambda each: -sum(1 / (_FUSION + one.rank) for one in each[1]))
    )
    for each in scored.values():
        each.sort(key=lambda one: one.rank)
    return Candidates(list(scored), [hashes[doc_id] for doc_id in scored], list(scored.values()))


def search_depths(options: MiningOptions, *, whole: bool) -> Iterator[int]:
    """Yield how deep to search, in hits: a first depth, then deeper ones for what is still lacking.

    Args:
        options: of which the ranks and the number of negatives are looked at.
        whole: never search less deep than all ranks considered.
    """
    # Room for the gold and a few twins, so that the second search is nearly always the last.
    full = min(options.range_max + 10, MAX_DEPTH)
    first = options.range_min + 2 * options.num_neg + 10
    if options.sampling_strategy == "top" and first < full and not whole:
        yield first
    while full < MAX_DEPTH:
        yield full
        full = min(2 * full, MAX_DEPTH)
    yield MAX_DEPTH
