"""An analyzer as a chain: tokens, their shape, stop words, a stemmer."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib import resources

from rare_assets.retriever.english import Memo, chunks, lower, tokens


class Chain:
    """Text -> terms in order, stop words left out, repeated terms repeated.

    A piece of text between two white spaces is analyzed once per process and remembered.

    Args:
        stop_words: name of a list in `stop_words.json`; None leaves out none.
        stemmer: makes the stemmer, once it is needed; None leaves words as they are.
        shape: what becomes of a token before the stop words are looked up; "" is left out.
    """

    def __init__(
        self,
        stop_words: str | None = None,
        stemmer: Callable[[], Callable[[str], str]] | None = None,
        shape: Callable[[str], str] = lower,
    ) -> None:
        self._stop_words = stop_words
        self._stemmer = stemmer
        self._shape = shape

    def __call__(self, text: str) -> list[str]:
        terms_of = self._memo
        return [term for chunk in chunks(text) for term in terms_of[chunk]]

    @functools.cached_property
    def _memo(self) -> Memo:
        shape, stop = self._shape, stop_words(self._stop_words) if self._stop_words else frozenset()
        stem = self._stemmer() if self._stemmer else str

        def terms(chunk: str) -> tuple[str, ...]:
            shaped = (shape(token) for token in tokens(chunk))
            stemmed = (stem(token) for token in shaped if token and token not in stop)
            return tuple(term for term in stemmed if term)

        return Memo(terms)


def stop_words(name: str) -> frozenset[str]:
    """Lucene's stop words of an analyzer: Snowball's lists and Jacques Savoy's (BSD), its own."""
    lists = resources.files(__package__) / "stop_words.json"
    return frozenset(json.loads(lists.read_text(encoding="utf-8"))[name].split())


def snowball(algorithm: str) -> Callable[[], Callable[[str], str]]:
    """Make a Snowball stemmer, once it is needed."""

    def make() -> Callable[[str], str]:
        import Stemmer

        # The cache inside PyStemmer would only repeat ours.
        stem: Callable[[str], str] = Stemmer.Stemmer(algorithm, 0).stemWord
        return stem

    return make
