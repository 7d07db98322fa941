"""In which language a text is, and whether that is its document's.

Short texts, formulas and close relatives (Danish and Norwegian, Serbian and Croatian) are easily
taken for something else, so two texts count as different only where each is sure by itself and the
document's language is next to impossible for the text.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import polars as pl

from rare_assets.words import UNSPACED_SCRIPTS

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SURE = 0.9
IMPOSSIBLE = 0.01
# Below so many letters no language is sure; where a letter is a syllable or a word, it says more.
FEWEST_LETTERS = 40
FEWEST_SYLLABLES = 12
_SYLLABLE = rf"[{UNSPACED_SCRIPTS}\p{{Hangul}}]"
# A text's beginning tells, and costs less.
_READ_CHARS = 500
# The identifier's code for texts that are in no language.
_NO_LANGUAGE = "zxx"


def language_of(text: str) -> str | None:
    """A text's language as ISO 639 code; None where it is not sure, or in none (code, numbers)."""
    code, probability = _identifier().classify(text[:_READ_CHARS])
    return code if probability >= SURE and code != _NO_LANGUAGE else None


def differ(text: str, its: str, document: str, there: str) -> bool:
    """Whether a text in language `its` is surely not in its document's language, `there`."""
    return its != there and _probability(text, there) < IMPOSSIBLE > _probability(document, its)


def in_other_language(texts: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Texts that are in another language than their document.

    Args:
        texts: `text`, `document`, and any other columns.

    Returns:
        The rows that are, with `language` and `document_language`; and how many rows could be judged.
    """
    long_enough = texts.filter(_long_enough("text"), _long_enough("document"))
    languages: list[tuple[str | None, str | None]] = []
    judged = 0
    known = functools.lru_cache(maxsize=1_000)(language_of)
    for text, document in long_enough.select("text", "document").iter_rows():
        its, there = language_of(text), known(document)
        judged += its is not None and there is not None
        if its and there and differ(text, its, document, there):
            languages.append((its, there))
        else:
            languages.append((None, None))
    codes = pl.DataFrame(
        languages, {"language": pl.String, "document_language": pl.String}, orient="row"
    )
    return long_enough.hstack(codes).filter(pl.col("language").is_not_null()), judged


def _probability(text: str, language: str) -> float:
    return dict(_identifier().rank(text[:_READ_CHARS])).get(language, 0.0)


def _long_enough(column: str) -> pl.Expr:
    text = pl.col(column)
    syllables = text.str.count_matches(_SYLLABLE)
    return (text.str.count_matches(r"\p{L}") >= FEWEST_LETTERS) | (syllables >= FEWEST_SYLLABLES)


@functools.cache
def _identifier() -> LanguageIdentifier:
    """py3langid's model of 139 languages, part of its package; loaded in about a second, once."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
