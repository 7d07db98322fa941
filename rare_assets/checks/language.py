"""In which language a text is, and whether that is its document's.

Short texts, formulas and close relatives (Danish and Norwegian, Serbian and Croatian) are easily
taken for something else, so two texts count as different only where each is sure by itself and the
document's language is next to impossible for the text.
"""

from __future__ import annotations

import functools

import polars as pl
import regex

from rare_assets.text.language import language_of, likely_language, probability_of
from rare_assets.text.words import UNSPACED_SCRIPTS

IMPOSSIBLE = 0.01
# Below so many letters no language is sure; where a letter is a syllable or a word, it says more.
FEWEST_LETTERS = 40
FEWEST_SYLLABLES = 12
_SYLLABLE = rf"[{UNSPACED_SCRIPTS}\p{{Hangul}}]"
_find_syllable = regex.compile(_SYLLABLE).match


def differ(text: str, its: str, document: str, there: str) -> bool:
    """Return True if a text in language `its` is surely not in its document's language, `there`."""
    return its != there and probability_of(text, there) < IMPOSSIBLE > probability_of(document, its)


def in_other_language(texts: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Find the texts that are in another language than their document.

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
        # Chinese or Japanese or neither sure: in a script that the document does not use it is another.
        if its is None and there is not None and _is_dense(text) and not _is_dense(document):
            its = likely_language(text)
        judged += its is not None and there is not None
        if its and there and differ(text, its, document, there):
            languages.append((its, there))
        else:
            languages.append((None, None))
    codes = pl.DataFrame(
        languages, {"language": pl.String, "document_language": pl.String}, orient="row"
    )
    return long_enough.hstack(codes).filter(pl.col("language").is_not_null()), judged


def _is_dense(text: str) -> bool:
    """Return True if most letters of a text's beginning are syllables or words."""
    letters = regex.findall(r"\p{L}", text[:500])
    return 2 * sum(_find_syllable(letter) is not None for letter in letters) > len(letters)


def _long_enough(column: str) -> pl.Expr:
    text = pl.col(column)
    syllables = text.str.count_matches(_SYLLABLE)
    return (text.str.count_matches(r"\p{L}") >= FEWEST_LETTERS) | (syllables >= FEWEST_SYLLABLES)
