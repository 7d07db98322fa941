"""Some questions mined together: searches, choices, judgements, rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import polars as pl

from rare_assets.operators.bm25_hard_neg.candidates import (
    BY_GOLD,
    BY_QUESTION,
    MISSED_RANGE_MIN,
    Candidates,
    Gold,
    Hits,
    Ranking,
    best_of,
    fused_rankings,
    hits_by_question,
    one_ranking,
    one_search,
    score_rules,
    scored_hits,
    search_depths,
)
from rare_assets.operators.bm25_hard_neg.kept import queries_of
from rare_assets.operators.bm25_hard_neg.options import MARGINS, MAX_DEPTH, MiningOptions
from rare_assets.operators.bm25_hard_neg.rows import Negative, negatives_of, rejects_of
from rare_assets.operators.bm25_hard_neg.siblings import Siblings
from rare_assets.operators.bm25_hard_neg.texts import Texts
from rare_assets.retriever import PAIRS, QUERIES, Retriever

_VERDICTS = {True: "judged_relevant", None: "judge_undecided", False: None}


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


class Batch:
    """Some questions mined together, so that hits, scores and texts are asked for in bulk.

    Args:
        questions: `schemas.Questions`, some of them.
        query: what is searched with.
        retriever: an index that holds the whole corpus.
        options: of the mining, checked.
        is_relevant, relabel, trace: see `bm25_hard_neg`.
        siblings: tells which passages of a gold's parent are left out; None for none.
    """

    def __init__(
        self,
        questions: pl.DataFrame,
        query: str,
        retriever: Retriever,
        options: MiningOptions,
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
        self._queries = queries_of(questions, query)
        columns = questions.select("question_id", "doc_id", "text_hash")
        self._golds = {
            question_id: Gold(doc_id, text_hash, None, None)
            for question_id, doc_id, text_hash in columns.iter_rows()
        }
        self._chosen: dict[str, list[Negative]] = {}
        self._relevant: dict[str, list[str]] = {}
        self._verdicts: dict[tuple[str, str], bool | None] = {}
        # Each question's hits by its gold's best terms, where those were searched for, and how deep.
        self._by_gold: dict[str, tuple[Hits, int]] = {}
        self._texts = Texts(retriever)

    def mine(self, dropped: Counter[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows and the rejects, in the questions' order, and count what was left out in `dropped`.

        Most questions have their negatives after a shallow search; the others are searched again,
        deeper, and chosen for anew, so that the depth never shows in the result.
        """
        pending, unranked = list(self._golds), set(self._golds)
        for depth in search_depths(self._options, whole=self._query == "fused"):
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
        self._texts.fetch(needed)
        rows = negatives_of(
            self._queries,
            self._golds,
            self._chosen,
            self._relevant,
            self._texts,
            relabel=self._relabel,
        )
        return rows, rejects_of(self._golds)

    def _search(self, question_ids: list[str], depth: int) -> dict[str, Hits]:
        queries = self._queries.filter(pl.col("question_id").is_in(question_ids))
        hits = self._retriever.search(queries.select(list(QUERIES)), depth=depth)
        return hits_by_question(hits, question_ids)

    def _needs_gold(self, question_id: str) -> bool:
        """Return whether a question's candidates come from a search with its gold's terms, too."""
        return self._query in ("gold", "fused") or self._is_missed(question_id)

    def _is_missed(self, question_id: str) -> bool:
        """Return whether the ranking by the question missed the subject, and another may fill up for it."""
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
        self._texts.fetch(set(golds.values()))
        texts = {question_id: self._texts.titled(doc_id) for question_id, doc_id in golds.items()}
        queries = pl.DataFrame({"question_id": list(texts), "query": list(texts.values())})
        found = hits_by_question(self._retriever.search_like(queries, depth=depth), asked)
        self._by_gold.update({question_id: (hits, depth) for question_id, hits in found.items()})

    def _settle_golds(self, found: Mapping[str, Hits], depth: int) -> set[str]:
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

    def _rank(self, question_id: str, hits: Hits, depth: int) -> Ranking:
        options, gold = self._options, self._golds[question_id]
        fallback = MAX_DEPTH if options.fallback_range_min is None else options.fallback_range_min
        found, n_first, n_hits = self._candidates(question_id, hits)
        candidates: list[int] = []
        rules = score_rules(found, options)
        low_from = len(found.doc_ids)
        seen: set[str] = set()
        counts = [0, 0]
        columns = zip(found.doc_ids, found.text_hashes, strict=True)
        for place, (doc_id, text_hash) in enumerate(columns):
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
                if part and counts[part] > fallback:
                    low_from = min(low_from, place)
            candidates.append(place)
        full = (
            count == options.range_max or n < depth for count, n in zip(counts, n_hits, strict=True)
        )
        complete = all(full) or depth >= MAX_DEPTH
        return Ranking(found, candidates, rules, n_first, low_from, complete)

    def _candidates(self, question_id: str, hits: Hits) -> tuple[Candidates, int, list[int]]:
        """Return what a question's negatives are chosen from, how many of it come first, and the hits of the
        searches for both parts."""
        gold = self._golds[question_id]
        if not self._needs_gold(question_id):
            return one_search(BY_QUESTION, hits, gold.score), 0, [0, len(hits.doc_ids)]
        like_gold, _ = self._by_gold[question_id]
        by_question = scored_hits(BY_QUESTION, hits, gold.score)
        by_gold = scored_hits(BY_GOLD, like_gold, like_gold.score_of(gold))
        if self._is_missed(question_id):
            # What is of the subject first; what the question found makes up for what is lacking.
            most = self._options.range_max
            near = best_of(by_gold, MISSED_RANGE_MIN)
            first = {d: one for d, one in best_of(by_gold, most).items() if d not in near}
            if self._query == "gold":
                first = {}
            rest = by_gold if self._query == "gold" else by_question
            both = {**first, **{d: found for d, found in rest.items() if d not in first}}
            n_hits = like_gold if self._query == "gold" else hits
            return one_ranking(both), len(first), [0, len(n_hits.doc_ids)]
        if self._query == "fused":
            most = self._options.range_max
            return fused_rankings(best_of(by_question, most), best_of(by_gold, most)), 0, [0, 0]
        return one_ranking(by_gold), 0, [0, len(like_gold.doc_ids)]

    def _pick_all(self, rankings: Mapping[str, Ranking], dropped: Counter[str]) -> set[str]:
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
                self._texts.fetch(lacking)
            elif unjudged:  # all that need a judgement have their texts: one call for them
                self._judge(unjudged)
            waiting = still_waiting
        return unfilled

    def _take(self, question_id: str, ranking: Ranking, picked: _Picked) -> None:
        doc_ids, scored = ranking.found.doc_ids, ranking.found.scored
        self._chosen[question_id] = [
            Negative(doc_ids[place], best.score, best.rank, best.origin)
            for place in sorted(picked.chosen)
            for best in scored[place][:1]
        ]
        self._relevant[question_id] = [doc_ids[place] for place in sorted(picked.relevant)]
        if self._trace is not None:
            self._trace(question_id, self._considered(question_id, ranking, picked))

    def _considered(self, question_id: str, ranking: Ranking, picked: _Picked) -> list[Considered]:
        """Return what became of every document that was ranked."""
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
        """Return whether a choice takes the whole ranking, not only its top."""
        options = self._options
        return options.sampling_strategy == "random" or (
            options.has_margin and not self._golds[question_id].score
        )

    def _order(self, question_id: str, ranking: Ranking) -> list[tuple[int, str | None]]:
        """Return the candidates' places in the order in which they are tried, with their rules."""
        options, rules = self._options, ranking.rules
        # Seeding takes longer than all the rest: only where something is drawn.
        is_random = options.sampling_strategy == "random"
        draw = random.Random(f"{options.seed}:{question_id}") if is_random else None

        def drawn(places: list[int]) -> list[int]:
            if draw is None:
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
        fallback = [p for p in ranking.candidates if p >= ranking.low_from and rules[p] in MARGINS]
        if draw is not None:
            fallback = _shuffled(fallback, draw)
        return tried + [(place, None) for place in fallback]

    def _pick(self, question_id: str, ranking: Ranking) -> _Picked:
        options, gold = self._options, self._golds[question_id]
        doc_ids = ranking.found.doc_ids
        left_out: list[tuple[int, str]] = []
        chosen: list[int] = []
        relevant: list[int] = []
        order = self._order(question_id, ranking)
        for position, (place, rule) in enumerate(order):
            if rule is None and options.near_duplicate_threshold is not None:
                if doc_ids[place] not in self._texts.texts or gold.doc_id not in self._texts.texts:
                    ahead = [doc_ids[p] for p, rule in order[position:] if rule is None]
                    lacking = [doc_id for doc_id in ahead if doc_id not in self._texts.texts]
                    # A few at once: a round of reading texts costs more than some that go unused.
                    lacking = lacking[: options.num_neg]
                    if gold.doc_id not in self._texts.texts:
                        lacking.append(gold.doc_id)
                    return _Picked(chosen, left_out, relevant, lacking)
                others = [doc_ids[p] for p in chosen]
                rule = self._texts.near_duplicate(
                    doc_ids[place], gold.doc_id, others, options.near_duplicate_threshold
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
        self, question_id: str, ranking: Ranking, picked: _Picked
    ) -> list[tuple[str, str]]:
        """Return the pairs of question and chosen document that are still to be judged."""
        if self._is_relevant is None:
            return []
        pairs = [(question_id, ranking.found.doc_ids[place]) for place in sorted(picked.chosen)]
        return [pair for pair in pairs if pair not in self._verdicts]

    def _judge(self, pairs: list[tuple[str, str]]) -> None:
        assert self._is_relevant
        self._texts.fetch({doc_id for _, doc_id in pairs})
        asked = (
            pl.DataFrame(
                [
                    (*pair, self._texts.titles[pair[1]], self._texts.texts[pair[1]])
                    for pair in pairs
                ],
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


def _shuffled(places: list[int], draw: random.Random) -> list[int]:
    order = list(places)
    draw.shuffle(order)
    return order
