"""Stand-ins for what the operators talk to: a teacher that follows a script, a ranking that is given."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from rare_assets.retriever.interface import HITS, PAIRS, QUERIES, SCORES, TEXTS
from rare_assets.teacher.attempts import settled
from rare_assets.teacher.interface import (
    Answer,
    Ask,
    Outcome,
    TeacherStopped,
    Unusable,
    Usage,
)


def answer(content="", **fields) -> Answer:
    given = {
        "thinking": None,
        "finish_reason": "stop",
        "refusal": None,
        "model": "scripted-1",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "attempt": 0,
        "latency_s": 0.0,
        "reused": False,
    }
    return Answer(content=content, **(given | fields))


@dataclass
class ScriptedTeacher:
    """Answers from `script(ask, attempt)`, an Answer, a text, or None for a request refused.

    Outcomes come in an order shuffled by `shuffle`. `asked` keeps every ask in the order given.
    """

    script: Callable[[Ask, int], Answer | str | None]
    shuffle: int = 0
    stop_after: int | None = None
    asked: list[Ask] = field(default_factory=list)
    model: str = "scripted"
    usage: Usage = field(default_factory=Usage)

    async def ask_all(self, asks, use, *, max_attempts=3, progress=None):
        batch = list(asks)
        self.asked += batch
        random.Random(self.shuffle).shuffle(batch)
        for done, ask in enumerate(batch):
            if done == self.stop_after:
                raise TeacherStopped("the budget is spent")
            yield await self._outcome(ask, use, max_attempts)

    async def _outcome(self, ask, use, max_attempts):
        prompt_tokens = completion_tokens = attempts = 0
        given = value = reason = detail = None
        for attempt in range(max_attempts):
            scripted = self.script(ask, attempt)
            if scripted is None:
                reason, detail = "request_refused", "400: too long"
                break
            given = scripted if isinstance(scripted, Answer) else answer(scripted, attempt=attempt)
            attempts += 1
            prompt_tokens += given.prompt_tokens
            completion_tokens += given.completion_tokens
            try:
                value, reason, detail = await settled(use(ask, given)), None, None
                break
            except Unusable as unusable:
                reason, detail = unusable.reason, unusable.detail
        return Outcome(
            ask, value, given, attempts, prompt_tokens, completion_tokens, reason, detail
        )


@dataclass
class GivenRanking:
    """A retriever whose scores are given: query -> doc_id -> score, for documents doc_id -> text.

    Equal texts have equal hashes. `depths` keeps (depth, number of queries) of each search and
    `fetched` the documents whose texts were asked for.
    """

    texts_by_id: dict[str, str]
    scores: dict[str, dict[str, float]]
    depths: list[tuple[int, int]] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    forgotten: frozenset[str] = frozenset()

    def search(self, queries, *, depth):
        assert dict(queries.schema) == QUERIES
        self.depths.append((depth, len(queries)))
        rows = []
        for question_id, query in queries.iter_rows():
            ranking = sorted(self.scores.get(query, {}).items(), key=lambda s: (-s[1], s[0]))
            rows += [
                (question_id, rank, doc_id, text_hash(self.texts_by_id[doc_id]), score)
                for rank, (doc_id, score) in enumerate(ranking[:depth], start=1)
            ]
        return pl.DataFrame(rows, schema=HITS, orient="row")

    def search_like(self, texts, *, depth):
        """Scores of a document's text are given under "like <text>"."""
        hits = self.search(texts.with_columns(query="like " + pl.col("query")), depth=depth)
        self.depths[-1] = (-depth, len(texts))
        return hits

    def score(self, pairs):
        assert dict(pairs.schema) == PAIRS
        rows = [
            (
                question_id,
                doc_id,
                self.scores.get(query, {}).get(doc_id, 0.0) if doc_id in self.texts_by_id else None,
            )
            for question_id, query, doc_id in pairs.iter_rows()
        ]
        return pl.DataFrame(rows, schema=SCORES, orient="row")

    def texts(self, doc_ids):
        doc_ids = list(doc_ids)
        self.fetched += doc_ids
        rows = [(d, self.texts_by_id[d], None) for d in doc_ids if d not in self.forgotten]
        return pl.DataFrame(rows, schema=TEXTS, orient="row")


def text_hash(text: str) -> str:
    return f"hash of {text}"


def documents(*rows) -> pl.DataFrame:
    """Documents from dicts with at least `doc_id` and `text`."""
    return pl.DataFrame(
        [
            {
                "title": None,
                "question": None,
                "scenario": None,
                "answer": None,
                "text_hash": text_hash(row["text"]),
                "source": f"inline:{number}",
                "n_words": len(row["text"].split()),
            }
            | row
            for number, row in enumerate(rows, start=1)
        ],
        schema={
            "doc_id": pl.String,
            "text": pl.String,
            "title": pl.String,
            "question": pl.String,
            "scenario": pl.String,
            "answer": pl.String,
            "text_hash": pl.String,
            "source": pl.String,
            "n_words": pl.Int64,
        },
    )


def questions(*rows) -> pl.DataFrame:
    """Questions from dicts with at least `question_id`, `doc_id`, `text_hash` and `question`."""
    return pl.DataFrame(
        [
            {
                "scenario": "Somebody wonders.",
                "origin": "written",
                "reference_answer": None,
                "model": "scripted-1",
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "attempts": 1,
            }
            | row
            for row in rows
        ],
        schema={
            "question_id": pl.String,
            "doc_id": pl.String,
            "text_hash": pl.String,
            "question": pl.String,
            "scenario": pl.String,
            "origin": pl.String,
            "reference_answer": pl.String,
            "model": pl.String,
            "prompt_tokens": pl.Int64,
            "completion_tokens": pl.Int64,
            "attempts": pl.Int64,
        },
    )
