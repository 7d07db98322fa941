"""Build an analyzer as a chain: tokens, their shape, stop words, a stemmer."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib import resources

from rare_assets.retriever.english import Memo, chunks, lower, tokens


class Chain:
    """An analyzer: call it with a text for its terms, in order, without stop words.

    A piece of text between two white spaces is analyzed once in a process and remembered.

    Args:
        stop_words: name of a list in `stop_words.json`; None keeps all words.
        stemmer: makes the stemmer when it is first needed; None keeps words as they are.
        shape: changes a token before stop words are looked up; the token is left out if it returns "".

    Example:
        >>> Chain()("Ice melts, ice melts.")
        ['ice', 'melts', 'ice', 'melts']
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
    """Return Lucene's stop words of an analyzer.

    Source: lists of Snowball and of Jacques Savoy (both BSD), and Lucene's own.
    """
    lists = resources.files(__package__) / "stop_words.json"
    return frozenset(json.loads(lists.read_text(encoding="utf-8"))[name].split())


def snowball(algorithm: str) -> Callable[[], Callable[[str], str]]:
    """Return a function that makes a Snowball stemmer."""

    def make() -> Callable[[str], str]:
        import Stemmer

        # The cache inside PyStemmer would only repeat ours.
        stem: Callable[[str], str] = Stemmer.Stemmer(algorithm, 0).stemWord
        return stem

    return make
