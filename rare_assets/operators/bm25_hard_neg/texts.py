"""Fetch the texts of the documents that negatives are chosen from in bulk, and tell what two have in common."""

from __future__ import annotations

from rare_assets.retriever import Retriever
from rare_assets.text.titled import titled
from rare_assets.text.words import pieces_in


class Texts:
    """The texts that some questions' candidates have, each fetched once.

    Args:
        retriever: has them.

    Attributes:
        texts: by doc_id.
        titles: by doc_id; None for a document without one.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self.texts: dict[str, str] = {}
        self.titles: dict[str, str | None] = {}
        self._words: dict[str, frozenset[str]] = {}

    def fetch(self, doc_ids: set[str]) -> None:
        """Fetch the texts of these documents, but for those that are here already.

        Raises:
            RuntimeError: the index has lost one of them.
        """
        lacking = doc_ids - self.texts.keys()
        if not lacking:
            return
        found = self._retriever.texts(lacking)
        self.texts.update(found.select("doc_id", "text").iter_rows())
        self.titles.update(found.select("doc_id", "title").iter_rows())
        if gone := sorted(lacking - self.texts.keys()):
            raise RuntimeError(
                f"The index ranked or scored document {gone[0]!r} and then had no text for it: it "
                "changed while it was being mined. Wait for the index sync to end and run this "
                "shard again."
            )

    def titled(self, doc_id: str) -> str:
        """Return a document's text with its title, as it is searched."""
        return titled(self.titles[doc_id], self.texts[doc_id])

    def near_duplicate(
        self, doc_id: str, gold: str, chosen: list[str], threshold: float
    ) -> str | None:
        """Return the rule that leaves a document out for the words it shares; None if there is none.

        Args:
            doc_id: the document.
            gold: its question's gold document.
            chosen: the negatives chosen before it.
            threshold: share of the smaller set of words, 0 to 1.
        """
        words = self._words_of(doc_id)
        if _overlap(words, self._words_of(gold)) >= threshold:
            return "near_duplicate_of_gold"
        if any(_overlap(words, self._words_of(other)) >= threshold for other in chosen):
            return "near_duplicate_of_negative"
        return None

    def _words_of(self, doc_id: str) -> frozenset[str]:
        words = self._words.get(doc_id)
        if words is None:
            words = self._words[doc_id] = pieces_in(self.texts[doc_id])
        return words


def _overlap(words: frozenset[str], others: frozenset[str]) -> float:
    smaller = min(len(words), len(others))
    return len(words & others) / smaller if smaller else 0.0
