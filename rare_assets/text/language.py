"""In which language a text is."""

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
    """A text's language as ISO 639 code; None where it is not sure, or in none (code, numbers)."""
    code, probability = _identifier().classify(text[:_READ_CHARS])
    return code if probability >= SURE and code != _NO_LANGUAGE else None


def likely_language(text: str) -> str:
    """The language that a text is in most likely, sure or not."""
    code: str = _identifier().classify(text[:_READ_CHARS])[0]
    return code


def probability_of(text: str, language: str) -> float:
    """How likely a text is in a language."""
    return dict(_identifier().rank(text[:_READ_CHARS])).get(language, 0.0)


@functools.cache
def _identifier() -> LanguageIdentifier:
    """py3langid's model of 139 languages, part of its package; loaded in about a second, once."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
