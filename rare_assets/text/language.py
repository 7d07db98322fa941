"""Tell in which language a text is, by py3langid."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SURE = 0.9
# A text's beginning tells, and costs less.
_READ_CHARS = 500
# The identifier's code for texts that are in no language.
_NO_LANGUAGE = "zxx"


def language_of(text: str) -> str | None:
    """Return a text's language as ISO 639 code; None where it is unsure or none (code, numbers).

    >>> language_of("Salz senkt den Gefrierpunkt, und darum streut man es auf vereiste Straßen.")
    'de'
    >>> language_of("x = 1")  # None
    """
    code, probability = load_identifier().classify(text[:_READ_CHARS])
    return code if probability >= SURE and code != _NO_LANGUAGE else None


def likely_language(text: str) -> str:
    """Return the language that a text is in most likely, as ISO 639 code, sure or not."""
    code: str = load_identifier().classify(text[:_READ_CHARS])[0]
    return code


def probability_of(text: str, language: str) -> float:
    """Return how likely a text is in a language, from 0 to 1.

    Args:
        text: of which the first 500 characters are read.
        language: ISO 639 code; 0 for one that the identifier does not know.
    """
    return dict(load_identifier().rank(text[:_READ_CHARS])).get(language, 0.0)


@functools.cache
def load_identifier() -> LanguageIdentifier:
    """Load py3langid's model of 139 languages, part of its package: about a second, once a process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
