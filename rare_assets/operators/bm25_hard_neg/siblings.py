"""Passages of one parent, as of one file: which of them are no negatives of each other's questions."""

from __future__ import annotations

from typing import Literal

import polars as pl

from rare_assets.text.titled import titled
from rare_assets.text.words import content_words_in, pieces_in

SameParent = Literal["allow", "exclude"]
SAME_PARENT, HOLDS_ANSWER = "same_parent", "same_parent_holds_answer"
# A sibling holds an answer if it has this share of the answer's words, and this share of those words
# of the question that the gold document has: the first alone is common for answers of one word.
_ANSWER_SHARE = 0.8
_QUESTION_SHARE = 0.5


class Siblings:
    """Tells which siblings of a question's gold document are left out of its negatives.

    Args:
        questions: `question_id, doc_id, question, reference_answer`.
        documents: `doc_id, parent_id, title, text` of the questions' shards. Passages of one parent
            stand in one shard.
        same_parent: "exclude" leaves out every sibling; "allow" those that hold the answer.
    """

    def __init__(
        self, questions: pl.DataFrame, documents: pl.DataFrame, same_parent: SameParent
    ) -> None:
        golds = questions.select("doc_id").unique()
        parents = documents.join(golds, on="doc_id", how="semi").select("parent_id").drop_nulls()
        family = documents.join(parents.unique(), on="parent_id", how="semi")
        self._parents: dict[str, str] = dict(family.select("doc_id", "parent_id").iter_rows())
        self._passages = {
            doc_id: titled(title, text)
            for doc_id, title, text in family.select("doc_id", "title", "text").iter_rows()
        }
        asked = questions.select("question_id", "doc_id", "question", "reference_answer")
        self._asked = {question_id: rest for question_id, *rest in asked.iter_rows()}
        self._excluded = same_parent == "exclude"
        self._words: dict[str, frozenset[str]] = {}
        # Of each question, the words of its answer, and those of its own that its gold document has.
        self._wanted: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def rule(self, question_id: str, doc_id: str) -> str | None:
        """Return the rule that leaves a document out of a question's negatives; None if none does."""
        gold, question, answer = self._asked[question_id]
        parent = self._parents.get(gold)
        if parent is None or self._parents.get(doc_id) != parent:
            return None
        if self._excluded:
            return SAME_PARENT
        if answer is None:
            return None
        if question_id not in self._wanted:
            told = frozenset(content_words_in(question)) & self._words_of(gold)
            self._wanted[question_id] = pieces_in(answer), told
        in_answer, told = self._wanted[question_id]
        words = self._words_of(doc_id)
        holds = _share(in_answer, words) >= _ANSWER_SHARE
        return HOLDS_ANSWER if holds and _share(told, words) >= _QUESTION_SHARE else None

    def _words_of(self, doc_id: str) -> frozenset[str]:
        if doc_id not in self._words:
            passage = self._passages[doc_id]
            self._words[doc_id] = pieces_in(passage) | frozenset(content_words_in(passage))
        return self._words[doc_id]


def _share(words: frozenset[str], among: frozenset[str]) -> float:
    """Return the share of some words that stand among others; 1 for no words."""
    return len(words & among) / len(words) if words else 1.0
